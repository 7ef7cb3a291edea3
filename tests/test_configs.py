"""Every recipe loads, fits its parts, and runs a dry run with a miniature network."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mljax.config import from_json, load_config, override, to_json
from mljax.run import check
from mljax.train import dry_run

FOLDER = Path(__file__).parent.parent / "configs"
RECIPES = sorted(FOLDER.glob("*.py"))
MINIATURE = [
    "data.preprocessing.image_size=32",
    "data.batch_size=8",
    "data.eval_batch_size=8",
    "data.num_workers=0",
    "model.backbone.kwargs.layers=(1,1,1,1)",
    "model.backbone.kwargs.width=8",
    "model.init_from=None",
]


def write_images(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")


def make_csv(root):
    write_images(root / "images", 12)
    for split in ("train", "val"):
        rows = [f"images/{i}.jpg,{i % 2},{i % 3 == 0:d}" for i in range(12)]
        (root / f"{split}.csv").write_text("\n".join(["image,cat,dog", *rows]) + "\n")


def make_coco(root):
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        write_images(root / f"{split}2014", 12)
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(12)],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 7 if i % 2 else 3, "area": 9.0}
                for i in range(12)
            ],
        }
        (root / f"annotations/instances_{split}2014.json").write_text(json.dumps(content))


def make_voc(root):
    write_images(root / "JPEGImages", 12)
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    for i in range(12):
        name = "cat" if i % 2 else "dog"
        (root / f"Annotations/{i}.xml").write_text(
            f"<annotation><object><name>{name}</name><difficult>{i % 5 == 0:d}</difficult>"
            "</object></annotation>"
        )
    for split in ("trainval", "test"):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(map(str, range(12))) + "\n")


# The reader of a recipe, to what writes its layout; the embedded digits need nothing.
LAYOUTS = {"csv": make_csv, "coco": make_coco, "voc": make_voc}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_fits_its_parts_and_survives_json(path):
    config = load_config(path)
    check(config, num_devices=1)
    assert from_json(type(config), to_json(config)) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_says_how_to_run_it_and_what_to_expect(path):
    text = path.read_text().split('"""')[1]
    assert f"python -m mljax.train --config configs/{path.name}" in text
    assert "mAP" in text or "no published figure" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_runs_dry_in_miniature(path, tmp_path):
    config = load_config(path)
    changes = list(MINIATURE)
    if config.data.reader.name in LAYOUTS:
        LAYOUTS[config.data.reader.name](tmp_path / "data")
        changes.append(f"data.reader.kwargs.root={tmp_path / 'data'}")
    else:
        assert config.data.reader.name == "digits"
        changes.append("data.reader.kwargs.num_images=16")
    before = sorted(tmp_path.rglob("*"))
    with Console(record=True, width=120) as console:
        dry_run(override(config, changes), console)
    text = console.export_text()
    assert "all parts fit; nothing was written" in text
    assert "(8, 32, 32, 3) float32" in text
    assert sorted(tmp_path.rglob("*")) == before
