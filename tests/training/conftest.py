"""The checkpoints of a run in a temporary folder."""

import pytest

from mljax.training.run_checkpoints import RunCheckpoints
from tests import small_configs
from tests.training.run_states import MODEL


@pytest.fixture
def opened(tmp_path):
    """Returns `open(keep=2)`, whose checkpoints are closed at the end of the test."""
    made = []

    def open_(keep=2):
        folder = tmp_path / "checkpoints"
        made.append(RunCheckpoints(folder, MODEL, small_configs.config(), keep=keep))
        return made[-1]

    yield open_
    for checkpoints in made:
        checkpoints.close()
