"""Names in place of parts on the command line, and sizes that are not square."""

import pytest

from mljax.config import Part, Preprocessing, from_json, override, part, to_json
from mljax.config.load import unread_fields
from mljax.data.partial import partial
from mljax.data.readers.coco import coco
from tests import small_configs

CONFIG = small_configs.config()


@pytest.mark.parametrize(
    ("assignment", "read", "expected"),
    [
        ("data.reader=voc", lambda c: c.data.reader, Part(name="voc")),
        ("model.backbone=tresnet_l", lambda c: c.model.backbone, Part(name="tresnet_l")),
        ("schedule=constant", lambda c: c.schedule, Part(name="constant")),
        ("train.stop=patience", lambda c: c.train.stop, Part(name="patience")),
        ("data.augment=('cutout',)", lambda c: c.data.augment, (Part(name="cutout"),)),
        ("losses.0=selective_loss", lambda c: c.losses[0].name, "selective_loss"),
    ],
)
def test_a_text_in_place_of_a_part_is_its_name(assignment, read, expected):
    assert read(override(CONFIG, [assignment])) == expected


def test_arguments_can_follow_the_name():
    config = override(CONFIG, ["data.reader=voc", "data.reader.kwargs.root=/x"])
    assert config.data.reader == Part(name="voc", kwargs={"root": "/x"})


def test_a_part_among_the_arguments_is_replaced_by_name():
    config = small_configs.config(reader=part(partial, reader=part(coco, root="/x")))
    changed = override(config, ["data.reader.kwargs.reader=voc"])
    assert changed.data.reader.kwargs["reader"] == Part(name="voc")


def test_a_text_elsewhere_stays_one():
    config = override(CONFIG, ["data.train_split=voc", "data.reader.kwargs.root=voc"])
    assert (config.data.train_split, config.data.reader.kwargs["root"]) == ("voc", "voc")


def test_fields_that_a_command_does_not_read_are_told_apart():
    assert unread_fields(["data.x=1", "train.y=2", "datas=3"], ("data", "eval")) == [
        "train.y=2",
        "datas=3",
    ]
    changes = ["data.b.c=1", "data.b={}", "data={}", "data.batch=1"]
    assert unread_fields(changes, ("data.b",)) == ["data.batch=1"]


def test_a_value_without_a_path_is_refused():
    with pytest.raises(ValueError, match="expected path=value, got '=3'"):
        override(CONFIG, ["=3"])


@pytest.mark.parametrize(
    ("given", "stored", "height_width"),
    [(8, 8, (8, 8)), ((8, 8), 8, (8, 8)), ((8, 16), (8, 16), (8, 16))],
)
def test_image_size_is_a_side_or_height_and_width(given, stored, height_width):
    found = Preprocessing(image_size=given)
    assert (found.image_size, found.height_width) == (stored, height_width)
    assert from_json(Preprocessing, to_json(found)) == found


@pytest.mark.parametrize("size", ["(8,)", "(8,8,8)", "(0,8)", "(8,1.5)", "(8,8"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="image_size"):
        override(CONFIG, [f"data.preprocessing.image_size={size}"])


def test_image_size_can_be_set_to_height_and_width():
    config = override(CONFIG, ["data.preprocessing.image_size=(8, 16)"])
    assert config.data.preprocessing.height_width == (8, 16)
