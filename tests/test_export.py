"""Exported files: their outputs, metadata and batches; what runs them; and what is refused."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from flax import nnx
from PIL import Image

from mljax.checkpoints.checkpoint import Thresholds, save_model, save_thresholds
from mljax.config import Preprocessing, part
from mljax.config.part import resolved
from mljax.data.images import normalize
from mljax.export import main
from mljax.formats import RUNTIMES, verification
from mljax.formats.computation import make_computation
from mljax.formats.onnx_trace import write_model
from mljax.formats.runtimes import run_onnx
from mljax.models.arrays import split_model
from mljax.models.classifier import Classifier, ModelSpec
from mljax.models.inference import make_apply
from mljax.predict import main as predict
from tests import networks
from tests.models.test_folding import BACKBONES
from tests.photos import save_photo

DOCUMENT = Path(__file__).parent.parent / "docs/export.md"
PREPROCESSING = Preprocessing(image_size=(32, 40), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
SMALL = {"embedding_size": 16, "feed_forward_size": 8}
HEADS = {
    "linear": part("linear"),
    "max": part("linear", pooling=part("average_plus_max")),
    "cosine": part("cosine"),
    "csra": part("csra", temperatures=(1, None)),
    "kernel_mixture": part("kernel_mixture"),
    "label_attention": part("label_attention", embedding_size=16, projection_size=4),
    "ml_decoder": part("ml_decoder", **SMALL, scale=20.0),
    "projection": part("projection"),
    "query2label": part("query2label", **SMALL, num_heads=2, self_attention=(0,)),
    "graph_reweighting": part("graph_reweighting", hidden_features=4),
    "ml_gcn": part("ml_gcn", hidden_features=4),
}


def _model(backbone=networks.BACKBONE, head=networks.HEAD):
    network = networks.model(backbone=backbone, head=head, preprocessing=PREPROCESSING)
    return networks.trained(network)


def _small():
    return _model(BACKBONES["resnet"])


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Returns the photo of all comparisons, for which the network is compiled once."""
    return str(save_photo(tmp_path_factory.mktemp("photos") / "photo.png"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Returns the folder of a network with calibrated thresholds."""
    folder = tmp_path_factory.mktemp("checkpoints") / "model"
    save_model(folder, _small())
    save_thresholds(folder, Thresholds(logits=tuple(map(float, range(10)))))
    return folder


def _pixels(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 40, 3), np.uint8)


def _compare(network, images, *, names=()):
    """Compares all outputs in ONNX Runtime, its optimizer on and off, with mljax's."""
    size = Preprocessing(image_size=images.shape[1:3])
    model = write_model(make_computation(network, preprocessing=size, reads=names))
    expected = jax.jit(lambda network, images: network(images))(network, images)
    for optimize in (True, False):
        found = run_onnx(model.SerializeToString(), optimize=optimize)(images)
        assert found.keys() == (set(names) or {"logits"})
        for name, array in found.items():
            limit = 1e-4 * max(1.0, np.abs(expected[name]).max())
            np.testing.assert_allclose(array, expected[name], atol=limit, rtol=0)
            assert array.shape == expected[name].shape and not np.isnan(array).any()
    return model


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_every_backbone_is_written(backbone):
    images = normalize(_pixels(), PREPROCESSING)
    model = _compare(_model(backbone), images)
    # Maps stay as convolutions make them: the few transposes are of the image and of vectors.
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("Transpose") <= 9
    assert "Einsum" not in operations


class Map(nnx.Module):
    """A backbone that costs nothing."""

    num_features = 8

    def __init__(self):
        self.kernel = nnx.Param(jax.random.normal(jax.random.key(0), (3, self.num_features)))

    def __call__(self, images):
        return jnp.sin(images @ self.kernel[...])


def _alone(name):
    """Returns a network of a head on a small backbone."""
    head, backbone = HEADS[name], Map()
    spec = ModelSpec(backbone=part("resnet18"), head=head, num_classes=3)
    module = nnx.eval_shape(
        lambda: resolved(head, "head")(backbone.num_features, 3, dtype=None, rngs=nnx.Rngs(0))
    )
    graph, state = nnx.split(module)
    rng = np.random.default_rng(0)

    def fill(path, x):
        # Edges of a graph are not negative.
        values = rng.uniform(0, 1, x.shape) if "edges" in path else rng.normal(0, 0.3, x.shape)
        return x.replace(jnp.asarray(values, x.dtype))

    network = Classifier(backbone, nnx.merge(graph, nnx.map_state(fill, state)), spec)
    network.eval()
    return network


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_written(name):
    network = _alone(name)
    images = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    names = tuple(sorted(jax.eval_shape(network, images)))
    _compare(network, images, names=names)


def test_pixels_go_in_and_what_a_user_needs_is_in_the_file(
    checkpoint, photo, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "new" / "model.onnx"
    arguments = ["--checkpoint", str(checkpoint), "--format", "onnx", "--output", str(output)]
    assert main([*arguments, "--preprocessing", photo]) == 0
    assert "largest difference of 3 images:" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(output)
    logits = session.run(["logits"], {"images": _pixels()})[0]
    expected = make_apply(_small())(normalize(_pixels(), PREPROCESSING))["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(_small().class_names)
    assert json.loads(metadata["thresholds"]) == list(range(10))
    stored = json.loads(metadata["preprocessing"])
    assert (stored["image_size"], stored["mean"]) == ([32, 40], [0.5, 0.4, 0.3])
    assert metadata["input"] == "uint8 RGB pixels"
    assert session.get_inputs()[0].shape == ["b", 32, 40, 3]
    assert list(output.parent.iterdir()) == [output]
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    # The example of the documentation, in a folder of its own.
    Image.open(photo).save(output.parent / "photo.jpg", quality=95)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    monkeypatch.chdir(output.parent)
    exec(blocks[0], {})
    predicted = capsys.readouterr().out.split()[::2]
    pixels = np.asarray(Image.open("photo.jpg").resize((40, 32), Image.Resampling.BILINEAR))
    images = normalize(pixels[None], PREPROCESSING)
    above = make_apply(_small())(images)["logits"][0] > np.arange(10)
    assert 0 < above.sum() < 10
    assert predicted == list(np.array(_small().class_names)[above])


def test_a_file_that_does_not_agree_is_not_left_behind(
    checkpoint, photo, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(verification, "TOLERANCE", 0.0)
    output = tmp_path / "model.onnx"
    arguments = ["--checkpoint", str(checkpoint), "--format", "onnx", "--output", str(output)]
    assert main([*arguments, photo]) == 1
    assert "differs by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_stablehlo_is_run_by_jax_alone(checkpoint, photo, tmp_path):
    output = tmp_path / "model.stablehlo"
    arguments = ["--checkpoint", str(checkpoint), "--format", "stablehlo", "--output", str(output)]
    assert main([*arguments, photo]) == 0
    images = normalize(_pixels(2), PREPROCESSING)
    logits = jax.export.deserialize(bytearray(output.read_bytes())).call(images)["logits"]
    expected = make_apply(_small())(images)["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    metadata = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert json.loads(metadata["thresholds"]) == list(range(10))


def test_safetensors_hold_the_arrays_by_path(checkpoint, photo, tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    arguments = ["--checkpoint", str(checkpoint), "--format", "safetensors", photo]
    assert main([*arguments, "--output", str(output)]) == 0
    _, params, statistics = split_model(_small())
    stored = safetensors.numpy.load_file(output)
    assert stored.keys() == params.keys() | statistics.keys()
    for path, array in {**params, **statistics}.items():
        np.testing.assert_array_equal(stored[path], array)
    assert main([*arguments, "--output", str(tmp_path / "x"), "--preprocessing"]) == 1
    assert "safetensors holds arrays, which compute nothing" in capsys.readouterr().err


def test_openvino_reads_its_own_file(checkpoint, tmp_path, capsys):
    pytest.importorskip("openvino")
    arguments = ["--checkpoint", str(checkpoint), "--format", "openvino", "--output"]
    assert main([*arguments, str(tmp_path / "model.onnx")]) == 1
    assert "files of OpenVINO end in .xml" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "model.xml")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    images = normalize(_pixels(), PREPROCESSING)
    found = RUNTIMES["openvino"](_small())(images)["logits"]
    expected = make_apply(_small())(images)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_runtime_reads_every_size_and_computes_in_float32():
    half = networks.model(backbone=part("resnet18", **BACKBONES["resnet"].kwargs))
    half = networks.trained(half)
    expected = make_apply(half)
    half.spec = dataclasses.replace(half.spec, dtype="bfloat16")
    found = RUNTIMES["onnxruntime"](half)
    for shape in ((1, 32, 32, 3), (2, 32, 32, 3), (2, 40, 32, 3)):
        images = np.random.default_rng(0).random(shape, np.float32)
        logits = found(images)["logits"]
        limit = 1e-4 * np.abs(logits).max()
        np.testing.assert_allclose(logits, expected(images)["logits"], atol=limit)


def test_predictions_by_another_runtime_are_equal(checkpoint, tmp_path, capsys):
    for number in range(3):
        save_photo(tmp_path / f"{number}.png", number)
    arguments = ["--checkpoint", str(checkpoint), str(tmp_path), "--json", "--threshold", "0"]
    scores = []
    for runtime in ("jax", "onnxruntime"):
        assert predict([*arguments, "--runtime", runtime]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        scores.append([sorted((x["name"], x["score"]) for x in line["labels"]) for line in lines])
    names = np.array(scores)[..., 0]
    np.testing.assert_array_equal(names[0], names[1])
    values = np.array(scores)[..., 1].astype(float)
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)


def test_a_runtime_that_is_not_installed_is_named(checkpoint, photo, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    arguments = ["--checkpoint", str(checkpoint), photo, "--runtime", "onnxruntime"]
    assert predict(arguments) == 1
    expected = "error: onnxruntime is not installed: pip install 'mljax[onnx]'"
    assert expected in capsys.readouterr().err


def test_what_onnx_lacks_is_named_with_its_line():
    class Sorted(nnx.Module):
        def __call__(self, features, *, rngs=None):
            return {"logits": jnp.sort(features.mean((1, 2)))}

    network = Classifier(
        Map(), Sorted(), ModelSpec(backbone=part("x:y"), head=part("x:z"), num_classes=3)
    )
    with pytest.raises(
        ValueError, match="test_export.py:.*: sort is not in mljax.formats.onnx_primitives"
    ):
        write_model(make_computation(network, preprocessing=Preprocessing(image_size=4)))
