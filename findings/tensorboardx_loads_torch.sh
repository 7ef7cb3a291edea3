#!/usr/bin/env bash
# tensorboardX 2.6.5 (torch 2.13.0, Python 3.11): importing its writer of event files loads the whole
# of torch where torch is installed.
#
# Guessed: tensorboardX is the TensorBoard writer for those who do without torch; its
# `event_file_writer` and its protocol buffers, which only frame bytes, import numpy and protobuf
# alone. Seen: every import of a module of tensorboardX runs its __init__, which imports `writer` and
# `x2num`, and these `import torch` where they can: some 770 modules of torch, and about two
# seconds of CPU time at each start of a program that logs a number.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorboardX==2.6.5 torch==2.13.0 numpy
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys
import time

began = time.process_time()
from tensorboardX.proto.event_pb2 import Event  # noqa: E402

seconds = time.process_time() - began
Event(wall_time=1.0, step=1)
modules = [name for name in sys.modules if name.split(".")[0] == "torch"]
print(f"modules of torch after an import of tensorboardX.proto: {len(modules)}, {seconds:.1f} s")
assert len(modules) > 500, "torch is no longer loaded: import tensorboardX at the top again"
PYTHON
echo "as described: an event needs all of torch"
