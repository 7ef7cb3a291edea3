"""What a training run consists of, built from its recipe and checked before the first step."""

import functools
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from mljax.checkpoints.checkpoint import load_model
from mljax.config.schema import Config, LossConfig, to_json
from mljax.data import READERS
from mljax.data.pipeline import Batches, eval_batches, train_batches
from mljax.data.records import Records
from mljax.devices.mesh import batch_sharding, make_mesh, replicated, state_sharding
from mljax.losses.prior import read_prior
from mljax.models.classifier import (
    WORD_VECTORS,
    Arrays,
    Classifier,
    create_model,
    merge_model,
    split_model,
    with_classes,
)
from mljax.training.check import augmentations, check
from mljax.training.optimizer import make_optimizer
from mljax.training.step import TrainState, make_forward, make_state, make_train_step


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything but the loop.

    Attributes:
      config: the recipe.
      train: the training split.
      evaluation: the split that is evaluated.
      model: structure, class names, preprocessing; its arrays belong to `state`.
      mesh: the devices.
      state: before the first step.
      step: jitted `step(state, batch, key)`; it donates the state.
      forward: `forward(params, stats, images)`.
      steps_per_epoch: images // batch_size, at least 1.
      total_steps: optimizer steps of the whole run.
      initialized: what became of `model.init_from`, for people.
    """

    config: Config
    train: Records
    evaluation: Records
    model: Classifier
    mesh: Mesh
    state: TrainState
    step: Any
    forward: Any
    steps_per_epoch: int
    total_steps: int
    initialized: str

    def train_batches(self, start_step: int) -> Batches:
        """Returns this process's training batches from `start_step` on."""
        return train_batches(
            self.train,
            augment=augmentations(self.config),
            batch_size=self.config.data.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            **self._common(),
        )

    def eval_batches(self) -> Batches:
        """Returns this process's batches of the evaluated split."""
        return eval_batches(
            self.evaluation, batch_size=self.config.data.eval_batch_size, **self._common()
        )

    def network(self, params: Arrays, stats: Arrays) -> Classifier:
        """Returns the network with these arrays, for the classes that are evaluated."""
        model = merge_model(nnx.graphdef(self.model), params, stats)
        model.class_names, model.preprocessing = self.model.class_names, self.model.preprocessing
        if self.evaluation.word_vectors is None:
            return model
        return with_classes(model, self.evaluation.class_names, self.evaluation.word_vectors)

    def _common(self) -> dict[str, Any]:
        data = self.config.data
        return {
            "preprocessing": data.preprocessing,
            "num_workers": data.num_workers,
            "bad_images": data.bad_images,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }


