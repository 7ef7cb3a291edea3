"""What a run is built of: the checks of a recipe, the sizes, and initial weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.checkpoints.checkpoint import save_model
from mljax.config.schema import LossConfig, override, part, to_json
from mljax.data.records import Records
from mljax.models.classifier import split_model
from mljax.training import run as run_module
from mljax.training.check import check
from mljax.training.run import changed_fields, initialize_from, make_run
from tests import miniature


def test_the_miniature_recipe_passes_all_checks():
    check(miniature.training_recipe(), 8)


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
        (
            "data.batch_size=12",
            "data.batch_size must be a positive multiple of 8 .*devices.*got 12",
        ),
        ("data.eval_batch_size=4", "data.eval_batch_size must be a positive multiple of 8"),
        ("train.accumulation=2", "data.batch_size must be a positive multiple of 16"),
        ("train.batch_norm_groups=3", "multiple of 3 .*batch_norm_groups.*, got 8"),
        ("data.batch_size=0", "data.batch_size must be positive and finite, got 0"),
        ("train.accumulation=0", "train.accumulation must be positive and finite, got 0"),
        ("train.epochs=-1", "train.epochs must be positive and finite, got -1.0"),
        ("train.checkpoint_every_steps=0", "checkpoint_every_steps must be positive .*, got 0"),
        ("optimizer.peak_lr=1e999", "optimizer.peak_lr must be positive and finite, got inf"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay must be 0 or more, and finite"),
        ("schedule.epochs=0", "schedule.epochs must be positive and finite, got 0"),
        ("schedule.warmup_fraction=1.5", "schedule.warmup_fraction must be from 0 to 1, got 1.5"),
        ("train.ema_decay=1", "train.ema_decay must be at least 0 and less than 1, got 1.0"),
        ("data.num_workers=-1", "data.num_workers must be 0 or more, got -1"),
        ("data.preprocessing.std=(1,0,1)", "data.preprocessing.std must be positive .*, got 0"),
        ("eval.threshold=80", "eval.threshold must be from 0 to 1, got 80.0"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(assignment, message):
    with pytest.raises(ValueError, match=message):
        check(miniature.training_recipe(assignment), 8)


def test_the_same_loss_twice_is_refused():
    loss = LossConfig(name="asymmetric_loss")
    config = dataclasses.replace(miniature.training_recipe(), losses=(loss, loss))
    with pytest.raises(ValueError, match="each once"):
        check(config, 1)


@pytest.mark.parametrize(
    "change", ["model.head.name=x", "losses.0.name=x", "data.augment.0.name=x"]
)
def test_a_recipe_is_checked_before_data_is_read(monkeypatch, change):
    def read(*_, **__):
        raise AssertionError("data was read")

    monkeypatch.setitem(run_module.READERS, "digits", lambda split, *, num_images: read())
    with pytest.raises(ValueError, match="unknown"):
        make_run(miniature.training_recipe(change))


def test_splits_of_different_classes_are_refused(monkeypatch):
    def reader(split):
        images = np.zeros((8, 32, 32, 3), np.uint8)
        return Records(images=images, labels=np.zeros((8, 1), np.int8), class_names=(split,))

    monkeypatch.setitem(run_module.READERS, "odd", reader)
    config = miniature.recipe(reader=part("odd"))
    with pytest.raises(
        ValueError, match=r"train and val have different .*\('train',\).*\('val',\)"
    ):
        make_run(config)


@pytest.mark.parametrize(
    ("assignments", "per_epoch", "total"),
    [
        ((), 10, 60),
        (("data.reader.kwargs.num_images=87",), 10, 60),
        (("train.epochs=0.25",), 10, 2),
        (("data.reader.kwargs.num_images=5", "train.epochs=3"), 1, 3),
    ],
)
def test_steps_follow_from_images_and_epochs(monkeypatch, assignments, per_epoch, total):
    _without_network(monkeypatch)
    run = make_run(miniature.training_recipe(*assignments))
    assert (run.steps_per_epoch, run.total_steps) == (per_epoch, total)


@pytest.mark.parametrize(("assignment", "steps"), [("seed=0", 60), ("schedule.epochs=80", 800)])
def test_the_schedule_is_as_long_as_the_training_unless_it_is_said(monkeypatch, assignment, steps):
    _without_network(monkeypatch)
    lengths = []
    make_optimizer = run_module.make_optimizer

    def note(optimizer, schedule, total_steps):
        lengths.append(total_steps)
        return make_optimizer(optimizer, schedule, total_steps)

    monkeypatch.setattr(run_module, "make_optimizer", note)
    make_run(miniature.training_recipe(assignment))
    assert lengths == [steps]


def _without_network(monkeypatch):
    """Takes a network that needs no compilation."""
    model = miniature.model(backbone=part("tresnet_m", layers=(0, 0, 0, 0), width=8))
    monkeypatch.setattr(run_module, "make_model", lambda *_: (model, "fresh"))


def test_the_run_knows_what_its_network_is_for(monkeypatch):
    run = make_run(
        override(miniature.training_recipe(), ["model.backbone.kwargs.layers=(0,0,0,0)"])
    )
    assert run.model.class_names == miniature.CLASS_NAMES
    assert run.model.preprocessing == miniature.PREPROCESSING
    assert run.initialized == "fresh"
    assert set(run.state.ema_params) == set(run.state.params)


def _small(value, *, num_classes=10, **kwargs):
    """Returns a network whose arrays are all of one value."""
    backbone = part("tresnet_m", layers=(0, 0, 0, 0), width=8, **kwargs)
    model = miniature.model(backbone=backbone, num_classes=num_classes)
    graph, params, stats = split_model(model)
    fill = jax.tree.map(lambda a: jnp.full_like(a, value), (params, stats))
    return run_module.merge_model(graph, *fill)


def _values(model):
    """Returns {"backbone": its values, "head": its values}."""
    _, params, stats = split_model(model)
    values = {"backbone": set(), "head": set()}
    for path, array in (params | stats).items():
        values[path.split(".")[0]] |= set(np.unique(array).tolist())
    return values


def test_initial_weights_come_from_a_checkpoint(tmp_path):
    path = str(save_model(tmp_path / "source", _small(7)))
    model, text = initialize_from(_small(1), path)
    assert _values(model) == {"backbone": {7}, "head": {7}}
    assert text == f"backbone and head, from {path}"


def test_a_head_for_other_classes_stays_fresh(tmp_path):
    path = str(save_model(tmp_path / "source", _small(7, num_classes=4)))
    model, text = initialize_from(_small(1), path)
    assert _values(model) == {"backbone": {7}, "head": {1}}
    assert text == f"backbone; the head is fresh, from {path}"


def test_initial_weights_of_another_backbone_are_refused(tmp_path):
    path = str(save_model(tmp_path / "source", miniature.model()))
    with pytest.raises(ValueError, match="its backbone is not this tresnet_m") as error:
        initialize_from(_small(1), path)
    assert f"model.init_from {path}" in str(error.value)
    assert "backbone.stages.0.0.conv1.conv.kernel: expected nothing, got (3, 3, 8, 8)" in str(
        error.value
    )


def test_missing_initial_weights_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        initialize_from(_small(1), str(tmp_path / "absent"))


def test_changed_fields_are_named_by_their_paths():
    old = miniature.training_recipe()
    new = override(
        old,
        [
            "seed=1",
            "losses.0.kwargs.clip=0.1",
            "data.augment=[{'name': 'cutout'}]",
            "model.init_from=x",
            "data.preprocessing.mean=(0,1,0)",
        ],
    )
    assert changed_fields(to_json(old), to_json(old)) == []
    assert changed_fields(to_json(old), to_json(new)) == [
        "data.augment.1.kwargs",
        "data.augment.1.name",
        "data.preprocessing.mean.1",
        "losses.0.kwargs",
        "losses.0.kwargs.clip",
        "model.init_from",
        "seed",
    ]
