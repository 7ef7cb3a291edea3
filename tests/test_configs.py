"""The configs that ship: what they say, whether their parts fit, and what comes out of them."""

import ast
import dataclasses
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from mljax.config import Config, from_json, list_configs, load_config, override, part, to_json
from mljax.config.part import resolved
from mljax.config.shipped import FOLDER
from mljax.data.pipeline import train_batches
from mljax.data.records import Classes
from mljax.layers.norm import BatchNorm
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import for_classes
from mljax.models.inference import outputs_read
from mljax.trackers.class_prior import write_prior
from mljax.train import dry_run
from mljax.training.gradients import make_gradients
from mljax.training.initialize import make_model
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.state import make_state
from mljax.training.step import make_train_step
from tests import config_summaries, layouts

NAMES = [config.name for config in list_configs()]
VARIANTS = [*config_summaries.variants(), *config_summaries.OTHERS]
SUMMARIES = json.loads(config_summaries.FILE.read_text())
# A stem without blocks: what configs differ in is everything else.
MINIATURE = ("model.backbone.kwargs.layers=(0,0,0,0)", "model.backbone.kwargs.width=8")
MINIATURE_EFFICIENT = tuple(
    f"model.backbone.kwargs.{assignment}"
    for assignment in (
        "layers=(0,0,0,0,0,0)",
        "widths=(8,8,8,8,8,8)",
        "stem_width=8",
        "num_features=8",
    )
)


class Patches(nnx.Module):
    """A backbone of one layer, for what heads, losses and the groups of batch norm make of any."""

    num_features = 32

    def __init__(self, *, dtype, rngs):
        self.conv = nnx.Conv(3, 32, (32, 32), strides=32, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(32)

    def __call__(self, images):
        return self.norm(self.conv(images))


SMALL_HEADS = {
    "ml_decoder": ("embedding_size=16", "feed_forward_size=16", "num_groups=2"),
    "query2label": ("embedding_size=16", "feed_forward_size=16"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_config_survives_json(name):
    config = load_config(name)
    assert from_json(Config, to_json(config)) == config


@pytest.mark.parametrize("name", NAMES)
def test_config_says_how_to_run_it_and_what_to_expect(name):
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert f"python -m mljax.train --config {name} --workdir " in text
    assert any(words in text for words in ("mAP", "top-1", "no published figure"))


@pytest.mark.parametrize("name", NAMES)
def test_config_says_what_its_arguments_are(name):
    get_config = runpy.run_path(str(FOLDER / f"{name}.py"))["get_config"]
    for argument in config_summaries.arguments(name):
        assert f"      {argument}: " in get_config.__doc__


# The networks of other sizes than the first: hundreds of layers.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if ":size=" in name else name
        for name in config_summaries.variants("size")
    ],
)
def test_config_has_its_summary(name):
    assert config_summaries.summarize(name) == SUMMARIES[name]


def test_summaries_are_of_the_configs_that_ship():
    assert list(SUMMARIES) == config_summaries.variants("size")


# The backbone is replaced.
@pytest.mark.parametrize("name", [name for name in VARIANTS if ":backbone=" not in name])
def test_training_and_evaluation_fit_the_network(name, tmp_path):
    """Traces a step and a forward pass; compiles and computes nothing."""
    config = load_config(name)
    frozen = tuple({path.partition(".")[0] for path in config.model.frozen})
    model_config = dataclasses.replace(config.model, backbone=part(Patches), frozen=frozen)
    config = dataclasses.replace(config, model=model_config)
    count = SUMMARIES[name.partition(":")[0]]["classes"]
    classes = _classes(config, count)
    config = _with_prior(config, tmp_path, classes.names)
    images = _array(config.data.batch_size, *[config.data.preprocessing.image_size] * 2, 3)

    model = _abstract(config, classes)
    metrics = _trace_step(config, model, classes.names, images)
    assert {f"loss/{loss.name}" for loss in config.losses} < set(metrics)
    assert all(value.shape == () for value in metrics.values())

    evaluated = for_classes(model, _classes(config, 81)) if classes.vectors is not None else model
    outputs = _trace_forward(evaluated, images)
    evaluators = [resolved(chosen, "evaluator")() for chosen in config.eval.evaluators]
    assert set(outputs_read(evaluators)) <= set(outputs)
    if "logits" in outputs:
        assert outputs["logits"].shape == (config.data.batch_size, evaluated.spec.num_classes)
        assert outputs["logits"].dtype == jnp.float32


def _classes(config, count):
    width = config.model.head.kwargs.get("word_vector_size")
    vectors = None if width is None else np.zeros((count, width), np.float32)
    names = tuple(f"c{i}" for i in range(count))
    return Classes(names=names, vectors=vectors)


def _abstract(config, classes):
    spec = config.model
    preprocessing = config.data.preprocessing
    return nnx.eval_shape(
        lambda: make_model(
            spec.backbone,
            spec.head,
            classes,
            dtype=spec.dtype,
            preprocessing=preprocessing,
            seed=config.seed,
        )[0]
    )


def _array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def _trace_step(config, model, class_names, images):
    """Returns the shapes of the metrics of a step."""
    train, rows = config.train, images.shape[0]
    schedule = resolved(config.schedule, "schedule")(config.optimizer.peak_lr, 10, 1)
    rates = {name: value(0) for name, value in schedule.items()}
    optimizer = make_optimizer(config.optimizer.algorithm)
    trackers = {chosen.name: resolved(chosen, "tracker")() for chosen in train.trackers}
    gradients = make_gradients(
        model,
        make_terms(config.losses, class_names),
        trackers=trackers,
        batch_norm_groups=train.batch_norm_groups,
    )
    step = make_train_step(gradients, optimizer, ema_decay=train.ema_decay)
    graph, params, statistics = split_model(model)

    def first_step(params, statistics, batch):
        network = merge_model(graph, params, statistics)
        state = make_state(network, optimizer, rates, ema_decay=train.ema_decay, trackers=trackers)
        return step(state, batch, jax.random.key(0), rates)[1]

    labels, valid = _array(rows, len(class_names)), _array(rows, dtype=bool)
    batch = {"images": images, "labels": labels, "valid": valid}
    return jax.eval_shape(first_step, params, statistics, batch)


def _trace_forward(model, images):
    graph, params, statistics = split_model(model)
    return jax.eval_shape(
        lambda params, statistics, images: merge_model(graph, params, statistics)(images),
        params,
        statistics,
        images,
    )


def _with_prior(config, folder, class_names):
    """Returns the config with a class prior that is there, if it reads one."""
    changes = []
    for number, loss in enumerate(config.losses):
        if "prior" in loss.kwargs:
            write_prior(folder / "prior.csv", class_names, np.full(len(class_names), 0.1))
            changes.append(f"losses.{number}.kwargs.prior.kwargs.path={folder / 'prior.csv'}")
    return override(config, changes)


@pytest.mark.parametrize("name", config_summaries.variants("size", "level", "hiding"))
def test_config_reads_and_augments_its_data(name, tmp_path):
    config = _on_made_up_data(load_config(name), tmp_path / "data")
    reader = resolved(config.data.reader, "reader")
    assert len(reader(config.data.eval_split)) > 1
    with train_batches(
        reader(config.data.train_split),
        augment=[resolved(chosen, "augmentation") for chosen in config.data.augment],
        preprocessing=config.data.preprocessing,
        batch_size=2,
        seed=0,
    ) as batches:
        batch = next(batches)
    size = config.data.preprocessing.image_size
    assert batch["images"].shape == (2, size, size, 3)
    assert batch["valid"].all()
    assert set(np.unique(batch["labels"])) <= {-1, 0, 1}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("aam/")])
