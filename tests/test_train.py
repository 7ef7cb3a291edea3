"""The training loop: what it writes, that it resumes to the bit, and when it stops."""

import itertools
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import jax
import numpy as np
import pytest

from mljax.checkpoints.checkpoint import load_model, read_config
from mljax.checkpoints.manifest import sealed
from mljax.data.pipeline import train_batches
from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluators.multilabel import Multilabel
from mljax.models.arrays import split_model
from mljax.train import main
from mljax.training import metric_log as logs
from mljax.training.parts import resolve_parts
from mljax.training.schedules import one_cycle
from tests import photos, runs, small_configs

KILLED = """
import os, pathlib, signal, sys, time
from mljax import train
from mljax.training import metric_log as logs

write, workdir = logs.MetricLog.write, pathlib.Path(sys.argv[-1])

def write_and_die(self, step, scalars):
    write(self, step, scalars)
    while step == 25 and not (workdir / "checkpoints/20/manifest.json").exists():
        time.sleep(0.01)
    if step == 25:
        os.kill(os.getpid(), signal.SIGKILL)

logs.MetricLog.write = write_and_die
train.main(sys.argv[1:])
"""


def _assert_same_state(found, expected, step):
    found, expected = (
        runs.read_arrays(folder / "checkpoints" / str(step)) for folder in (found, expected)
    )
    assert found.keys() == expected.keys()
    different = [path for path in found if found[path].tobytes() != expected[path].tobytes()]
    assert different == []


