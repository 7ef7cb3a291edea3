"""The counts in docs/reliability.md: what benchmarks/reliability.py writes."""

import re

import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.reliability import COUNTS, DOCUMENT, INTERVAL, STEPS, write_counts
from mljax.data.images import load_image


def test_the_section_of_the_counts_is_the_scripts():
    frame = COUNTS.format(steps=STEPS, interval=INTERVAL, options="OPTIONS", rows="ROWS")
    options = r"--kills \d+ --signals \d+ --flips \d+ --seed \d+"
    rows = "".join(
        rf"\| {trial} \|.*\|\n?"
        for trial in ("SIGKILL at a random step", "SIGTERM", "SIGHUP", "one flipped bit .*")
    )
    pattern = re.escape(frame).replace("OPTIONS", options).replace("ROWS", rows)
    assert re.search(pattern, DOCUMENT.read_text("utf-8"))


def test_new_counts_replace_those_before_and_leave_the_prose(tmp_path):
    document = tmp_path / "a.md"
    document.write_text(
        "# A\n\n## Counts\n\nold\n\n| a |\n| 1 |\n\nA checkpoint.\n\n## Ending\n\n| c |\n"
    )
    write_counts(document, "## Counts\n\nnew\n\n| b |\n")
    assert document.read_text() == (
        "# A\n\n## Counts\n\nnew\n\n| b |\n\nA checkpoint.\n\n## Ending\n\n| c |\n"
    )
    document.write_text("# A\n")
    with pytest.raises(ValueError, match="there is no section '## Counts'"):
        write_counts(document, "## Counts\n")


def test_damaged_pictures_are_read_or_refused_by_name():
    rng = np.random.default_rng(1)
    seen = robustness.count_outcomes(robustness.pictures(rng), load_image, 240, rng)
    assert set(seen) == {"read", "refused"}, seen
