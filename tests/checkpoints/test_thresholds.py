"""Thresholds are put into a finished checkpoint, which stays whole whenever the process ends."""

import pytest

from mljax.checkpoints import manifest
from mljax.checkpoints.checkpoint import (
    Thresholds,
    load_model,
    read_description,
    save_model,
    save_thresholds,
)
from mljax.checkpoints.manifest import MANIFEST, DamagedCheckpointError, seal, verify
from mljax.data.records import Classes
from mljax.models.classifier import for_classes

FILE = "thresholds.json"
OLD, NEW = (Thresholds(logits=tuple(0.1 * c + first for c in range(10))) for first in (-3.5, 17.5))


def test_thresholds_are_loaded_to_the_last_bit_and_can_be_replaced(copied):
    assert load_model(copied).thresholds is None
    for thresholds in (OLD, NEW):
        assert save_thresholds(copied, thresholds) == copied
        assert load_model(copied).thresholds == thresholds.logits


def test_a_run_keeps_the_step_of_its_checkpoint(saved, tmp_path):
    folder = save_model(tmp_path / "best" / "20", load_model(saved), step=20)
    save_thresholds(tmp_path, OLD)
    manifest.check_step(folder)
    assert load_model(tmp_path).thresholds == OLD.logits


def test_thresholds_are_saved_with_a_network(copied, tmp_path):
    save_thresholds(copied, OLD)
    folder = save_model(tmp_path / "again", load_model(copied))
    assert load_model(folder).thresholds == OLD.logits


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("writes", range(4))
def test_whenever_the_process_ends_the_checkpoint_is_whole(copied, monkeypatch, replaced, writes):
    if replaced:
        save_thresholds(copied, OLD)
    left = iter(range(writes))

    def write(path, text):
        if next(left, None) is None:
            raise KeyboardInterrupt
        written(path, text)

    written = manifest.write_text
    monkeypatch.setattr(manifest, "write_text", write)
    # Replacing writes the manifest without the file, the file, the manifest with it.
    ended = writes < (3 if replaced else 2)
    if ended:
        with pytest.raises(KeyboardInterrupt):
            save_thresholds(copied, NEW)
    else:
        save_thresholds(copied, NEW)
    before = OLD.logits if replaced and not writes else None
    assert load_model(copied).thresholds == (before if ended else NEW.logits)


def test_thresholds_that_have_changed_are_damage(copied):
    save_thresholds(copied, OLD)
    (copied / FILE).write_text((copied / FILE).read_text().replace("-3.5", "-2.5"))
    with pytest.raises(DamagedCheckpointError, match=f"{FILE} has changed"):
        load_model(copied)


def test_thresholds_that_the_manifest_does_not_list_are_not_read(copied):
    (copied / FILE).write_text('{"logits": [], "source": ""}')
    verify(copied)
    assert load_model(copied).thresholds is None


@pytest.mark.parametrize("text", ["", '{"logits": [0.5]}', '{"logits": [null]}'])
def test_thresholds_that_are_none_are_named(copied, text):
    (copied / FILE).write_text(text)
    seal(copied)
    with pytest.raises(DamagedCheckpointError, match=f"{FILE} cannot be read"):
        load_model(copied)


@pytest.mark.parametrize(
    ("logits", "message"), [((0.0,), "got 1, expected"), ((float("inf"),) * 10, "not all finite")]
)
def test_thresholds_that_do_not_fit_the_classes_are_refused(copied, logits, message):
    content = (copied / MANIFEST).read_text()
    with pytest.raises(ValueError, match=message):
        save_thresholds(copied, Thresholds(logits=logits))
    assert (copied / MANIFEST).read_text() == content


def test_a_network_for_other_classes_has_none_of_the_thresholds(copied):
    model = load_model(copied)
    model.thresholds = OLD.logits
    names = read_description(copied).class_names
    model.head.for_classes = lambda classes: model.head
    assert for_classes(model, Classes(names=names)).thresholds == OLD.logits
    assert for_classes(model, Classes(names=names[::-1])).thresholds is None
