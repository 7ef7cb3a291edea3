"""What a progress bar says while a program is compiled."""

import io
import json
import time

import jax
import jaxlib
import pytest
from rich.console import Console

from mljax.devices.compilation_cache import SECONDS, compiling, use_compilation_cache
from mljax.terminal.progress import make_progress
from mljax.train import fit
from tests import small_configs


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of its own for the times."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_of_other_numbers_of_cpus_are_kept_apart(folder, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(folder))
    for cpus in (1, 2):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cpus=cpus: set(range(cpus)))
        use_compilation_cache()
        kept = folder / ".cache/mljax/compiled" / f"jaxlib-{jaxlib.__version__}-{cpus}-cpus"
        assert jax.config.jax_compilation_cache_dir == str(kept)


def test_a_folder_that_the_user_names_is_taken_as_it_is(folder, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder)


def _screen():
    return Console(file=io.StringIO(), force_terminal=True, width=160)


def _compile(program, seconds=0.0):
    """Returns what was shown while the program was compiled, and the task afterwards."""
    screen = _screen()
    with make_progress(screen) as bar:
        task = bar.add_task("waiting", total=1, status="")
        with compiling(bar, task, program, then="training"):
            time.sleep(seconds)
            shown = screen.file.getvalue()
        return shown, bar.tasks[0]


def test_the_bar_says_compiling_and_then_what_follows(folder):
    shown, task = _compile("a")
    assert "compiling" in shown
    assert "last time" not in shown
    assert (task.description, task.fields["status"]) == ("training", "")


def test_the_bar_says_how_long_the_same_program_took_last(folder):
    _compile("a", seconds=0.3)
    assert "took 0.3 s last time" in _compile("a")[0]
    assert "last time" not in _compile("b")[0]


@pytest.mark.parametrize("content", ["", "[]", '{"a": "x"}', "{"])
def test_a_damaged_file_of_times_is_written_anew(folder, content):
    folder.mkdir()
    (folder / SECONDS).write_text(content)
    _compile("a")
    (name,) = json.loads((folder / SECONDS).read_text())
    assert name.startswith("a, ")


def test_a_failed_compilation_keeps_no_time(folder):
    screen = _screen()
    with pytest.raises(ValueError, match="no"), make_progress(screen) as bar:
        task = bar.add_task("waiting", total=1, status="")
        with compiling(bar, task, "a", then="training"):
            raise ValueError("no")
    assert not (folder / SECONDS).exists()


def test_no_times_are_kept_where_no_programs_are(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert "compiling" in _compile("a")[0]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.slow
def test_a_run_on_wide_images_says_compiling_for_its_evaluation_and_its_first_step(
    folder, tmp_path
):
    screen = _screen()
    config = small_configs.training_config(
        "data.reader.kwargs.num_images=8",
        "train.epochs=1",
        "data.preprocessing.image_size=(32, 48)",
        "eval.every_epochs=1",
    )
    fit(config, tmp_path / "run", console=screen)
    shown = screen.file.getvalue()
    assert "compiling" in shown and "training" in shown
    assert "8 x 32 x 48 x 3" in shown
    assert "1 (1 epoch of 1)" in shown
    for program in ("step of", "evaluation of"):
        assert any(program in name for name in json.loads((folder / SECONDS).read_text()))
