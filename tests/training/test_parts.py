"""The checks of a config before anything is read or compiled, and the sizes of a run."""

import dataclasses
import functools

import numpy as np
import pytest

from mljax import train
from mljax.config import LossConfig, override, part
from mljax.data.records import Records
from mljax.training.parts import check_batch_sizes, in_training_order, resolve_parts
from mljax.training.preparation import prepare
from mljax.training.schedules import one_cycle
from tests import small_configs


def test_the_small_config_passes_all_checks():
    config = small_configs.training_config()
    parts = resolve_parts(config)
    check_batch_sizes(config, 8)
    assert len(parts.reader("train")) == 80
    assert [chosen.func for chosen in parts.augment]
    assert (parts.wrappers, parts.trackers, parts.stop) == ([], {}, None)


def test_every_part_of_the_loop_is_resolved():
    config = small_configs.training_config(
        "train.gradients=[{'name': 'micro_batches', 'kwargs': {'count': 2}}]",
        "train.trackers=[{'name': 'class_prior', 'kwargs': {}}]",
        "train.stop={'name': 'no_improvement', 'kwargs': {'patience': 3}}",
        "schedule={'name': 'reduce_on_plateau', 'kwargs': {'patience': 3}}",
        "eval.evaluators=[{'name': 'multilabel', 'kwargs': {'top_k': 2}}]",
    )
    parts = resolve_parts(config)
    assert len(parts.wrappers) == 1
    assert list(parts.trackers) == ["class_prior"]
    assert parts.stop.state == {"best": None, "since": 0}
    assert parts.schedule(0.5, 60, 10)["learning_rate"](7) == 0.5
    (make,) = parts.evaluators
    assert make() is not make()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.reader.name=didgits", "unknown reader 'didgits'; did you mean digits"),
        ("data.reader.kwargs.images=5", "reader digits takes no argument 'images'"),
        ("data.reader={'name': 'csv'}", "reader csv needs the argument root"),
        ("data.augment.0.name=cutuot", "unknown augmentation 'cutuot'; did you mean cutout"),
        ("data.augment.0.kwargs.size=2", "augmentation cutout takes no argument 'size'"),
        ("data.augment.0.name=random_affine", "augmentation random_affine needs the argument deg"),
        ("model.backbone.name=tresnet_n", "unknown backbone 'tresnet_n'; did you mean tresnet_"),
        ("model.backbone.kwargs.depth=2", "backbone tresnet_m takes no argument 'depth'"),
        ("model.backbone.kwargs.dtype=float32", "backbone tresnet_m takes no argument 'dtype'"),
        ("model.head.name=lineal", "unknown head 'lineal'; did you mean linear"),
        ("model.head.kwargs.bias=0", "head linear takes no argument 'bias'"),
        ("losses.0.name=asymetric_loss", "unknown loss .* did you mean asymmetric_loss"),
        ("losses.0.kwargs.gamma=1", "loss asymmetric_loss takes no argument 'gamma'"),
        ("losses.0.kwargs.logits=1", "loss asymmetric_loss takes no argument 'logits'"),
        ("losses=()", "losses: expected at least one, each once"),
        ("data.batch_size=12", "data.batch_size must be a multiple of 8 .*devices.*got 12"),
        ("data.eval_batch_size=4", "data.eval_batch_size must be a multiple of 8"),
        ("train.batch_norm_groups=3", "multiple of 3 .*batch_norm_groups.*, got 8"),
        ("data.batch_size=0", "batch_size must be positive and finite, got 0"),
        ("train.gradients=[{'name': 'microbatches'}]", "did you mean micro_batches"),
        ("train.gradients=[{'name': 'micro_batches'}]", "micro_batches needs the argument count"),
        ("train.trackers=[{'name': 'prior'}]", "unknown tracker 'prior'; .*class_prior"),
        ("train.stop={'name': 'no_improvement'}", "no_improvement needs the argument patience"),
        ("train.epochs=-1", "epochs must be positive and finite, got -1.0"),
        ("train.checkpoint_every_steps=0", "checkpoint_every_steps must be positive .*, got 0"),
        ("optimizer.peak_lr=1e999", "optimizer.peak_lr.* inf|peak_lr must be positive .*got inf"),
        ("optimizer.algorithm.name=adam", "unknown algorithm 'adam'; known: torch_adam"),
        ("optimizer.algorithm.name=torch_sgd", "schedule moves beta1, .*cycle_beta1=False"),
        ("optimizer.clip_norm=0", "clip_norm must be positive and finite, got 0"),
        ("schedule.kwargs.epochs=0", "one_cycle: epochs must be positive and finite, got 0"),
        ("schedule.kwargs.warmup_fraction=1.5", "warmup_fraction must be from 0 to 1, got 1.5"),
        ("schedule.name=onecycle", "unknown schedule 'onecycle'; did you mean one_cycle"),
        ("train.ema_decay=1", "ema_decay must be at least 0 and less than 1, got 1.0"),
        ("data.num_workers=-1", "num_workers must be 0 or more, and finite, got -1"),
        ("data.preprocessing.std=(1,0,1)", "std must be positive .*, got .1.0, 0.0, 1.0."),
        ("eval.threshold=80", "threshold must be from 0 to 1, got 80.0"),
        ("eval.evaluators=[{'name': 'mAP'}]", "unknown evaluator 'mAP'; known: .*multilabel"),
    ],
)
def test_a_config_that_cannot_run_is_refused(assignment, message):
    with pytest.raises(ValueError, match=message):
        config = small_configs.training_config(assignment)
        resolve_parts(config)
        check_batch_sizes(config, 8)


