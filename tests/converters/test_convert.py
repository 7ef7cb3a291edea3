import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_torch
from converters.convert import main
from converters.verify import Verification
from mljax.checkpoints.checkpoint import load_model
from mljax.config.schema import Preprocessing
from mljax.models.classifier import Classifier
from tests import golden

SLOPES = {"mini_v2": {"stem_slope": 1e-6, "block_slope": 1e-6}}
ASL_ZIP = golden.FOLDER / "ckpt_asl_zip.pth"
ODD = Path(__file__).parents[1] / "data" / "odd" / "converters"
LEGACY = golden.FOLDER / "ckpt_in21k_legacy.pth"


def _logits(model, group, case):
    images = golden.fill_input(*golden.cases(group)[case]["inputs"]["x"]["fill"])
    return jax.jit(lambda x: model(x)["logits"])(images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("case", ["asl_zip", "in21k_legacy", "bare_bottleneck_head"])
def test_checkpoint_files_give_the_original_logits(case):
    row = golden.cases("ckpt")[case]
    model = from_torch(golden.FOLDER / row["extra"]["checkpoint"])
    expected = golden.arrays("ckpt", case)["logits"]
    np.testing.assert_allclose(_logits(model, "ckpt", case), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "case",
    [*golden.names("tresnet_eval", "mini"), pytest.param("asl_m_64", marks=pytest.mark.slow)],
)
def test_state_dicts_give_the_original_logits(case):
    model = from_torch(golden.state_dict("tresnet_eval", case), **SLOPES.get(case, {}))
    expected = golden.arrays("tresnet_eval", case)["logits"]
    np.testing.assert_allclose(_logits(model, "tresnet_eval", case), expected, atol=1e-4, rtol=0)


def test_the_network_is_in_eval_mode_and_knows_its_preprocessing():
    model = from_torch(golden.state_dict("tresnet_eval", "mini_64"))
    assert model.backbone.stem.norm.use_running_average
    assert model.preprocessing == Preprocessing(image_size=224)
    assert model.class_names is None


def test_slopes_come_from_the_caller():
    tensors = golden.state_dict("tresnet_eval", "mini_v2")
    default, published = from_torch(tensors), from_torch(tensors, **SLOPES["mini_v2"])
    assert default.backbone.stem.norm.slope == 1e-2
    assert published.backbone.stem.norm.slope == 1e-6
    assert published.backbone.stages[0][0].conv1.norm.slope == 1e-6
    assert published.spec.backbone.kwargs["block_slope"] == 1e-6


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("MS_COCO_TRresNet_L_448_86.6.pth", 448),
        ("tresnet_xl_COCO_640_91_4.pth", 640),
        ("tresnet_m_open_images_200_groups_86_8.pth", 224),
        ("stanford_cars_tresnet-l-v2_96_27.pth", 224),
        ("tresnet_m_miil_21k.pth", 224),
        ("model-12-640.ckpt", 224),
        ("ema-model-asl-COCO_tresnet_l_ID_640.ckpt", 224),
        ("ema-model-asl-COCO_tresnet_l_ID_64000_448.ckpt", 448),
        ("tresnet_l_320_ID_640.ckpt", 320),
    ],
)
def test_the_image_size_is_read_from_the_name_of_a_file(tmp_path, name, size):
    (tmp_path / name).write_bytes(ASL_ZIP.read_bytes())
    assert from_torch(tmp_path / name).preprocessing.image_size == size


