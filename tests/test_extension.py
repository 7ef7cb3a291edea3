"""A package outside the project brings parts of every kind and runs by the commands, unchanged."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import mljax
from mljax import evaluate, predict, train
from tests import photos, runs

ROOT = Path(__file__).parents[1]

PARTS = '''
"""Parts of every kind, in a package of somebody else."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from mljax.data.records import Records

CLASSES = ("red", "green")


def colors(split, *, count):
    rng = np.random.default_rng({"train": 0, "val": 1}[split])
    labels = rng.integers(0, 2, (count, 2)).astype(np.int8)
    images = rng.integers(0, 60, (count, 8, 8, 3)).astype(np.uint8)
    images[..., :2] += np.uint8(150) * labels[:, None, None, :].astype(np.uint8)
    return Records(images=images, labels=labels, class_names=CLASSES)


def brighten(image, rng, *, most):
    brighter = np.asarray(image) + rng.integers(0, most)
    return Image.fromarray(np.minimum(brighter, 255).astype(np.uint8))


class Patches(nnx.Module):
    def __init__(self, *, width=4, dtype=None, rngs):
        self.conv = nnx.Conv(3, width, (2, 2), strides=2, dtype=dtype, rngs=rngs)
        self.num_features = width

    def __call__(self, images):
        return jax.nn.relu(self.conv(images))


class Brightest(nnx.Module):
    def __init__(self, num_features, num_classes, *, scale=1.0, dtype=None, rngs):
        self.linear = nnx.Linear(num_features, num_classes, dtype=dtype, rngs=rngs)
        self.scale = scale

    def __call__(self, features, *, rngs=None):
        pooled = features.max((1, 2))
        return {"logits": self.scale * self.linear(pooled), "pooled": pooled}


def squared(logits, labels, pooled, *, pull=0.0):
    return (jax.nn.sigmoid(logits) - labels) ** 2 + pull * (pooled**2).mean(1, keepdims=True)


class Counted:
    def init(self, model):
        return {"images": jnp.zeros(())}

    def update(self, arrays, outputs, batch):
        return {"images": arrays["images"] + batch["valid"].sum()}

    def save(self, arrays, classes, workdir):
        (workdir / "counted.txt").write_text(f"{int(arrays['images'])} {' '.join(classes.names)}")


class Mistakes:
    reads = ("logits", "pooled")

    def __init__(self, *, at=0.5):
        self.at, self.wrong, self.total = at, 0, 0

    def update(self, outputs, batch):
        predicted = 1 / (1 + np.exp(-outputs["logits"])) > self.at
        self.wrong += int((predicted != (batch["labels"] > 0)).sum())
        self.total += predicted.size

    def result(self, classes):
        return {"accuracy": 100.0 * (1 - self.wrong / self.total)}

    def show(self, console):
        console.print(f"{self.wrong} mistakes")

    def pictures(self, folder):
        path = folder / "mistakes.txt"
        path.write_text(str(self.wrong))
        return [path]


class AfterEvaluations:
    def __init__(self, *, count):
        self.count, self.state = count, {"seen": 0}

    def update(self, figures):
        self.state = {"seen": self.state["seen"] + 1}
        return self.state["seen"] >= self.count
'''

CONFIG = """
import optax

import outside_parts as outside
from mljax import config as c


def get_config(epochs: int = 9) -> c.Config:
    return c.Config(
        data=c.DataConfig(
            reader=c.part(outside.colors, count=24),
            preprocessing=c.Preprocessing(image_size=8),
            augment=(c.part(outside.brighten, most=20),),
            batch_size=8,
            eval_batch_size=8,
        ),
        model=c.ModelConfig(
            backbone=c.part(outside.Patches, width=6), head=c.part(outside.Brightest, scale=2.0)
        ),
        losses=(c.loss(outside.squared, pull=0.01, reduction="mean"),),
        optimizer=c.OptimizerConfig(
            peak_lr=0.5, algorithm=c.part(optax.sgd, momentum=0.9, nesterov=True)
        ),
        schedule=c.part("constant"),
        train=c.TrainConfig(
            epochs=epochs,
            trackers=(c.part(outside.Counted),),
            stop=c.part(outside.AfterEvaluations, count=4),
        ),
        eval=c.EvalConfig(evaluators=(c.part(outside.Mistakes),), best_by="accuracy"),
    )
"""


def _run(folder, *arguments):
    """Runs a command of mljax in a new process whose working directory is `folder`."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with the package, a config, and a finished run of it."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_parts.py").write_text(PARTS)
    (folder / "mine.py").write_text(CONFIG)
    done = _run(folder, "mljax.train", "--config", "mine.py", "--workdir", "run")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_it_trains_until_its_stopping_rule_ends_the_run(folder):
    rows = runs.read_log(folder / "run")
    # 3 steps an epoch, of 9 epochs; the rule allows 4 evaluations.
    assert [row["step"] for row in rows if "eval/accuracy_plain" in row] == [3, 6, 9, 12]
    assert rows[-1]["eval/accuracy_plain"] > 75
    assert (folder / "run" / "counted.txt").read_text() == "96 red green"


@pytest.mark.slow
def test_it_resumes_bit_for_bit_and_stops_at_the_same_step(folder):
    again = folder / "again"
    shutil.copytree(folder / "run", again)
    shutil.rmtree(again / "checkpoints" / "12")
    # From its own config.json: nothing but --plugin names the package.
    arguments = ("--config", "run/config.json", "--workdir", "again", "--plugin", "outside_parts")
    done = _run(folder, "mljax.train", *arguments)
    assert done.returncode == 0, done.stderr
    straight, resumed = (
        runs.read_arrays(folder / name / "checkpoints" / "12") for name in ("run", "again")
    )
    assert straight.keys() == resumed.keys()
    for name, array in straight.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


@pytest.mark.slow
def test_it_evaluates_and_predicts_in_new_processes(folder):
    plugin = ("--plugin", "outside_parts")
    done = _run(folder, "mljax.evaluate", "--checkpoint", "run", "--pictures", "drawn", *plugin)
    assert done.returncode == 0, done.stderr
    assert "mistakes" in done.stdout
    assert (folder / "drawn" / "mistakes.txt").is_file()
    photo = photos.save_photo(folder / "photo.png")
    done = _run(folder, "mljax.predict", "--checkpoint", "run", photo, "--json", *plugin)
    assert done.returncode == 0, done.stderr
    assert str(photo) in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (train, ("--config", "run/config.json", "--workdir", "other")),
        (train, ("--config", "run/config.json", "--dry-run")),
        (evaluate, ("--checkpoint", "run")),
        (predict, ("--checkpoint", "run", "photo.png")),
    ],
)
def test_without_the_plugin_each_command_says_which_module_to_name(
    folder, monkeypatch, capsys, command, arguments
):
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "outside_parts", raising=False)
    assert command.main(arguments) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "--plugin outside_parts" in shown
    assert not (folder / "other").exists()


@pytest.mark.slow
def test_it_loads_in_python_with_its_plugin_alone(folder, monkeypatch):
    with pytest.raises(ValueError, match="outside_parts"):
        mljax.load_model(folder / "run")
    monkeypatch.syspath_prepend(str(folder))
    model = mljax.load_model(folder / "run", plugins=("outside_parts",))
    assert model.class_names == ("red", "green")
    assert model(jax.numpy.zeros((1, 8, 8, 3)))["logits"].shape == (1, 2)