def test_the_same_loss_twice_is_refused():
    loss = LossConfig(name="asymmetric_loss")
    with pytest.raises(ValueError, match="each once"):
        dataclasses.replace(small_configs.training_config(), losses=(loss, loss))


def read_nothing(split, *, num_images):
    raise AssertionError("data was read")


@pytest.mark.parametrize(
    "change", ["model.head.name=x", "losses.0.name=x", "data.augment.0.name=x"]
)
def test_a_config_is_checked_before_data_is_read(tmp_path, change):
    config = small_configs.training_config()
    data = dataclasses.replace(config.data, reader=part(read_nothing, num_images=8))
    config = dataclasses.replace(config, data=data)
    with pytest.raises(ValueError, match="unknown"):
        train.fit(override(config, [change]), tmp_path / "run")
    with pytest.raises(AssertionError, match="data was read"):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _records(*class_names, vectors=None):
    labels = np.zeros((8, len(class_names)), np.int8)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    return Records(images=images, labels=labels, class_names=class_names, class_vectors=vectors)


def test_splits_of_different_classes_are_refused():
    with pytest.raises(ValueError, match="different classes: the training split .* a; .* has b"):
        in_training_order(_records("a"), _records("b"))


def test_splits_of_different_classes_with_vectors_are_accepted():
    records = functools.partial(_records, vectors=np.zeros((1, 2), np.float32))
    assert in_training_order(records("a"), records("b")).class_names == ("b",)


def test_classes_in_another_order_are_put_in_that_of_the_training_split():
    evaluation = _records("b", "a")
    evaluation.labels[:, 0] = 1
    matched = in_training_order(_records("a", "b"), evaluation)
    assert (matched.class_names, matched.labels[0].tolist()) == (("a", "b"), [0, 1])


NO_BLOCKS = "model.backbone.kwargs.layers=(0, 0, 0, 0)"


@pytest.mark.parametrize(
    ("assignments", "per_epoch", "total"),
    [
        ((), 10, 60),
        (("data.reader.kwargs.num_images=87",), 10, 60),
        (("train.epochs=0.25",), 10, 2),
        (("data.reader.kwargs.num_images=5", "train.epochs=3"), 1, 3),
    ],
)
def test_steps_follow_from_images_and_epochs(assignments, per_epoch, total):
    training = prepare(small_configs.training_config(NO_BLOCKS, *assignments))
    assert (training.steps_per_epoch, training.total_steps) == (per_epoch, total)


@pytest.mark.parametrize(
    ("assignment", "steps"), [("seed=0", 60), ("schedule.kwargs.epochs=8", 80)]
)
def test_the_schedule_is_as_long_as_the_training_unless_it_is_said(assignment, steps):
    schedule = prepare(small_configs.training_config(NO_BLOCKS, assignment)).schedule
    expected = one_cycle(1e-2, steps, 10)
    for name, step in ((name, step) for name in expected for step in (0, 15, 59)):
        assert schedule[name](step) == expected[name](step)


def test_groups_without_parameters_are_refused_before_the_first_step():
    with pytest.raises(ValueError, match="optimizer.groups: pattern 'neck"):
        prepare(
            small_configs.training_config(NO_BLOCKS, "optimizer.groups=[{'pattern': 'neck.*'}]")
        )