def test_given_preprocessing_and_class_names_win(tmp_path):
    (tmp_path / "x_448.pth").write_bytes(ASL_ZIP.read_bytes())
    model = from_torch(
        tmp_path / "x_448.pth",
        class_names=["a", "b", "c", "d"],
        image_size=320,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    assert model.class_names == ("a", "b", "c", "d")
    assert model.preprocessing == Preprocessing(
        image_size=320, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )


def test_a_wrong_number_of_class_names_is_refused():
    with pytest.raises(ValueError, match="2 class names for 4 classes"):
        from_torch(ASL_ZIP, class_names=["a", "b"])


MIDS = ("/m/01", "/m/02", "/m/03", "/m/04")


def _descriptions(folder, last="/m/04"):
    path = folder / "oidv6-class-descriptions.csv"
    rows = ["LabelName,DisplayName", "/m/09,Fox", "/m/02,Crane", "/m/01,Tortoise", "/m/03,Crane"]
    path.write_text("\n".join([*rows, f'{last},"Cup, saucer"']) + "\n")
    return path


def test_class_descriptions_turn_mids_into_display_names(tmp_path):
    # A published OpenImages checkpoint names its classes by their MIDs.
    content = torch.load(ASL_ZIP) | {"idx_to_class": dict(enumerate(MIDS))}
    torch.save(content, tmp_path / "oi.pth")
    model = from_torch(tmp_path / "oi.pth", class_descriptions=_descriptions(tmp_path))
    assert model.class_names == ("Tortoise", "Crane (/m/02)", "Crane (/m/03)", "Cup, saucer")
    assert from_torch(tmp_path / "oi.pth").class_names == MIDS


def test_a_class_without_description_is_refused(tmp_path):
    path = _descriptions(tmp_path, last="/m/08")
    with pytest.raises(ValueError, match="1 of 4 class names are no MIDs in .* such as '/m/04'"):
        from_torch(ASL_ZIP, class_names=MIDS, class_descriptions=path)


def test_descriptions_of_no_names_are_refused(tmp_path):
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    with pytest.raises(ValueError, match="has no class names that .* could describe"):
        from_torch(tensors, class_descriptions=_descriptions(tmp_path))


def test_a_head_without_table_is_told_by_what_was_recognized(monkeypatch):
    monkeypatch.delitem(sys.modules["mljax.heads"].HEADS, "ml_decoder", raising=False)
    with pytest.raises(ValueError, match=r"ML-Decoder head \(3 groups.*unknown head 'ml_decoder'"):
        from_torch(golden.FOLDER / "ckpt_mldecoder.pth")


def test_exporting_a_network_without_table_names_what_has_none():
    class Unknown(nnx.Module):
        pass

    model = from_torch(ASL_ZIP)
    stranger = Classifier(model.backbone, Unknown(), model.spec)
    with pytest.raises(ValueError, match="no conversion table for .*Unknown"):
        to_torch(stranger)


def _said(capsys):
    """Returns what was printed, without line breaks."""
    captured = capsys.readouterr()
    return " ".join(captured.out.split()), " ".join(captured.err.split())


def test_the_command_writes_a_checkpoint_that_loads_and_reports_what_it_did(tmp_path, capsys):
    output = tmp_path / "out"
    assert main([str(LEGACY), str(output), "--image-size", "96"]) == 0
    out, _ = _said(capsys)
    assert "legacy torch file, {'state_dict'}" in out
    assert "linear head, 4 classes" in out
    assert "(a counter of batches, which nothing reads)" in out
    assert "give them by --class-names FILE" in out
    assert "96 x 96 px" in out
    assert "height and width to the side, bilinear" in out
    model = load_model(output)
    assert model.preprocessing == Preprocessing(image_size=96)
    expected = golden.arrays("ckpt", "in21k_legacy")["logits"]
    np.testing.assert_allclose(_logits(model, "ckpt", "in21k_legacy"), expected, atol=1e-6, rtol=0)
    exported, source = to_torch(model), from_torch(LEGACY)
    for name, array in to_torch(source).items():
        np.testing.assert_array_equal(exported[name], array)


def test_the_command_verifies_against_torch_and_writes_the_figure_on_the_card(tmp_path, capsys):
    output = tmp_path / "out"
    names = tmp_path / "names.txt"
    names.write_text("person\nbicycle\n\ncar\ndog\n")
    options = ["--verify", "--image-size", "32", "--class-names", str(names)]
    assert main([str(ASL_ZIP), str(output), *options]) == 0
    out, _ = _said(capsys)
    assert "largest difference of a logit from torch" in out
    assert "height and width to the side, bilinear" in out
    assert load_model(output).class_names == ("person", "bicycle", "car", "dog")
    card = (output / "README.md").read_text()
    assert "largest difference of a logit from torch" in card
    assert "ckpt_asl_zip.pth" in card


def test_the_command_says_that_it_assumed_the_image_size(tmp_path, capsys):
    path = tmp_path / "model-12-640.ckpt"
    path.write_bytes(ASL_ZIP.read_bytes())
    assert main([str(path), str(tmp_path / "out")]) == 0
    out, _ = _said(capsys)
    assert "assumed 224 pixels unless given or in the file's name" in out
    assert "224 x 224 px" in out


def test_the_command_takes_mids_and_their_descriptions(tmp_path):
    (tmp_path / "mids.txt").write_text("\n".join(MIDS))
    options = ["--class-names", str(tmp_path / "mids.txt")]
    options += ["--class-descriptions", str(_descriptions(tmp_path))]
    assert main([str(ASL_ZIP), str(tmp_path / "out"), *options]) == 0
    assert load_model(tmp_path / "out").class_names[3] == "Cup, saucer"


def test_the_command_says_where_it_cannot_verify(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("converters.convert.verify", lambda *args, **kwargs: None)
    assert main([str(ASL_ZIP), str(tmp_path / "out"), "--verify"]) == 3
    assert "not verified: there is no torch reference" in _said(capsys)[0]
    assert (tmp_path / "out" / "model.json").is_file()


def _ten_classes(tmp_path):
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    weight = tensors["head.fc.weight"]
    rows = {"head.fc.weight": np.resize(weight, (10, weight.shape[1]))}
    rows["head.fc.bias"] = np.zeros(10, np.float32)
    torch.save({k: torch.tensor(v) for k, v in (tensors | rows).items()}, tmp_path / "ten.pth")
    return str(tmp_path / "ten.pth")


def test_class_names_are_read_with_or_without_a_byte_order_mark(tmp_path):
    names = ODD / "names_bom.txt"
    assert main([_ten_classes(tmp_path), str(tmp_path / "o"), "--class-names", str(names)]) == 0
    assert load_model(tmp_path / "o").class_names == tuple("abcdefghij")


@pytest.mark.parametrize("option", ["--class-names", "--class-descriptions"])
def test_a_list_that_is_not_utf_8_is_named_with_its_line(tmp_path, capsys, option):
    options = ["--class-names", str(ODD / "names_bom.txt")] if "desc" in option else []
    options += [option, str(ODD / "names_latin.txt")]
    assert main([_ten_classes(tmp_path), str(tmp_path / "out"), *options]) == 1
    assert "names_latin.txt, line 1: byte 0xe9 is not UTF-8" in _said(capsys)[1]


def test_a_list_of_too_few_class_names_is_named():
    with pytest.raises(ValueError, match="names_bom.txt: 10 class names for 4 classes"):
        from_torch(ASL_ZIP, class_names=ODD / "names_bom.txt")


def test_an_unclear_order_of_class_names_is_an_error_unless_they_are_given(tmp_path):
    content = torch.load(ASL_ZIP) | {"idx_to_class": {0: "a", "0": "b", 1: "c", 2: "d"}}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="'a' and 'b' have the same index 0; give them"):
        from_torch(tmp_path / "x.pth")
    assert from_torch(tmp_path / "x.pth", class_names=list("abcd")).class_names[3] == "d"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a", "d"], "occur twice: a"),
        (["a", " ", "c", "d"], "class name 1 is blank"),
        (["a", None, "c", "d"], "class name 1 is None"),
        ({"0": "a", "1": "e\u0301", "2": "\u00e9", "3": "d"}, "occur twice: \u00e9"),
    ],
)
def test_names_that_name_no_class_are_an_error_unless_others_are_given(tmp_path, names, message):
    torch.save(torch.load(ASL_ZIP) | {"idx_to_class": names}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=f"{message}.*; give them by class_names"):
        from_torch(tmp_path / "x.pth")
    assert from_torch(tmp_path / "x.pth", class_names=list("abcd")).class_names[3] == "d"


