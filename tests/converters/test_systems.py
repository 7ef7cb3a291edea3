"""The contract between a system and the generic converter."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from converters import SYSTEMS, from_torch, to_numpy
from converters.convert import main
from converters.models import detect
from converters.systems.system import Detection, System
from converters.table import join
from converters.verify import verify
from mljax.checkpoints.checkpoint import load_model
from mljax.config import Part, Preprocessing
from tests import golden
from tests.converters.small_resnet import small

ROOT = Path(__file__).parent.parent.parent / "converters"
WORDS = ("kmcl", "kernel", "prior", "word_vector", "slope", "resnet", "ml_decoder", "supcon")


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_arguments_of_a_system_are_the_keywords_of_its_detection(name):
    parameters = inspect.signature(SYSTEMS[name].detect).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keywords == dict.fromkeys(SYSTEMS[name].arguments)


@pytest.mark.parametrize("file", ["__init__", "models", "convert", "table", "verify"])
def test_generic_files_name_no_system(file):
    text = (ROOT / f"{file}.py").read_text().lower()
    assert [word for word in WORDS if word in text] == []


def test_an_unknown_argument_is_answered_with_the_system_and_the_closest():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    with pytest.raises(ValueError, match="TResNet .*'stem_slop'.*stem_slope"):
        from_torch(tensors, stem_slop=1e-6)


def test_an_argument_of_another_type_is_refused():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    with pytest.raises(ValueError, match="TResNet.*'stem_slope'.*number.*'steep'"):
        from_torch(tensors, stem_slope="steep")


def test_another_network_is_refused_with_its_first_names_and_what_is_known():
    tensors = {"conv1.weight": np.zeros((64, 3, 7, 7)), "bn1.weight": np.zeros(64)}
    with pytest.raises(ValueError, match="x.pth: is of no known system.*conv1.weight, bn1.weight"):
        detect(tensors, "x.pth")
    with pytest.raises(ValueError) as raised:
        detect(tensors, "x.pth")
    assert all(system.networks in str(raised.value) for system in SYSTEMS.values())


def test_an_unknown_naming_is_answered_with_the_known():
    with pytest.raises(ValueError, match="original or timm or supcon .*'tim'.*timm"):
        to_numpy(small(), naming="tim")


# A system that is told apart by a prefix, has an array that no file holds, and its own statistics.


def _without_prefix(tensors):
    return {name.removeprefix("toy."): array for name, array in tensors.items()}


def _detect_toy(tensors, name, *, brightness: float | None = None, bias: np.ndarray | None = None):
    _, found = detect(_without_prefix(tensors), name)
    bias = np.zeros(found.num_classes, np.float32) if bias is None else bias
    return Detection(
        backbone=found.backbone,
        head=Part(name="linear"),
        num_classes=found.num_classes,
        naming="toy",
        preprocessing=Preprocessing(image_size=32, mean=(brightness or 0.0,) * 3),
        description="toy",
        arrays={"head.linear.bias": bias},
    )


def _toy_table(model, naming):
    assert naming == "toy"
    table = SYSTEMS["resnet"].table(model, "original")
    rows = [row for row in table.rows if row.sources != ("fc.bias",)]
    renamed = [type(r)(tuple(f"toy.{s}" for s in r.sources), r.targets, r.transform) for r in rows]
    return join(type(table)(tuple(renamed), kept={"head.linear.bias": "given by the caller"}))


def _toy_logits(weights, images, model):
    bias = torch.tensor(np.array(model.head.linear.bias[...]))
    return SYSTEMS["resnet"].logits(_without_prefix(weights) | {"fc.bias": bias}, images, model)


@pytest.fixture
def toy(monkeypatch):
    """Adds a system by its one entry, and returns a state dict of it."""
    system = System(
        name="Toy",
        networks="ResNet of the toy",
        matches=lambda tensors: "toy.conv1.weight" in tensors,
        detect=_detect_toy,
        arguments={"brightness": "mean of all images", "bias": "of the classifier"},
        pairs=SYSTEMS["resnet"].pairs,
        namings=("toy",),
        table=_toy_table,
        logits=_toy_logits,
    )
    monkeypatch.setitem(SYSTEMS, "toy", system)
    tensors = to_numpy(small(), naming="original")
    return {f"toy.{name}": a for name, a in tensors.items() if name != "fc.bias"}


def test_a_new_system_is_one_entry(toy):
    bias = np.arange(3, dtype=np.float32)
    model = from_torch(toy, brightness=0.5, bias=bias)
    assert model.preprocessing.mean == (0.5, 0.5, 0.5)
    np.testing.assert_array_equal(model.head.linear.bias[...], bias)
    exported = to_numpy(model, naming="toy")
    assert list(exported) == list(toy)
    for name, array in exported.items():
        np.testing.assert_array_equal(array, toy[name])
    assert verify(model, toy, image_size=32).passed


@pytest.mark.parametrize("name", ["bias.npy", "bias.pth"])
def test_the_command_takes_the_arguments_of_a_new_system(tmp_path, toy, name):
    bias = np.arange(3, dtype=np.float32)
    if name.endswith(".npy"):
        np.save(tmp_path / name, bias)
    else:
        torch.save(torch.tensor(bias), tmp_path / name)
    torch.save({key: torch.tensor(array) for key, array in toy.items()}, tmp_path / "toy.pth")
    options = ["--argument", "brightness=0.25", "--argument", f"bias={tmp_path / name}"]
    assert main([str(tmp_path / "toy.pth"), str(tmp_path / "out"), "--verify", *options]) == 0
    model = load_model(tmp_path / "out")
    assert model.preprocessing.mean == (0.25, 0.25, 0.25)
    np.testing.assert_array_equal(model.head.linear.bias[...], bias)


def test_the_help_lists_every_system_with_its_arguments(toy, capsys):
    del toy
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for system in SYSTEMS.values():
        assert f"{system.name}: {system.networks}" in out
        assert all(f"{argument}: " in out for argument in system.arguments)
    assert "brightness: mean of all images" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["stem_slope"], "expected NAME=VALUE, got 'stem_slope'"),
        (["=1"], "expected NAME=VALUE, got '=1'"),
        (["stem_slope=1", "stem_slope=2"], "stem_slope is given twice"),
        (["stem_slope=steep"], "must be a number"),
        (["stem=1"], "stem_slope"),
        (["word_vectors=w.npy"], "takes no argument 'word_vectors'"),
    ],
)
def test_a_bad_argument_is_an_error_and_leaves_no_folder(tmp_path, capsys, options, message):
    source = golden.FOLDER / "ckpt_asl_zip.pth"
    given = [part for option in options for part in ("--argument", option)]
    assert main([str(source), str(tmp_path / "out"), *given]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_the_command_passes_slopes_on(tmp_path):
    source = golden.FOLDER / "ckpt_asl_zip.pth"
    options = ["--argument", "stem_slope=1e-6", "--argument", "block_slope=1e-5"]
    assert main([str(source), str(tmp_path / "out"), *options]) == 0
    kwargs = load_model(tmp_path / "out").spec.backbone.kwargs
    assert (kwargs["stem_slope"], kwargs["block_slope"]) == (1e-6, 1e-5)