def _at_step(step, act):
    """Returns a `MetricLog.write` that acts after it has logged a step."""
    write = logs.MetricLog.write

    def write_and_act(self, at, scalars):
        write(self, at, scalars)
        if at == step:
            act()

    return write_and_act


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Returns the workdir of 60 steps without a break, the figures and what was printed."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, *runs.train(small_configs.training_config(), workdir)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Returns the workdir of the same run, killed twice, and the exit codes of its three parts."""
    folder = tmp_path_factory.mktemp("interrupted")
    workdir, arguments = folder / "run", _arguments(folder, [])
    process = runs.start("-c", KILLED, *arguments)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, shown
    codes = [process.returncode]
    with pytest.MonkeyPatch.context() as patch:
        terminate = _at_step(47, lambda: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(logs.MetricLog, "write", terminate)
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        codes.append(stopped.value.code)
        assert sealed(workdir / "checkpoints")[-1].name == "47"
    codes.append(main(arguments))
    return workdir, codes


@pytest.mark.slow
def test_training_on_few_images_learns_them(tmp_path):
    few = ("data.reader.kwargs.num_images=8", "data.augment=()", "train.epochs=60")
    runs.train(small_configs.training_config(*few, "eval.every_epochs=60"), tmp_path)
    losses = [row["train/loss"] for row in runs.read_log(tmp_path) if "train/loss" in row]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.slow
def test_log_has_each_step_and_each_evaluation_once(straight):
    rows = runs.read_log(straight[0])
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == list(range(1, 61))
    assert [row["step"] for row in rows if "eval/mAP_ema" in row] == [20, 40, 60]
    assert set(rows[0]) == {
        "step",
        "train/loss",
        "train/loss/asymmetric_loss",
        "train/gradient_norm",
        "train/learning_rate",
        "train/beta1",
    }
    for name, values in one_cycle(1e-2, 60, 10).items():
        found = [row[f"train/{name}"] for row in rows if "train/loss" in row]
        assert found == [values(step) for step in range(60)]


@pytest.mark.slow
def test_tensorboard_shows_what_the_log_has(straight):
    shown = runs.read_tensorboard(straight[0] / "tensorboard")
    del shown["train/images_per_second"]
    rows = runs.read_log(straight[0])
    expected = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                expected.setdefault(name, {})[row["step"]] = np.float32(value)
    assert shown == expected


@pytest.mark.parametrize(("name", "message"), [("a[1]", "with `\\[` in it"), ("file", "is a file")])
def test_a_workdir_that_cannot_be_one_is_refused_first(monkeypatch, tmp_path, name, message):
    (tmp_path / "file").touch()
    monkeypatch.setattr("mljax.train.prepare", None)
    with pytest.raises(ValueError, match=message):
        runs.train(small_configs.training_config(), tmp_path / name)


@pytest.mark.slow
def test_start_and_end_are_summarized(straight):
    _, figures, shown = straight
    for text in (
        "digits: 80 images to train, 80 to evaluate, 10 classes",
        "8 x 32 x 32 x 3, float32",
        "backbone.stem 3,472",
        "asymmetric_loss (sum)",
        "60 (6 epochs of 10)",
        "epoch 2, step 20: mAP plain",
        f"mAP {figures['mAP']:.2f}",
        "seven",
        "best mAP",
    ):
        assert text in shown


@pytest.mark.slow
def test_config_is_stored_with_the_run(straight):
    workdir = straight[0]
    assert read_config(workdir) == small_configs.training_config()
    files = [workdir / "config.json", workdir / "checkpoints/60/config.json"]
    assert files[0].read_text() == files[1].read_text()


@pytest.mark.slow
def test_best_network_is_the_better_of_plain_and_averaged_weights(straight):
    workdir = straight[0]
    rows = [row for row in runs.read_log(workdir) if "eval/mAP_ema" in row]
    scores = {(row["step"], k): row[f"eval/mAP_{k}"] for row in rows for k in ("plain", "ema")}
    step, weights = max(scores, key=lambda key: scores[key])
    progress = json.loads((workdir / "checkpoints/60/progress/metadata").read_text())
    assert progress["best"] == {"figure": scores[step, weights], "step": step, "weights": weights}
    assert [p.name for p in (workdir / "best").iterdir()] == [str(step)]
    arrays = runs.read_arrays(workdir / "checkpoints" / str(step))
    prefix = "model['params']" if weights == "plain" else "training"
    for path, array in split_model(load_model(workdir))[1].items():
        name = f"{prefix}['{path}']" if weights == "plain" else f"{prefix}['ema_params.{path}']"
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.slow
def test_best_network_has_the_score_that_is_written_on_it(straight):
    workdir = straight[0]
    model = load_model(workdir)
    records = digits("val", num_images=80)
    found, _ = evaluate_model(model, records, evaluators=[Multilabel()], batch_size=8)
    card = next((workdir / "best").iterdir()) / "README.md"
    assert f"mAP {found['mAP']:.2f} on digits, split val" in card.read_text()
    assert model.class_names == CLASS_NAMES


@pytest.mark.slow
def test_killed_and_terminated_runs_end_with_their_exit_codes(interrupted):
    assert interrupted[1] == [-signal.SIGKILL, 143, 0]


@pytest.mark.slow
def test_three_runs_with_kills_between_equal_one_bit_for_bit(straight, interrupted):
    _assert_same_state(interrupted[0], straight[0], 60)
    _assert_same_state(interrupted[0], straight[0], 40)


@pytest.mark.slow
def test_progress_and_best_network_survive_kills(straight, interrupted):
    files = ["checkpoints/60/progress/metadata"]
    best = [p.name for p in (straight[0] / "best").iterdir()]
    assert [p.name for p in (interrupted[0] / "best").iterdir()] == best
    for file in (*files, f"best/{best[0]}/README.md"):
        assert (interrupted[0] / file).read_text() == (straight[0] / file).read_text()


@pytest.mark.slow
def test_log_of_killed_runs_is_that_of_one(straight, interrupted):
    assert runs.read_log(interrupted[0]) == runs.read_log(straight[0])


@pytest.mark.slow
def test_tensorboard_files_of_killed_runs_can_be_read(interrupted):
    shown = runs.read_tensorboard(interrupted[0] / "tensorboard")
    assert set(range(48, 61)) <= shown["train/loss"].keys() <= set(range(1, 61))


def test_batches_after_a_resume_are_the_next_ones():
    data = small_configs.training_config().data
    options = {
        "preprocessing": data.preprocessing,
        "augment": resolve_parts(small_configs.training_config()).augment,
        "batch_size": 8,
        "seed": 0,
    }
    records = digits("train", num_images=80)
    with (
        train_batches(records, **options) as straight,
        train_batches(records, start_step=17, **options) as resumed,
    ):
        for expected, batch in zip(itertools.islice(straight, 17, 20), resumed, strict=False):
            jax.tree.map(np.testing.assert_array_equal, batch, expected)


# 21 steps of a small network whose state is split, on photos of which one is bad.
OF_PROCESSES = [
    "model.backbone.kwargs.layers=(1, 0, 0, 0)",
    "train.epochs=7",
    "schedule.kwargs.epochs=20",
    "train.checkpoint_every_steps=10",
    "train.fsdp=True",
    "eval.every_epochs=7",
    "data.bad_images=skip",
]

TERMINATED = """
import os, signal, sys, time
from mljax import train
from mljax.training import metric_log as logs

write = logs.MetricLog.write

def write_and_ask(self, step, scalars):
    write(self, step, scalars)
    if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    if step >= 3:
        time.sleep(0.5)  # The notice takes a second or two to reach the other process.

if "--terminate" in sys.argv:
    sys.argv.remove("--terminate")
    logs.MetricLog.write = write_and_ask
sys.exit(train.main(sys.argv[1:]))
"""


def _by_address(process):
    """Returns the options of one of two processes."""
    return ["--num-processes", "2", "--process-id", process], {}


def _by_slurm(process):
    """Returns its option and environment where SLURM starts it."""
    slurm = {
        "SLURM_JOB_ID": "1",  # Gives the port, which --coordinator names here.
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
        "SLURM_STEP_NUM_NODES": "1",
    }
    return ["--distributed"], slurm


def _together(*arguments, cluster=_by_address):
    """Runs two processes of one training; returns their exit codes and what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = []
    for process in range(2):
        options, environment = cluster(process)
        options = ["--coordinator", address, *options]
        pair.append(runs.start("-c", TERMINATED, *arguments, *options, **environment))
    shown = [process.communicate(timeout=300)[0] for process in pair]
    return [process.returncode for process in pair], shown


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """Returns the changes of the config that several processes train."""
    return [*OF_PROCESSES, photos.save_photos(tmp_path_factory.mktemp("photos"))]


def _arguments(folder, changes):
    config = small_configs.write_training_config(folder)
    options = [option for change in changes for option in ("--set", change)]
    return ["--config", config, "--workdir", str(folder / "run"), *options]


@pytest.fixture(scope="module")
def together(tmp_path_factory, changes):
    """Returns the workdir of two processes, what happened when one of them was terminated, which
    checkpoints there were then, and what happened when both went on.
    """
    folder = tmp_path_factory.mktemp("together")
    arguments = _arguments(folder, changes)
    first = _together("--terminate", *arguments)
    saved = [int(path.name) for path in sealed(folder / "run/checkpoints")]
    return folder / "run", first, saved, _together(*arguments, cluster=_by_slurm)


@pytest.mark.slow
def test_processes_stop_at_the_same_step_when_one_is_terminated(together):
    _, (codes, shown), saved, _ = together
    assert codes == [143, 143], shown
    assert len(saved) == 1
    assert saved[0] < 20


@pytest.mark.slow
def test_processes_resume_and_finish(together):
    workdir, _, saved, (codes, shown) = together
    assert codes == [0, 0], shown
    assert f"after step {saved[0]}" in shown[0]
    assert "2 processes" in shown[0]
    steps = [row["step"] for row in runs.read_log(workdir) if "train/loss" in row]
    assert steps == list(range(1, 22))


@pytest.mark.slow
def test_only_the_first_process_prints_and_writes(together):
    workdir, _, _, (_, shown) = together
    assert "mAP" not in shown[1]
    assert len(list((workdir / "best").iterdir())) == 1
    assert len(list((workdir / "tensorboard").iterdir())) == 2  # One for each of the two runs.


@pytest.mark.slow
def test_two_processes_train_what_two_devices_of_one_train_to_the_bit(together, changes, tmp_path):
    process = runs.start(
        *("-m", "mljax.train", *_arguments(tmp_path, changes)),
        flags="--xla_force_host_platform_device_count=2",
    )
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    _assert_same_state(together[0], tmp_path / "run", 21)
    assert runs.read_log(together[0]) == runs.read_log(tmp_path / "run")


@pytest.mark.slow
def test_a_bad_image_is_counted_whichever_process_met_it(together):
    progress = json.loads((together[0] / "checkpoints/21/progress/metadata").read_text())
    assert [Path(name).name for name in progress["bad_images"]] == ["bad.png"]
    assert "1 training image could not be read" in together[3][1][0]


@pytest.mark.slow
def test_one_process_takes_over_what_two_have_trained(together, changes, tmp_path):
    workdir = shutil.copytree(together[0], tmp_path / "run")
    before = (workdir / "metrics.jsonl").read_text()
    figures, shown = runs.train(small_configs.training_config(*changes), workdir)
    assert "after step 21" in shown
    logged = [row for row in runs.read_log(workdir) if "eval/mAP_ema" in row][-1]
    best = max(logged["eval/mAP_plain"], logged["eval/mAP_ema"])
    # The order of two images may change with the last bit of a score.
    assert figures["mAP"] == pytest.approx(best, abs=0.5)
    assert (workdir / "metrics.jsonl").read_text() == before