def test_the_command_takes_a_prefix_and_tells_of_averaged_weights(tmp_path, capsys):
    tensors = {k: torch.tensor(v) for k, v in golden.state_dict("tresnet_eval", "mini_64").items()}
    copy = {f"ema.{name}": tensor for name, tensor in tensors.items()}
    plain = {f"model.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": plain | copy, "epoch": 1}, tmp_path / "x.ckpt")
    assert main([str(tmp_path / "x.ckpt"), str(tmp_path / "one")]) == 0
    assert "averaged weights under 'ema.' (--prefix ema.)" in _said(capsys)[0]
    assert main([str(tmp_path / "x.ckpt"), str(tmp_path / "two"), "--prefix", "ema"]) == 0
    assert "only names under `ema.`" in _said(capsys)[0]


@pytest.mark.parametrize("difference", [0.1, float("nan")])
def test_a_failed_verification_writes_nothing(tmp_path, capsys, monkeypatch, difference):
    result = Verification(difference=difference, largest=1.0, image_size=224)
    monkeypatch.setattr("converters.convert.verify", lambda *args, **kwargs: result)
    assert main([str(ASL_ZIP), str(tmp_path / "out"), "--verify"]) == 1
    assert "differs from torch" in _said(capsys)[1]
    assert not (tmp_path / "out").exists()


