"""The names of the configs that ship, on the command line."""

import pytest

from mljax.config import list_configs, load_config
from mljax.config.shipped import FOLDER
from mljax.train import main
from tests import config_summaries


def test_a_name_stands_for_a_file():
    assert load_config("quickstart") == load_config(FOLDER / "quickstart.py")


@pytest.mark.parametrize("name", ["configs/kmcl/coco.py", "configs/kmcl/coco", "kmcl/coco.py"])
def test_a_name_may_look_like_a_path_of_a_clone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(f"{name}:size=l") == load_config("kmcl/coco:size=l")


def test_arguments_follow_a_colon():
    config = load_config("kmcl/coco:size=l,covariance=isotropic")
    assert config.model.backbone.name == "tresnet_l_v2"
    assert config.model.head.kwargs["covariance"] == "isotropic"
    assert load_config("kmcl/coco").model.backbone.name == "tresnet_m"


def test_an_argument_may_be_a_number():
    config = load_config("csl/coco:mode=negative,gamma_neg=0.5")
    assert config.losses[0].kwargs["gamma_neg"] == 0.5


@pytest.mark.parametrize(
    "source, known",
    [("quickstrat", "quickstart"), ("kmcl/cocoo:size=l", "kmcl/coco"), ("asl/vok.py", "asl/voc")],
)
def test_an_unknown_name_is_refused_with_a_close_one(source, known):
    with pytest.raises(FileNotFoundError, match=f"did you mean .*{known}") as error:
        load_config(source)
    assert source.partition(":")[0] in str(error.value)
    assert "--list-configs" in str(error.value)


@pytest.mark.parametrize(
    "source, facts",
    [
        ("kmcl/coco:sise=l", ["coco.py", "'sise'", "did you mean size"]),
        ("kmcl/coco:size=xl", ["coco.py", "'size'", "'m', 'l'", "'xl'"]),
        ("csl/coco:gamma_neg=much", ["coco.py", "'gamma_neg'", "a number or None", "'much'"]),
        ("quickstart:size=m", ["quickstart.py", "'size'", "known: none"]),
        ("kmcl/coco:l", ["--config kmcl/coco:l", "name=value", "'l'"]),
        ("kmcl/coco:", ["--config kmcl/coco:", "name=value"]),
    ],
)
def test_arguments_that_a_config_does_not_take_are_refused(source, facts):
    with pytest.raises(ValueError) as error:
        load_config(source)
    assert [fact for fact in facts if fact not in str(error.value)] == []


def test_every_file_is_listed_with_its_arguments_and_first_line():
    listed = {config.name: config for config in list_configs()}
    assert set(listed) == set(config_summaries.DATA_SETS)
    assert len(listed) == len(list(FOLDER.rglob("*.py")))
    assert listed["quickstart"].arguments == {}
    assert listed["csl/coco"].arguments == {
        "mode": "selective|negative|ignore",
        "hiding": "fix_per_class|random_per_sample",
        "gamma_neg": "None",
        "gamma_unannotated": "None",
    }
    assert listed["asl/nus_wide"].summary == (
        "TResNet-L with the asymmetric loss on NUS-WIDE at 448 pixels."
    )


def test_the_command_lists_the_configs_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--list-configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found[lines[start].strip()] = " ".join(map(str.strip, lines[start + 1 : end]))
    for config in list_configs():
        assert found[config.name].startswith(config.summary)
    assert "size=m|l" in found["kmcl/voc"]


def test_an_unknown_name_ends_the_command(capsys):
    assert main(["--config", "quickstrat", "--dry-run"]) == 1
    printed = "".join(capsys.readouterr())
    assert "quickstrat" in printed and "quickstart" in printed