def test_aam_augments_in_the_order_of_its_code(name):
    parts = [chosen.name for chosen in load_config(name).data.augment]
    assert parts == ["randaugment", "cutout", "horizontal_flip"]


def _on_made_up_data(config, root):
    """Returns the config with a small folder of the form that its reader reads, or 16 digits."""
    changes = []
    reader, prefix = config.data.reader, "data.reader.kwargs"
    if reader.name == "partial":
        # So many labels of each class; the made-up data have fewer than the configs ask for.
        changes += [f"{prefix}.amount=4"] * (reader.kwargs["amount"] > 1)
        reader, prefix = reader.kwargs["reader"], f"{prefix}.reader.kwargs"
    if reader.name == "digits":
        return override(config, [*changes, f"{prefix}.num_images=16"])
    years = {name: value for name, value in reader.kwargs.items() if name == "year"}
    layouts.WRITERS[reader.name](root, **years)
    changes.append(f"{prefix}.root={root}")
    if "image_ids" in reader.kwargs:
        ids = root / "ids.csv"
        ids.write_text("".join(f"{i:.18e}\n" for i in range(layouts.COUNT)))
        changes.append(f"{prefix}.image_ids.train={ids}")
    return override(config, changes)


def _kinds():
    """Returns one config of each head with its losses and trackers, frozen or not."""
    kinds = {}
    for name in VARIANTS:
        config = load_config(name)
        train, head = config.train, config.model.head
        losses = tuple(loss.name for loss in config.losses)
        key = (head.name, "word_vector_size" in head.kwargs, losses, train.trackers)
        key += (bool(config.model.frozen),)
        kinds.setdefault(key, name)
    return list(kinds.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", _kinds())
def test_config_runs_dry_in_miniature(name, tmp_path):
    config = _on_made_up_data(load_config(name), tmp_path / "data")
    head = SMALL_HEADS.get(config.model.head.name, ())
    # float32: a CPU only imitates bfloat16, which triples the compilation.
    efficient = config.model.backbone.name.startswith("efficientnet")
    changes = [
        *(MINIATURE_EFFICIENT if efficient else MINIATURE),
        *(f"model.head.kwargs.{assignment}" for assignment in head),
        "data.preprocessing.image_size=32",
        "data.batch_size=8",
        "data.eval_batch_size=8",
        "data.num_workers=0",
        "model.init_from=None",
        "model.dtype=float32",
        # The miniature has no blocks.
        f"model.frozen={tuple({path.partition('.')[0] for path in config.model.frozen})}",
    ]
    classes = resolved(config.data.reader, "reader")(config.data.train_split).class_names
    config = _with_prior(override(config, changes), tmp_path, classes)
    before = sorted(tmp_path.rglob("*"))
    with Console(record=True, width=120) as console:
        dry_run(config, console)
    text = console.export_text()
    views = "" if config.data.views == 1 else f"{config.data.views}, "
    assert f"(8, {views}32, 32, 3) uint8" in text
    assert "nothing was written" in text
    assert sorted(tmp_path.rglob("*")) == before
