#!/usr/bin/env bash
# grain 0.2.18, numpy 2.4.6: to shuffle few examples takes 30 to 50 times as long for each as many.
#
# Guessed: where a dataset in random order finds its n-th example costs the same at any size, or less
# for a small one. Seen: 440 microseconds an example of 128, 75 of 1,000, 12 of 16,000, 9 of 65,536
# and more. It looks as if numbers were drawn from a fixed range of about 65,536 until one is in
# the dataset. So a benchmark of a pipeline on a hundred photos measures the shuffle.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet grain==0.2.18 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import time

import grain


def microseconds(size):
    examples = grain.MapDataset.range(size).shuffle(seed=7).repeat()
    times = []
    for _ in range(5):
        began = time.process_time()
        for i in range(400):
            examples[i]
        times.append((time.process_time() - began) / 400 * 1e6)
    return min(times)


found = {size: microseconds(size) for size in (128, 1_000, 16_000, 65_536, 200_000)}
print({size: round(value, 1) for size, value in found.items()})
assert found[128] > 10 * found[65_536], "few examples are shuffled as quickly as many"
assert found[1_000] > 2 * found[65_536], "few examples are shuffled as quickly as many"
PYTHON
echo "as described: shuffling few examples takes longer for each"
