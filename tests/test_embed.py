"""Embeddings by the command: the arrays, the pictures, and the neighbors of given images."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mljax.checkpoints.checkpoint import save_model
from mljax.config import part
from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.embed import main
from tests import networks, photos, small_configs

BACKBONE = part("resnet18", layers=(0, 1, 0, 0), width=4)
HEAD = part("label_attention", embedding_size=8, num_heads=2, projection_size=6)
SINGLE = "reader={'name': 'digits', 'kwargs': {'num_images': 20, 'max_digits': 1}}"


@pytest.fixture(scope="module")
def network():
    return networks.model(backbone=BACKBONE, head=HEAD)


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, network, config=small_configs.config())


def _size(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.usefixtures("as_a_users")
def test_vectors_of_images_and_of_present_labels_are_written(checkpoint, network, capsys):
    assert main(["--checkpoint", str(checkpoint)]) == 0
    folder = checkpoint.with_name("model.embeddings")
    records = digits("val", num_images=20)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("embeddings.npz", "embeddings.png", "label_embeddings.png")
    ]
    arrays = np.load(folder / "embeddings.npz")
    np.testing.assert_array_equal(arrays["labels"], records.labels)
    assert tuple(arrays["classes"]) == CLASS_NAMES
    assert arrays["names"][3] == "image 3"
    images = jnp.asarray(records.images / np.float32(255))
    pooled, outputs = jax.jit(
        lambda x: (network.backbone(x).mean((1, 2)), network.head(network.backbone(x)))
    )(images)
    np.testing.assert_allclose(arrays["embeddings"], pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(arrays["label_pairs"], np.argwhere(records.labels > 0))
    rows, classes = arrays["label_pairs"].T
    expected = np.asarray(outputs["embeddings"])[rows, classes]
    np.testing.assert_allclose(arrays["label_embeddings"], expected, rtol=1e-3, atol=1e-4)
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"{len(rows)} labels, embeddings: {len(rows)} x 8" in printed
    assert str(folder / "label_embeddings.png") in printed


def test_neighbors_of_files_and_numbers_are_drawn_without_the_image_itself(
    checkpoint, tmp_path, monkeypatch
):
    rows = []
    monkeypatch.setattr(
        "mljax.embed.contact_sheet", lambda x: rows.extend(x) or Image.new("1", (1, 1))
    )
    records = digits("val", num_images=20, max_digits=1)
    Image.fromarray(records.images[7]).save(tmp_path / "seven.png")
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--count", "3"]
    options += ["--data", SINGLE, "--neighbors", "7", str(tmp_path / "seven.png")]
    assert main(options) == 0
    assert (tmp_path / "out" / "neighbors.png").exists()
    (query, *own), (_, *others) = rows
    label = CLASS_NAMES[records.labels[7].argmax()]
    assert query[1] == ["image 7", label]
    assert [len(own), len(others)] == [3, 3]
    # The file is no image of the split; the split's image 7 is its double.
    assert others[0][1] == ["1.000 image 7", label]
    assert [text for _, text in others[1:]] == [text for _, text in own[:2]]
    assert "image 7" not in str([text for _, text in own])


def test_a_file_of_the_split_is_not_its_own_neighbor(checkpoint, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(
        "mljax.embed.contact_sheet", lambda x: rows.extend(x) or Image.new("1", (1, 1))
    )
    reader = photos.save_photos(tmp_path / "photos").removeprefix("data.")
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--data", reader]
    options += ["--set", "data.bad_images=skip", "--count", "24", "--neighbors"]
    monkeypatch.chdir(tmp_path / "photos")
    assert main([*options, "5.png", "5"]) == 0
    (of_file, of_number) = ([text for _, text in row[1:]] for row in rows)
    assert of_file == of_number
    assert len(of_file) == 23
    assert "5.png" not in [caption.split()[1] for caption, *_ in of_file]


def test_a_layer_of_labels_leaves_pooled_for_the_images(checkpoint, tmp_path, capsys):
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path)]
    assert main([*options, "--layer", "projections"]) == 0
    arrays = np.load(tmp_path / "embeddings.npz")
    np.testing.assert_allclose(np.linalg.norm(arrays["label_embeddings"], axis=1), 1, rtol=1e-5)
    assert ", pooled: 20 x " in capsys.readouterr().out
    assert _size(tmp_path / "embeddings.png")[0] > 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "maps"], "got 'maps', expected one of embeddings, logits, pooled, projecti"),
        (["--neighbors", "20"], "--neighbors 20: no such file, and the split has images 0 to 19"),
        (["--neighbors", "none.jpg"], "none.jpg: cannot be read as an image"),
        (["--count", "0"], "--count must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_one_line(checkpoint, tmp_path, capsys, options, message):
    output = tmp_path / "out"
    assert main(["--checkpoint", str(checkpoint), "--output", str(output), *options]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_without_matplotlib_the_command_ends_before_the_work(checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["--checkpoint", str(checkpoint)]) == 1
    assert "pip install 'mljax[plot]'" in capsys.readouterr().err
