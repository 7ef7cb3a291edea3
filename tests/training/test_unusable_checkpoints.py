"""Checkpoints of a run that cannot be used: set aside and named, and nothing else is touched."""

import errno
import os
import warnings

import pytest

from mljax.checkpoints.manifest import (
    MANIFEST,
    DamagedCheckpointError,
    seal,
    sealed,
)
from mljax.training import run_checkpoints
from mljax.training.run_checkpoints import save_only
from tests import small_configs
from tests.training.run_states import MODEL, assert_equal, copies, make_state, save


def _flip(folder):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return str(path.relative_to(folder))


def test_leftovers_of_interrupted_saves_are_removed(opened, tmp_path):
    checkpoints = opened()
    save(checkpoints, 5)
    folder = tmp_path / "checkpoints"
    tmp = run_checkpoints.ocp.utils.TMP_DIR_SUFFIX
    for name in ("10.incomplete", f"15.incomplete{tmp}-1", "2.removed", "mine"):
        (folder / name / "model").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored, _ = opened().restore(make_state())
    assert int(restored.step) == 5
    assert sorted(p.name for p in folder.iterdir()) == ["5", "mine"]


def test_a_kill_during_the_very_first_save_leaves_nothing_that_hinders_a_start(opened, tmp_path):
    (tmp_path / "checkpoints" / "5.incomplete" / "model").mkdir(parents=True)
    assert opened().restore(make_state()) is None


def test_a_checkpoint_has_its_name_only_when_it_is_sealed(opened, tmp_path, monkeypatch):
    folder, seen = tmp_path / "checkpoints", []

    def look(path, **_):
        seen.extend([path.name, (folder / "5").exists()])
        seal(path, step=5)

    monkeypatch.setattr(run_checkpoints, "seal", look)
    save(opened(), 5)
    assert seen == ["5.incomplete", False]
    assert sealed(folder) == [folder / "5"]


def test_a_checkpoint_without_manifest_is_set_aside_and_named(opened, tmp_path):
    save(opened(), 5, 10)
    folder = tmp_path / "checkpoints"
    (folder / "10" / MANIFEST).unlink()
    with pytest.warns(UserWarning, match=f"{folder / '10'} has no {MANIFEST}.*unfinished-10"):
        checkpoints = opened()
    assert checkpoints.set_aside == [folder / "unfinished-10"]
    assert int(checkpoints.restore(make_state())[0].step) == 5
    assert sorted(p.name for p in folder.iterdir()) == ["5", "unfinished-10"]


