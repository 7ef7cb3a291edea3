"""Runtimes other than jax: ONNX Runtime and OpenVINO, for a network or for a file of one."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from mljax.config.schema import MatmulPrecision, Preprocessing
from mljax.formats.computation import Computation, make_computation, package
from mljax.models.classifier import Classifier
from mljax.models.inference import MakeApply, make_apply

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def onnx_model(computation: Computation) -> bytes:
    """Returns a computation as an ONNX model.

    Raises:
      ImportError: without the package `onnx`.
      ValueError: for an operation that cannot be written, with its line of code.
    """
    package("onnx", "onnx")
    from mljax.formats.onnx_trace import write_model

    return write_model(computation).SerializeToString()


def run_onnx(model: bytes, *, optimize: bool = True) -> Run:
    """Returns a function that runs an ONNX model in ONNX Runtime, on the CPU.

    Args:
      model: the content of a file.
      optimize: let it rewrite the graph; without, each operation is computed as it is written.
    """
    runtime = package("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (given,) = session.get_inputs()
    return lambda images: dict(zip(names, session.run(names, {given.name: images}), strict=True))


def run_openvino(model: bytes | Path, *, precision: Literal["f32", "bf16"] = "f32") -> Run:
    """Returns a function that runs a model in OpenVINO, on the CPU.

    Args:
      model: an ONNX model, or the path of OpenVINO's own file.
      precision: of the computation; OpenVINO would choose bfloat16 on CPUs that have it.
    """
    options = {"INFERENCE_PRECISION_HINT": precision}
    core = package("openvino", "openvino").Core()
    compiled = core.compile_model(core.read_model(model), "CPU", options)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled({"images": images})
        # Copies: the next call writes into the same memory. A port may have names of the graph too.
        return {name: np.array(found[port]) for port in compiled.outputs for name in port.names}

    return run


def _make_apply_of(run: Callable[[bytes], Run]) -> MakeApply:
    def make(
        model: Classifier,
        reads: Sequence[str] = ("logits",),
        *,
        preprocessing: Preprocessing | None = None,
        matmul_precision: MatmulPrecision = "default",
    ) -> Run:
        """Returns `apply(images)`, as `mljax.models.inference.make_apply` does, in float32."""
        del matmul_precision  # On CPUs float32 is float32.

        @functools.cache
        def for_images(size: tuple[int, int], bytes_: bool) -> Run:
            prepared = dataclasses.replace(
                preprocessing or Preprocessing(image_size=size), image_size=size
            )
            computation = make_computation(
                model, preprocessing=prepared, normalize=bytes_, reads=reads
            )
            return run(onnx_model(computation))

        def apply(images: Shaped[np.ndarray, "b h w 3"]) -> dict[str, np.ndarray]:
            return for_images(images.shape[1:3], images.dtype == np.uint8)(images)

        return apply

    return make


RUNTIMES: dict[str, MakeApply] = {
    "jax": make_apply,
    "onnxruntime": _make_apply_of(run_onnx),
    "openvino": _make_apply_of(run_openvino),
}
"""Makers of `apply(images)` from a network and the names of its outputs."""
