"""Runs, in this process or another, and what they leave behind."""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mljax.train import fit


def train(config, workdir):
    """Trains; returns the figures and what was printed."""
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


def start(*arguments, flags="", **variables):
    """Starts Python in another process, with the settings and compiled programs of this one.

    Args:
      arguments: of the interpreter.
      flags: more of them for XLA.
      variables: more of the environment.
    """
    root = Path(__file__).parents[1]
    environment = (
        os.environ
        | variables
        | {
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "PYTHONPATH": str(root),
        }
    )
    if flags:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}"
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
