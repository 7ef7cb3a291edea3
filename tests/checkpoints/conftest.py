"""A saved checkpoint, and a copy that a test may spoil."""

import dataclasses
import shutil

import pytest

from mljax.checkpoints.checkpoint import (
    save_model,
)
from tests import networks, small_configs

NAMES = tuple(f"class {c} é" for c in range(10))


PREPROCESSING = dataclasses.replace(
    networks.PREPROCESSING, mean=(0.1, 0.2, 0.3), std=(0.5, 1 / 3, 1.0), resize="bicubic"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = networks.model(class_names=NAMES, preprocessing=PREPROCESSING)
    folder = tmp_path_factory.mktemp("checkpoints") / "new" / "model"
    return save_model(folder, model, config=small_configs.config(), card="# A card\n")


@pytest.fixture
def copied(saved, tmp_path):
    """Returns a copy that a test may spoil."""
    return shutil.copytree(saved, tmp_path / "model")