def make_run(config: Config, devices: list[jax.Device] | None = None) -> Run:
    """Returns the run of a recipe, on all devices of all processes or on `devices`.

    Raises:
      ValueError: for whatever does not fit in the recipe, the data or the devices.
      FileNotFoundError: for data, a checkpoint or a class prior that is not there.
    """
    mesh = make_mesh(devices)
    check(config, mesh.size)
    reader = functools.partial(READERS[config.data.reader.name], **config.data.reader.kwargs)
    train, evaluation = reader(config.data.train_split), reader(config.data.eval_split)
    if train.word_vectors is None and train.class_names != evaluation.class_names:
        raise ValueError(
            f"the splits {config.data.train_split} and {config.data.eval_split} have different "
            f"classes: {train.class_names[:5]}... and {evaluation.class_names[:5]}..."
        )
    steps_per_epoch = max(len(train) // config.data.batch_size, 1)
    cycle = config.schedule.epochs or config.train.epochs
    optimizer = make_optimizer(
        config.optimizer, config.schedule, max(round(cycle * steps_per_epoch), 1)
    )
    model, initialized = make_model(config, train.class_names)
    if train.word_vectors is not None:
        model = with_classes(model, train.class_names, train.word_vectors)
    state = make_state(
        model,
        optimizer,
        ema_decay=config.train.ema_decay,
        estimate_prior=config.train.estimate_prior,
    )
    shardings = state_sharding(mesh, state, fsdp=config.train.fsdp)
    step = jax.jit(
        make_train_step(model, optimizer, _with_priors(config, train.class_names)),
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )
    return Run(
        config=config,
        train=train,
        evaluation=evaluation,
        model=model,
        mesh=mesh,
        state=jax.device_put(state, shardings),
        step=step,
        forward=_make_forward(model, mesh, evaluation),
        steps_per_epoch=steps_per_epoch,
        total_steps=max(round(config.train.epochs * steps_per_epoch), 1),
        initialized=initialized,
    )


def _with_priors(config: Config, class_names: tuple[str, ...]) -> Config:
    """Returns the recipe with the numbers of its prior files, in the order of the classes."""

    def read(loss: LossConfig) -> LossConfig:
        path = loss.kwargs.get("prior")
        # The other modes read no prior, and may run before there is one.
        if not isinstance(path, str) or loss.kwargs.get("mode") != "selective":
            return loss
        return replace(loss, kwargs=loss.kwargs | {"prior": read_prior(path, class_names)})

    return replace(config, losses=tuple(map(read, config.losses)))


def _make_forward(model: Classifier, mesh: Mesh, evaluation: Records) -> Any:  # noqa: ANN401
    forward = make_forward(model, mesh)
    if evaluation.word_vectors is None:
        return forward
    words = jax.device_put({WORD_VECTORS: evaluation.word_vectors}, replicated(mesh))
    return lambda params, stats, images: forward(params, stats | words, images)


def describe(run: Run) -> dict[str, str]:
    """Returns {what: text} of all that a reader asks before a run starts."""
    data, train = run.config.data, run.config.train
    groups: dict[str, int] = {}
    for path, array in run.state.params.items():
        parts = path.split(".")
        name = ".".join(parts[: 3 if parts[1] == "stages" else 2])
        groups[name] = groups.get(name, 0) + array.size
    parameters = parameter_overview.count_parameters(run.state.params)
    others = len(run.evaluation.class_names)
    zero_shot = "" if run.evaluation.word_vectors is None else f", {others} others to evaluate"
    kinds = {device.device_kind for device in run.mesh.devices.flat}
    return {
        "data": f"{data.reader.name}: {len(run.train)} images to train, {len(run.evaluation)} to "
        f"evaluate, {len(run.train.class_names)} classes{zero_shot}",
        "input": f"{data.batch_size} x {data.preprocessing.image_size} x "
        f"{data.preprocessing.image_size} x 3, {run.config.model.dtype}",
        "network": f"{run.config.model.backbone.name} + {run.config.model.head.name}, "
        f"{parameters:,} parameters",
        "": "\n".join(f"{name} {count:,}" for name, count in groups.items()),
        "weights": run.initialized,
        "losses": ", ".join(f"{x.name} ({x.reduction})" for x in run.config.losses),
        "steps": f"{run.total_steps} ({train.epochs:g} epochs of {run.steps_per_epoch})",
        "devices": f"{run.mesh.size} x {', '.join(kinds)}, {jax.process_count()} processes",
    }


def make_model(config: Config, class_names: tuple[str, ...]) -> tuple[Classifier, str]:
    """Returns the network of a recipe, and what became of `init_from`."""
    spec = config.model
    model = create_model(
        spec.backbone.name,
        spec.head.name,
        num_classes=len(class_names),
        backbone_kwargs=spec.backbone.kwargs,
        head_kwargs=spec.head.kwargs,
        dtype=None if spec.dtype == "float32" else spec.dtype,
        rngs=nnx.Rngs(config.seed),
    )
    initialized = "fresh"
    if spec.init_from is not None:
        model, initialized = initialize_from(model, spec.init_from)
    model.class_names = class_names
    model.preprocessing = config.data.preprocessing
    return model, initialized


def initialize_from(model: Classifier, path: str) -> tuple[Classifier, str]:
    """Returns `model` with the backbone of a checkpoint, and its head too where that fits whole.

    Raises:
      ValueError: for a checkpoint whose backbone is not the model's; all differences are listed.
    """
    graph, params, stats = split_model(model)
    _, *source = split_model(load_model(path))
    given: dict[str, Array] = source[0] | source[1]
    wanted = params | stats

    def differences(prefix: str) -> list[str]:
        paths = sorted(p for p in wanted.keys() | given.keys() if p.startswith(prefix))
        shape = {p: [getattr(a.get(p), "shape", "nothing") for a in (wanted, given)] for p in paths}
        return [f"{p}: expected {a}, got {b}" for p, (a, b) in shape.items() if a != b]

    if problems := differences("backbone."):
        listed = "\n  ".join(problems[:20])
        raise ValueError(
            f"model.init_from {path}: its backbone is not this {model.spec.backbone.name} "
            f"({len(problems)} differences)\n  {listed}"
        )
    prefixes = ("backbone.",) if differences("head.") else ("backbone.", "head.")
    params = {p: given[p] if p.startswith(prefixes) else a for p, a in params.items()}
    stats = {p: given[p] if p.startswith(prefixes) else a for p, a in stats.items()}
    what = "backbone; the head is fresh" if len(prefixes) == 1 else "backbone and head"
    return merge_model(graph, params, stats), f"{what}, from {path}"


def write_recipe(workdir: Path, config: Config, *, resumed: bool) -> None:
    """Writes `recipe.json`; warns if a resumed run had another one."""
    file, text = workdir / "recipe.json", to_json(config) + "\n"
    if resumed and file.is_file() and (changed := changed_fields(file.read_text(), text)):
        warnings.warn(
            f"the run in {workdir} goes on with a changed recipe: {', '.join(changed)}",
            stacklevel=3,
        )
    file.write_text(text)


def changed_fields(old: str, new: str) -> list[str]:
    """Returns the dotted paths in which two recipes, as JSON, differ."""

    def flatten(node: Any, path: str) -> dict[str, Any]:  # noqa: ANN401
        items = enumerate(node) if isinstance(node, list) else getattr(node, "items", list)()
        flat = {}
        for key, value in items:
            flat |= flatten(value, f"{path}.{key}".lstrip("."))
        return flat or {path: node}

    a, b = flatten(json.loads(old), ""), flatten(json.loads(new), "")
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
