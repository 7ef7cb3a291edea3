"""A network and a recipe small enough for the tests of commands."""

import dataclasses
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mljax.config.schema import (
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Preprocessing,
    TrainConfig,
    override,
    part,
)
from mljax.data.readers.digits import CLASS_NAMES
from mljax.models.classifier import ModelSpec, abstract_model, merge_model, split_model
from mljax.train import fit

BACKBONE = part("tresnet_m", layers=(1, 1, 1, 1), width=8)
PREPROCESSING = Preprocessing(image_size=32)


def model(
    *,
    backbone=BACKBONE,
    num_classes=10,
    class_names=CLASS_NAMES,
    preprocessing=PREPROCESSING,
):
    """Returns a TResNet of ten classes whose scores differ between images and classes.

    Its arrays are filled here, since initializing them would be compiled first.
    """
    spec = ModelSpec(backbone=backbone, head=part("linear"), num_classes=num_classes)
    graph, params, stats = split_model(abstract_model(spec))
    rng = np.random.default_rng(0)

    def fill(path, shape):
        if len(shape) > 1:
            gain = 10 if path.startswith("head") else 1
            return rng.normal(0, gain * np.sqrt(2 / np.prod(shape[:-1])), shape)
        return np.full(shape, path.endswith(("scale", "var")))

    arrays = [
        {path: jnp.asarray(fill(path, x.shape), jnp.float32) for path, x in part_.items()}
        for part_ in (params, stats)
    ]
    network = merge_model(graph, *arrays)
    network.class_names = class_names
    network.preprocessing = preprocessing
    return network


def recipe(**data):
    """Returns a recipe for it on 20 canvases of digits."""
    reader = part("digits", num_images=20)
    fields = {"reader": reader, "preprocessing": PREPROCESSING} | data
    return Config(
        data=DataConfig(batch_size=8, eval_batch_size=8, **fields),
        model=ModelConfig(backbone=BACKBONE),
        losses=(LossConfig(name="asymmetric_loss"),),
        optimizer=OptimizerConfig(peak_lr=1e-3),
        train=TrainConfig(epochs=1.0),
        eval=EvalConfig(threshold=0.6),
    )


def training_recipe(*assignments):
    """Returns a recipe of 60 steps, 10 an epoch, with augmentation and a moving average.

    Its network has one block of each kind: what is compiled for it takes the most of these tests.

    Args:
      assignments: changes, as `optimizer.peak_lr=1e-2`.
    """
    config = dataclasses.replace(
        recipe(
            reader=part("digits", num_images=80),
            augment=(part("cutout"), part("randaugment")),
        ),
        model=ModelConfig(backbone=part("tresnet_m", layers=(1, 0, 1, 0), width=8)),
        optimizer=OptimizerConfig(peak_lr=1e-2),
        train=TrainConfig(
            epochs=6.0,
            ema_decay=0.9,
            checkpoint_every_steps=20,
            keep_checkpoints=3,
            log_every_steps=1,
        ),
        eval=EvalConfig(every_epochs=2),
    )
    return override(config, assignments)


def save_photo(path, seed=0, size=(60, 40)):
    """Writes a smooth random picture; returns its path."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size).save(path)
    return path


def read_tensorboard(folder):
    """Returns {tag: {step: value}} as TensorBoard shows it, from the records of its files."""
    shown = {}
    for path in sorted(folder.iterdir()):
        for event in map(Event.FromString, _records(path.read_bytes())):
            if event.session_log.status == SessionLog.START:
                # A resumed run takes back what came at this step or later.
                shown = {
                    tag: {step: v for step, v in values.items() if step < event.step}
                    for tag, values in shown.items()
                }
            for value in event.summary.value:
                shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def _records(content):
    """Yields the records of a TFRecord file: length, checksum of it, bytes, checksum of them."""
    while content:
        (length,) = struct.unpack("<Q", content[:8].ljust(8, b"\0"))
        if len(content) < 16 + length:
            return  # A killed run was about to write it.
        yield content[12 : 12 + length]
        content = content[16 + length :]


def save_photos(folder):
    """Writes 24 photos and a bad one, listed for both splits; returns the change of a recipe."""
    rows = [",".join(["image", *CLASS_NAMES])]
    for number in range(24):
        save_photo(folder / f"{number}.png", number)
        rows.append(f"{number}.png," + ",".join(str((number + c) % 3 // 2) for c in range(10)))
    (folder / "bad.png").write_bytes(b"no image")
    rows.append("bad.png" + ",1" * 10)
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return f"data.reader={{'name': 'csv', 'kwargs': {{'root': '{folder}'}}}}"


def train(config, workdir):
    """Trains; returns the evaluation and what was printed."""
    console = Console(file=io.StringIO(), width=160)
    return fit(config, workdir, console=console), console.file.getvalue()


def read_log(workdir):
    """Returns the rows of a run's log, without their speeds, which no two runs share."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows]


def read_arrays(folder):
    """Returns the arrays of a checkpoint of a run by path, on whatever devices they were."""
    arrays = {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        for name in ("model", "training"):
            tree = checkpointer.metadata(folder / name).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            arguments = ocp.args.PyTreeRestore(item=tree, restore_args=kinds)
            found = checkpointer.restore(folder / name, args=arguments)
            for path, leaf in jax.tree_util.tree_leaves_with_path(found):
                arrays[name + jax.tree_util.keystr(path)] = leaf
    return arrays


def start(*arguments, flags=""):
    """Starts Python in another process, with the settings and compiled programs of this one.

    Args:
      arguments: of the interpreter.
      flags: for XLA.
    """
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "PYTHONPATH": str(root),
    }
    if flags:
        environment["XLA_FLAGS"] = flags
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
