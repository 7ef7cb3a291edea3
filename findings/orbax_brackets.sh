#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 (tensorstore 0.1.86, jax 0.10.2): a checkpoint below a folder whose name
# holds [ ] is written without an error and cannot be read again.
#
# Guessed: a folder name is text, and `run[1]` (the name of a downloaded copy, or of a run named
# after its options) is saved and restored as `run1` is. Seen: `save` and `wait_until_finished`
# return, `commit_success.txt` is there, but one line is logged as a warning ("No per-process OCDBT
# checkpoint subdirs found": the folder is listed by a glob pattern), manifest.ocdbt is missing, and
# `restore` raises ValueError. The arrays lie unmerged in ocdbt.process_0. Names with * ? { } # % or
# a space do no harm.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    orbax-checkpoint==0.12.8 tensorstore==0.1.86 jax==0.10.2 jaxlib==0.10.2
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import pathlib

import numpy as np
import orbax.checkpoint as ocp

seen = {}
for name in ("run1", "run[1]", "run{1}", "run 1", "run#1"):
    path = pathlib.Path(name).absolute() / "checkpoint"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, {"a": np.arange(3.0)})
        checkpointer.wait_until_finished()
        sealed = (path / "commit_success.txt").exists()
        merged = (path / "manifest.ocdbt").exists()
        try:
            restored = bool((checkpointer.restore(path)["a"] == np.arange(3.0)).all())
        except ValueError:
            restored = False
    seen[name] = sealed, merged, restored
    print(f"{name:8} sealed {sealed}, merged {merged}, restored {restored}")
assert seen.pop("run[1]") == (True, False, False), "the folder with brackets is readable now"
assert set(seen.values()) == {(True, True, True)}, seen
print("unchanged: a checkpoint below run[1] is written, sealed and lost")
PYTHON
