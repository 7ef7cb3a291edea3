"""Data sets as tensorflow-datasets writes them, prepared and read without TensorFlow."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mljax.config.schema import Preprocessing
from mljax.data.pipeline import eval_batches, train_batches
from mljax.data.readers.tfds import tfds

BUILDER = '''
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CLASSES = tfds.features.ClassLabel(names=["cat", "dog", "eel"])


def file(level):
    content = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(content, "PNG")
    content.seek(0)
    return content


class Builder(tfds.core.GeneratorBasedBuilder):
    """Images of one brightness."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "objects": tfds.features.Sequence({"label": CLASSES}),
                "labels": tfds.features.Sequence(CLASSES),
                "best": CLASSES,
            }
        )
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "val": self._generate_examples(4)}

    def _generate_examples(self, count):
        for number in range(count):
            classes = list(range(number % 4))
            yield number, {
                "image": file(40 * number),
                "objects": [{"label": name} for name in classes + classes],
                "labels": classes,
                "best": number % 4 - 1,
            }
'''
PREPROCESSING = Preprocessing(image_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    package = root / "code" / "made_up_levels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "made_up_levels_dataset_builder.py").write_text(BUILDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "code"))
        from made_up_levels.made_up_levels_dataset_builder import Builder

        builder = Builder(data_dir=root / "data", file_format="array_record")
        builder.download_and_prepare()
    return Path(builder.data_path)


def _level(image):
    (level,) = np.unique(image)
    return int(level)


@pytest.mark.parametrize("labels", ["labels", "objects/label"])
def test_images_and_labels_are_those_that_were_written(folder, labels):
    records = tfds("val", root=folder, labels=labels)
    assert records.class_names == ("cat", "dog", "eel")
    with eval_batches(records, preprocessing=PREPROCESSING, batch_size=4) as batches:
        (batch,) = batches
    rows = zip(batch["images"], batch["labels"], strict=True)
    found = {_level(image): row.tolist() for image, row in rows}
    assert found == {0: [0, 0, 0], 40: [1, 0, 0], 80: [1, 1, 0], 120: [1, 1, 1]}
    assert "tensorflow" not in sys.modules


def test_a_split_can_be_a_slice(folder):
    assert len(tfds("train", root=folder)) == 6
    assert len(tfds("train[:50%]", root=folder)) == 3


@pytest.mark.slow
def test_batches_do_not_depend_on_the_workers(folder):
    records = tfds("train", root=folder)

    def batch(num_workers):
        batches = train_batches(
            records, preprocessing=PREPROCESSING, batch_size=4, seed=0, num_workers=num_workers
        )
        with batches:
            return next(batches)

    one, other = batch(0), batch(1)
    for key, array in one.items():
        np.testing.assert_array_equal(other[key], array)


def test_what_is_not_there_is_named(folder, tmp_path):
    for arguments, message in (
        ({"split": "train", "root": tmp_path}, "there is no dataset_info.json"),
        ({"split": "test", "root": folder}, "split 'test': .*; expected one of train, val"),
        ({"split": "val", "root": folder, "image": "photo"}, "there is no feature 'photo'"),
        ({"split": "val", "root": folder, "labels": "objects/name"}, "no feature 'objects/name'"),
        ({"split": "val", "root": folder, "labels": "image"}, "expected a ClassLabel"),
        ({"split": "val", "root": folder, "labels": "best"}, "image . has no labels, only -1"),
    ):
        with pytest.raises(ValueError, match=message):
            tfds(**arguments)
