"""Every recipe loads, fits its parts, and runs a dry run with a miniature network."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mljax.config.schema import from_json, load_config, override, to_json
from mljax.losses.prior import write_prior
from mljax.train import dry_run
from mljax.training.check import check
from tests import layouts

FOLDER = Path(__file__).parent.parent / "configs"
RECIPES = sorted(FOLDER.glob("*.py"))
# float32: the CPU only imitates bfloat16, which triples the compilation.
MINIATURE = [
    "data.preprocessing.image_size=32",
    "data.batch_size=8",
    "data.eval_batch_size=8",
    "data.num_workers=0",
    "model.backbone.kwargs.layers=(1,1,1,1)",
    "model.backbone.kwargs.width=8",
    "model.init_from=None",
    "model.dtype=float32",
]
SMALL_HEADS = {"ml_decoder": ["embedding_size=16", "feed_forward_size=16", "num_groups=2"]}


def miniature(config, root):
    """Returns the recipe with a miniature network, on made-up data written to `root`."""
    changes = list(MINIATURE)
    reader, prefix = config.data.reader, "data.reader.kwargs"
    name = reader.name
    if name == "partial":
        name, prefix = reader.kwargs["reader"], f"{prefix}.reader_kwargs"
        # So many labels of each class; the made-up data have fewer than the recipes ask for.
        changes += ["data.reader.kwargs.amount=4"] * (reader.kwargs["amount"] > 1)
    if name == "digits":
        changes.append(f"{prefix}.num_images=16")
    else:
        layouts.WRITERS[name](root)
        changes.append(f"{prefix}.root={root}")
    if "image_ids" in reader.kwargs:
        ids = root / "ids.csv"
        ids.write_text("".join(f"{i:.18e}\n" for i in range(layouts.COUNT)))
        changes.append(f"{prefix}.image_ids={ids}")
    changes += [f"model.head.kwargs.{line}" for line in SMALL_HEADS.get(config.model.head.name, [])]
    for number, loss in enumerate(config.losses):
        if "prior" in loss.kwargs:
            write_prior(root / "prior.csv", ["cat", "dog"], np.array([0.6, 0.2]))
            changes.append(f"losses.{number}.kwargs.prior={root / 'prior.csv'}")
    return override(config, changes)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_fits_its_parts_and_survives_json(path):
    config = load_config(path)
    check(config, num_devices=1)
    assert from_json(type(config), to_json(config)) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_says_how_to_run_it_and_what_to_expect(path):
    text = path.read_text().split('"""')[1]
    assert f"python -m mljax.train --config configs/{path.name}" in text
    assert "mAP" in text or "no published figure" in text or "top-1" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_runs_dry_in_miniature(path, tmp_path):
    config = miniature(load_config(path), tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    with Console(record=True, width=120) as console:
        dry_run(config, console)
    text = console.export_text()
    assert "all parts fit; nothing was written" in text
    assert "(8, 32, 32, 3) float32" in text
    assert sorted(tmp_path.rglob("*")) == before
