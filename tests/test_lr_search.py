"""The command that searches for a learning rate."""

import pytest

from mljax import lr_search
from tests import small_configs

SMALL = (
    "model.backbone.kwargs.layers=(0, 0, 0, 0)",
    "data.augment=()",
    "train.ema_decay=0",
    "train.stop={'name': 'no_improvement', 'kwargs': {'patience': 0}}",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        ("range", "--steps", "20"),
        ("trials", "--trials", "2", "--epochs", "1", "--step", "9.9e-4"),
    ],
)
def test_a_rate_is_suggested_and_its_curve_drawn(method, tmp_path, capsys):
    config, picture = small_configs.write_training_config(tmp_path), tmp_path / "new" / "curve.png"
    changes = [part for change in SMALL for part in ("--set", change)]
    code = lr_search.main(
        ["--config", config, *changes, "--method", *method, "--picture", str(picture)]
    )
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "suggestion: --set optimizer.peak_lr=" in shown.out
    rate = float(shown.out.partition("peak_lr=")[2].split()[0])
    assert 1e-5 <= rate <= 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_config_is_one_line(capsys):
    assert lr_search.main(["--config", "quick_start"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
