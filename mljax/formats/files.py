"""Files of networks, one format a pair of functions: what writes it, and what runs it again.

A writer gets the path, the network and its computation. A runner returns functions of the images
that compute the outputs from the file, by the name of how they do it, and needs nothing of the
network.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from mljax.config.load import from_json, to_json
from mljax.devices.mesh import make_mesh
from mljax.formats.computation import Computation, in_float32, package
from mljax.formats.runtimes import Run, onnx_model, run_onnx, run_openvino
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, ModelSpec, abstract_model
from mljax.models.inference import fetch, make_forward


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
      write: `(path, model, computation)`.
      runs: `path` to functions of images by the name of how they run.
      computes: whether the file is the computation; otherwise it holds the arrays alone.
    """

    write: Callable[[Path, Classifier, Computation], None]
    runs: Callable[[Path], dict[str, Run]]
    computes: bool = True


def write_onnx(path: Path, model: Classifier, computation: Computation) -> None:
    """Writes an ONNX file; the metadata are its `metadata_props`."""
    path.write_bytes(onnx_model(computation))


def onnx_runs(path: Path) -> dict[str, Run]:
    """Returns the file in ONNX Runtime, with its optimizer and without."""
    return {
        "onnxruntime": run_onnx(path.read_bytes()),
        "onnxruntime, its optimizer off": run_onnx(path.read_bytes(), optimize=False),
    }


def write_openvino(path: Path, model: Classifier, computation: Computation) -> None:
    """Writes OpenVINO's two files, `path` and the same with `.bin`; the metadata are `rt_info`.

    Raises:
      ValueError: for a path that does not end in `.xml`, which OpenVINO insists on.
    """
    if path.suffix != ".xml":
        raise ValueError(f"{path}: files of OpenVINO end in .xml")
    openvino = package("openvino", "openvino")
    network = openvino.Core().read_model(onnx_model(computation))
    for name, text in computation.metadata.items():
        network.set_rt_info(text, ["mljax", name])
    # Its default would round the weights to half precision.
    openvino.save_model(network, path, compress_to_fp16=False)


def openvino_runs(path: Path) -> dict[str, Run]:
    """Returns the file in OpenVINO."""
    return {"openvino": run_openvino(path)}


def write_stablehlo(path: Path, model: Classifier, computation: Computation) -> None:
    """Writes what `jax.export` serializes, for CPUs, GPUs and TPUs, and `path`.json beside it."""
    exported = export.export(jax.jit(computation.function), platforms=("cpu", "cuda", "tpu"))
    path.write_bytes(exported(computation.images).serialize())
    path.with_name(f"{path.name}.json").write_text(
        json.dumps(computation.metadata, indent=2) + "\n", "utf-8"
    )


def stablehlo_runs(path: Path) -> dict[str, Run]:
    """Returns the file compiled by XLA, with its optimizations and without."""
    call = export.deserialize(bytearray(path.read_bytes())).call

    def compiled(options: dict[str, Any]) -> Run:
        run = jax.jit(call, compiler_options=options)
        return lambda images: jax.tree.map(np.asarray, run(images))

    return {
        "XLA": compiled({}),
        "XLA, its optimizer off": compiled({"xla_backend_optimization_level": 0}),
    }


def write_safetensors(path: Path, model: Classifier, computation: Computation) -> None:
    """Writes the arrays by their paths, as `split_model` has them; with what makes the network."""
    _, params, statistics = split_model(model)
    arrays = jax.tree.map(np.asarray, {**params, **statistics})
    metadata = computation.metadata | {"spec": to_json(model.spec)}
    path.write_bytes(package("safetensors.numpy", "safetensors").save(arrays, metadata))


def safetensors_runs(path: Path) -> dict[str, Run]:
    """Returns the network made again from the file."""
    with package("safetensors", "safetensors").safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    spec = from_json(ModelSpec, metadata["spec"], str(path))
    graph, *parts = split_model(abstract_model(spec))
    params, statistics = ({name: jnp.asarray(arrays.pop(name)) for name in part} for part in parts)
    network = in_float32(merge_model(graph, params, statistics))
    assert not arrays, f"{path}: more than the network has: {', '.join(arrays)}"
    # The structure is the one of the network that it is compared with, and compiled for that.
    names = json.loads(metadata["outputs"])
    mesh = make_mesh(jax.local_devices()[:1])
    forward = make_forward(network, mesh, names, matmul_precision="highest")
    return {"mljax": lambda images: fetch(forward(params, statistics, images))}


FORMATS = {
    "onnx": Format(write_onnx, onnx_runs),
    "openvino": Format(write_openvino, openvino_runs),
    "stablehlo": Format(write_stablehlo, stablehlo_runs),
    "safetensors": Format(write_safetensors, safetensors_runs, computes=False),
}