def test_files_of_others_among_the_checkpoints_are_left_alone(opened, tmp_path):
    save(opened(), 5)
    folder = tmp_path / "checkpoints"
    for path in (folder / ".DS_Store", folder / "5" / ".DS_Store", folder / "notes.incomplete"):
        path.write_text("x")
    (folder / "40").symlink_to(folder / "absent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(opened().restore(make_state())[0].step) == 5
    assert len(list(folder.iterdir())) == 4


def test_a_link_in_the_place_of_a_new_checkpoint_makes_way(opened, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = opened()
    (folder / "5").symlink_to(folder / "absent")
    save(checkpoints, 5)
    assert sealed(folder) == [folder / "5"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_checkpoint_without_rights_stays_where_it_is(opened, tmp_path):
    save(opened(), 5, 10)
    file = tmp_path / "checkpoints" / "10" / "model.json"
    file.chmod(0)
    with pytest.raises(PermissionError, match=str(file)):
        opened()
    assert sorted(p.name for p in file.parent.parent.iterdir()) == ["10", "5"]


def test_an_error_of_reading_moves_nothing(opened, tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path / "model.json"))

    save(opened(), 5, 10)
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(run_checkpoints, "verify", fail)
    with pytest.raises(OSError, match=f"{folder / '10' / 'model.json'}"):
        opened()
    assert sorted(p.name for p in folder.iterdir()) == ["10", "5"]


def test_swapped_checkpoints_are_refused(opened, tmp_path):
    save(opened(), 5, 10)
    folder = tmp_path / "checkpoints"
    (folder / "5").rename(folder / "x")
    (folder / "10").rename(folder / "5")
    (folder / "x").rename(folder / "10")
    with pytest.warns(UserWarning, match="holds step"):
        checkpoints = opened()
    with pytest.raises(ValueError, match="damaged-10, damaged-5.*--restart"):
        checkpoints.restore(make_state())


def test_a_state_of_another_step_than_its_folder_is_refused(opened, tmp_path):
    # Without a step in the manifest, as older versions sealed.
    save(opened(), 5)
    folder = tmp_path / "checkpoints"
    (folder / "5" / MANIFEST).unlink()
    seal(folder / "5")
    (folder / "5").rename(folder / "10")
    with pytest.raises(DamagedCheckpointError, match="10 is damaged: it holds step 5"):
        opened().restore(make_state())


def test_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used(opened, tmp_path):
    checkpoints = opened()
    save(checkpoints, 5, 10)
    folder = tmp_path / "checkpoints"
    damaged = _flip(folder / "10")
    with pytest.warns(UserWarning) as caught:
        checkpoints = opened()
    (message,) = [str(w.message) for w in caught]
    for text in (f"checkpoint {folder / '10'} is damaged", damaged, "damaged-10", "one before"):
        assert text in message
    restored, _ = checkpoints.restore(make_state())
    assert_equal(restored, copies(make_state(5)))
    assert sorted(p.name for p in folder.iterdir()) == ["5", "damaged-10"]


def test_the_same_step_may_be_damaged_again(opened, tmp_path):
    folder = tmp_path / "checkpoints"
    for _ in range(3):
        checkpoints = opened()
        save(checkpoints, 10)
        _flip(folder / "10")
        with pytest.warns(UserWarning, match="is damaged"):
            opened()
    assert sorted(p.name for p in folder.iterdir()) == [
        "damaged-10",
        "damaged-10-2",
        "damaged-10-3",
    ]


def test_damaged_checkpoints_alone_are_no_reason_for_a_fresh_start(opened, tmp_path):
    save(opened(), 5, 10)
    for step in ("5", "10"):
        _flip(tmp_path / "checkpoints" / step)
    with pytest.warns(UserWarning, match="is damaged") as caught:
        checkpoints = opened()
    assert len(caught) == 2
    for again in (checkpoints, opened()):
        with pytest.raises(ValueError, match="damaged-10, damaged-5.*--restart"):
            again.restore(make_state())


def test_intact_checkpoints_give_no_warning(opened):
    save(opened(), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(opened().restore(make_state())[0].step) == 5


@pytest.mark.parametrize("left", ["5.orbax-checkpoint-tmp", "5"])
def test_a_step_that_was_being_saved_again_is_found(opened, tmp_path, left):
    save(opened(), 5)
    folder = tmp_path / "checkpoints"
    (folder / "5").rename(folder / "5.replaced")
    (folder / left).mkdir()
    checkpoints = opened()
    assert [path.name for path in folder.iterdir()] == ["5"]
    assert int(checkpoints.restore(make_state())[0].step) == 5


def test_a_network_that_was_set_aside_is_found_again(opened, tmp_path):
    folder = tmp_path / "best"
    save_only(folder / "5", MODEL, config=small_configs.config(), card="# five\n")
    save_only(folder / "7", MODEL, config=small_configs.config(), card="# seven\n")
    assert [path.name for path in folder.iterdir()] == ["7"]
    (folder / "7").rename(folder / "7.replaced")
    (folder / "7.incomplete").mkdir()
    assert opened().tidy(folder) == [folder / "7"]
    assert [path.name for path in folder.iterdir()] == ["7"]
    save_only(folder / "7", MODEL, config=small_configs.config(), card="# again\n")
    assert (folder / "7" / "README.md").read_text() == "# again\n"
