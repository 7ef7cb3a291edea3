"""What a run remembers of bad images: names, which outlive a change of the list."""

from mljax.config import from_json, to_json
from mljax.training.progress import Progress, bad_in_any_process, name_all
from mljax.training.summary import closing_lines

_NAMES = ["a.jpg", "b é.jpg", "c\udcff.jpg"]


def test_bad_images_are_named_each_once():
    numbers = bad_in_any_process([1, 0, 1], 3)
    assert name_all(("x.jpg", "a.jpg"), numbers, _NAMES.__getitem__) == (
        *("a.jpg", "b é.jpg", "x.jpg"),
    )


def test_names_of_images_that_left_the_list_stay():
    assert name_all(("gone.jpg",), (), [].__getitem__) == ("gone.jpg",)


def test_a_name_that_is_no_unicode_is_saved_escaped():
    progress = Progress(bad_images=name_all((), [2], _NAMES.__getitem__))
    assert progress.bad_images == ("c\\udcff.jpg",)
    assert from_json(Progress, to_json(progress)) == progress


def test_the_end_lists_bad_images_by_name(tmp_path):
    progress = Progress(bad_images=("a.jpg", "b.jpg"))
    lines = closing_lines(progress, best_by="mAP", folder=tmp_path, skipped_steps=0)
    assert lines == ["2 training images could not be read: a.jpg, b.jpg"]