def _spoil(tmp_path, kind):
    path = tmp_path / "x.pth"
    content = torch.load(ASL_ZIP)
    if kind == "missing":
        del content["model"]["body.layer1.0.conv1.0.weight"]
    if kind == "extra":
        content["model"]["body.layer1.0.conv9.0.weight"] = torch.ones(1)
    if kind == "misshapen":
        content["model"]["head.fc.weight"] = torch.ones(4, 5)
    if kind == "nan":
        content["model"]["head.fc.bias"][0] = float("nan")
        content["model"]["head.fc.weight"][1, 2] = -float("inf")
    if kind == "names":
        content["idx_to_class"] = {0: "a"}
    torch.save(content, path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    if kind == "image":
        path.write_bytes(b"\xff\xd8\xff\xe0")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "missing: body.layer1.0.conv1.0.weight [3,3,3,3]"),
        ("extra", "extra: body.layer1.0.conv9.0.weight [1]"),
        ("misshapen", "misshapen: head.fc.weight is [4,5], expected [4,96]"),
        ("nan", "2 problems not finite: head.fc.weight holds nan or infinity not finite: head.fc."),
        ("names", "1 class names for 4 classes"),
        ("cut", "cut off or damaged"),
        ("image", "is no torch checkpoint but a JPEG image"),
    ],
)
def test_a_bad_source_is_one_clear_error_and_leaves_no_folder(tmp_path, capsys, kind, message):
    path = _spoil(tmp_path, kind)
    assert main([str(path), str(tmp_path / "out")]) == 1
    out, error = _said(capsys)
    assert error.startswith(f"error: {path}")
    assert message in error
    assert out == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pth"]


def test_an_absent_source_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path / "none.pth"), str(tmp_path / "out")]) == 1
    assert "none.pth: there is no such file" in _said(capsys)[1]


def test_an_existing_output_is_never_touched(tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    assert main([str(ASL_ZIP), str(output)]) == 1
    assert "exists already" in _said(capsys)[1]
    assert [entry.name for entry in output.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    "options",
    [
        ["--image-size", "0"],
        ["--std", "1", "0", "1"],
        ["--class-names", "none.txt"],
        ["--key", "ema"],
    ],
)
def test_a_bad_option_is_an_error_and_leaves_no_folder(tmp_path, capsys, options):
    assert main([str(ASL_ZIP), str(tmp_path / "out"), *options]) == 1
    assert _said(capsys)[1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_the_package_is_light_and_runs_as_a_command_without_warning():
    code = """
import runpy, sys, converters
assert not {"torch", "jax", "converters.convert"} & sys.modules.keys()
sys.argv[1:] = ["none.pth", "out"]
runpy.run_module("converters.convert", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: none.pth: there is no such file\n"
