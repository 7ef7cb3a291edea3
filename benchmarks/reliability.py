"""Kills, signals and flipped bits: what a run loses, counted.

    python -m benchmarks.reliability [--kills 12] [--signals 6] [--flips 200] [--write]

Trains a miniature on digits in other processes, 40 steps with a checkpoint every 5. It is killed,
or asked to end, at random steps and started again until it is done. Then its last checkpoint is
compared with that of a run without a break, bit for bit. Every checkpoint that an interruption left
is verified. `--write` puts the counts into docs/reliability.md.
"""

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from mljax.checkpoints.manifest import DamagedCheckpointError, sealed, verify
from mljax.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    Preprocessing,
    TrainConfig,
    loss,
    part,
    to_json,
)
from mljax.data.readers.digits import digits
from mljax.losses import asymmetric_loss

STEPS, INTERVAL = 40, 5
DOCUMENT = Path(__file__).parents[1] / "docs/reliability.md"
HEADING = "## Counts"
COUNTS = f"""{HEADING}

{{steps}} steps of a miniature on digits, a checkpoint every {{interval}} steps
(`{{options}}`):

| trial | times | unreadable checkpoints | most steps lost | runs that ended bit-equal |
| --- | --- | --- | --- | --- |
{{rows}}
"""


def make_config() -> Config:
    """Returns the config of the miniature."""
    return Config(
        data=DataConfig(
            reader=part(digits, num_images=80),
            preprocessing=Preprocessing(image_size=32),
            batch_size=8,
            eval_batch_size=8,
        ),
        model=ModelConfig(backbone=part("tresnet_m", layers=(0, 0, 0, 0), width=8)),
        losses=(loss(asymmetric_loss),),
        optimizer=OptimizerConfig(peak_lr=1e-2),
        train=TrainConfig(epochs=4.0, checkpoint_every_steps=INTERVAL, log_every_steps=1),
        eval=EvalConfig(every_epochs=2),
    )


def start(config: Path, workdir: Path) -> subprocess.Popen:
    """Starts a run in another process."""
    command = [sys.executable, "-m", "mljax.train", "--config", config, "--workdir", workdir]
    return subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def last_arrays(workdir: Path) -> dict[str, bytes]:
    """Returns the arrays of the newest checkpoint by path."""
    folder = sealed(workdir / "checkpoints")[-1]
    found = {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        for name in ("model", "training"):
            tree = checkpointer.metadata(folder / name).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            arguments = ocp.args.PyTreeRestore(item=tree, restore_args=kinds)
            arrays = checkpointer.restore(folder / name, args=arguments)
            for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
                found[f"{folder.name}/{name}{jax.tree_util.keystr(path)}"] = leaf.tobytes()
    return found


def logged_step(workdir: Path) -> int:
    """Returns the last step in the log of a run, or 0."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return json.loads((workdir / "metrics.jsonl").read_text("utf-8").splitlines()[-1])["step"]
    return 0


def interrupt(
    number: int, count: int, config: Path, root: Path, rng: np.random.Generator
) -> dict[str, int]:
    """Sends a signal at random steps, `count` times, to runs that go on until they are done.

    Returns:
      Counts: of signals, of checkpoints that could not be read, the most steps that one signal
      lost, and how many runs there were and ended bit-equal to `root / "straight"`.
    """
    names = ("signals", "unreadable checkpoints", "most steps lost", "runs", "bit-equal")
    counts = dict.fromkeys(names, 0)
    expected = last_arrays(root / "straight")
    while counts["signals"] < count:
        counts["runs"] += 1
        workdir = root / f"{signal.Signals(number).name}-{counts['runs']}"
        while (code := _start_and_signal(number, counts, count, config, workdir, rng)) != 0:
            if code not in (-number, 128 + number):
                raise RuntimeError(f"{workdir}: exit code {code}")
            found = sealed(workdir / "checkpoints")
            counts["unreadable checkpoints"] += sum(not _readable(path) for path in found)
            lost = logged_step(workdir) - (int(found[-1].name) if found else 0)
            counts["most steps lost"] = max(counts["most steps lost"], lost)
        counts["bit-equal"] += last_arrays(workdir) == expected
    return counts


def _start_and_signal(
    number: int,
    counts: dict[str, int],
    count: int,
    config: Path,
    workdir: Path,
    rng: np.random.Generator,
) -> int:
    """Starts a run and signals it some steps later, if signals are left; returns its exit code."""
    process = start(config, workdir)
    target = logged_step(workdir) + int(rng.integers(0, 15))
    while counts["signals"] < count and process.poll() is None:
        if logged_step(workdir) >= target and (workdir / "metrics.jsonl").exists():
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(number)
            counts["signals"] += 1
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode


def _readable(folder: Path) -> bool:
    try:
        verify(folder)
    except DamagedCheckpointError:
        return False
    return True


def flip_bits(folder: Path, count: int, rng: np.random.Generator) -> dict[str, int]:
    """Flips one bit of a checkpoint at a time; returns how many were refused and named."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    refused = 0
    for path in (files[i] for i in rng.integers(len(files), size=count)):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            verify(folder)
        except DamagedCheckpointError as error:
            refused += str(path.relative_to(folder)) in str(error)
        path.write_bytes(content)
    verify(folder)
    return {"flipped bits": count, "refused and named": refused}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all trials and prints their counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--signals", type=int, default=6, help="of SIGTERM, and as many SIGHUP")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="the counts into docs/reliability.md")
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(arguments.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = root / "config.json"
        config.write_text(to_json(make_config()), "utf-8")
        _, errors = (process := start(config, root / "straight")).communicate()
        if process.returncode:
            raise RuntimeError(errors[-2000:])
        trials = {"SIGKILL": arguments.kills, "SIGTERM": arguments.signals}
        for name, count in (trials | {"SIGHUP": arguments.signals}).items():
            rows.append(_row(name, interrupt(signal.Signals[name], count, config, root, rng)))
            print(rows[-1], flush=True)
        found = flip_bits(sealed(root / "straight" / "checkpoints")[-1], arguments.flips, rng)
    refused = f"{found['refused and named']} refused, the file named"
    rows.append(f"| one flipped bit in a checkpoint | {found['flipped bits']} | {refused} | | |")
    options = f"--kills {arguments.kills} --signals {arguments.signals} --flips {arguments.flips}"
    text = COUNTS.format(
        steps=STEPS,
        interval=INTERVAL,
        options=f"{options} --seed {arguments.seed}",
        rows="\n".join(rows),
    )
    print(text)
    if arguments.write:
        write_counts(DOCUMENT, text)


def write_counts(document: Path, text: str, heading: str = HEADING) -> None:
    """Replaces the section of the counts in a document, to the end of its table.

    Raises:
      ValueError: if it has none.
    """
    section = re.compile(rf"^{heading}\n(?:(?!\|).*\n)*(?:\|.*\n)+", re.MULTILINE)
    content, count = section.subn(lambda _: text, document.read_text("utf-8"))
    if count != 1:
        raise ValueError(f"{document}: there is no section {heading!r} with a table")
    document.write_text(content, "utf-8")


def _row(name: str, counts: dict[str, int]) -> str:
    trial = "SIGKILL at a random step" if name == "SIGKILL" else name
    values = [counts[key] for key in ("signals", "unreadable checkpoints", "most steps lost")]
    cells = [trial, *map(str, values), f"{counts['bit-equal']} of {counts['runs']}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
