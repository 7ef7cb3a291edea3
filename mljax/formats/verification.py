"""Comparison of a file with the network that it was written from."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from mljax.config.schema import Preprocessing
from mljax.data.images import normalize
from mljax.devices.mesh import make_mesh
from mljax.formats.computation import Computation, in_float32
from mljax.formats.files import Format
from mljax.models.arrays import split_model
from mljax.models.classifier import Classifier
from mljax.models.inference import fetch, make_forward

TOLERANCE = 1e-4


def verify(
    path: Path,
    form: Format,
    model: Classifier,
    computation: Computation,
    pixels: UInt8[np.ndarray, "b h w 3"],
    preprocessing: Preprocessing,
) -> dict[str, float]:
    """Returns the largest difference of any output, for each way to run the file.

    The network, not folded, is the measure. The first image is a batch of its own, the others are
    another, so that a file that computes has to read batches of two sizes.

    Args:
      path: of the file.
      form: of the file.
      model: what it was written from.
      computation: likewise.
      pixels: at least two images of the network's size.
      preprocessing: how they are normalized.

    Raises:
      ValueError: for a difference above 1e-4, relative to outputs that are larger than 1.
    """
    images = normalize(pixels, preprocessing)
    names = list(jax.eval_shape(computation.function, computation.images))
    expected = _expected(in_float32(model), images, names)
    given = pixels if form.computes and computation.images.dtype == np.uint8 else images
    differences = {}
    for how, run in form.runs(path).items():
        parts = [run(given[:1]), run(given[1:])] if form.computes else [run(given)]
        difference = 0.0
        for name in names:
            found = np.concatenate([part[name] for part in parts])
            apart = float(np.abs(found - expected[name]).max())
            # Not `apart > limit`, which nan passes.
            if not apart <= TOLERANCE * max(1.0, float(np.abs(expected[name]).max())):
                raise ValueError(f"{how} differs by {apart:.1e} in {name}, so no file is left")
            difference = max(difference, apart)
        differences[how] = difference
    return differences


def _expected(model: Classifier, images: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    _, params, statistics = split_model(model)
    mesh = make_mesh(jax.local_devices()[:1])
    forward = make_forward(model, mesh, names, matmul_precision="highest")
    return fetch(forward(params, statistics, images))
