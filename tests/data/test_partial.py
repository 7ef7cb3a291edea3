"""Simulated partial labels: the published code's choices, and what any simulation keeps."""

import numpy as np
import pytest

from mljax.config import part
from mljax.data.partial import fix_per_class, partial, random_per_sample, simulate
from mljax.data.readers.digits import digits
from mljax.data.records import Records
from tests import golden

METHODS = {
    "fpc": fix_per_class,
    "fix_per_class": fix_per_class,
    "rps": random_per_sample,
    "random_per_sample": random_per_sample,
}
LABELS = (np.random.default_rng(7).random((40, 6)) < 0.2).astype(np.int8)


def _records(labels):
    images = [f"{n}.jpg" for n in range(len(labels))]
    return Records(images=images, labels=labels, class_names=tuple("abcdef"))


@pytest.mark.parametrize("case", golden.names("csl_sim"))
def test_the_legacy_stream_hides_the_labels_that_the_reference_hides(case):
    hyper = golden.cases("csl_sim")[case]["hyper"]
    arrays = golden.arrays("csl_sim", case)
    method = METHODS[hyper["simulate_partial_type"]]
    rng = np.random.RandomState(hyper["numpy_legacy_seed"])
    labels = method(arrays["y"].astype(np.int8), hyper["simulate_partial_param"], rng)
    np.testing.assert_array_equal(labels, arrays["out"])


@pytest.mark.parametrize(("method", "amount"), [("fix_per_class", 5), ("random_per_sample", 0.5)])
def test_labels_are_hidden_but_never_changed(method, amount):
    hidden = simulate(_records(LABELS), method, amount).labels
    assert hidden.dtype == np.int8
    assert set(np.unique(hidden)) == {-1, 0, 1}
    np.testing.assert_array_equal(hidden[hidden != -1], LABELS[hidden != -1])


def test_fix_per_class_keeps_the_same_number_of_either_kind():
    kept = simulate(_records(LABELS), "fix_per_class", 3).labels
    np.testing.assert_array_equal((kept == 1).sum(0), 3)
    np.testing.assert_array_equal((kept == 0).sum(0), 3)


def test_fix_per_class_keeps_all_where_there_are_fewer():
    kept = simulate(_records(LABELS), "fix_per_class", 1000).labels
    np.testing.assert_array_equal(kept, LABELS)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, LABELS.size)])
def test_random_per_sample_hides_none_or_all_at_its_limits(share, expected):
    assert (simulate(_records(LABELS), "random_per_sample", share).labels == -1).sum() == expected


def test_random_per_sample_hides_its_share():
    labels = np.zeros((500, 40), np.int8)
    hidden = random_per_sample(labels, 0.3, np.random.default_rng(0)) == -1
    assert abs(hidden.mean() - 0.3) < 0.01


@pytest.mark.parametrize(("method", "amount"), [("fix_per_class", 30), ("random_per_sample", 0.5)])
def test_labels_that_were_unannotated_stay_so(method, amount):
    unannotated = np.arange(LABELS.size).reshape(LABELS.shape) % 3 == 0
    labels = np.where(unannotated, np.int8(-1), LABELS)
    hidden = simulate(_records(labels), method, amount).labels
    assert (hidden[unannotated] == -1).all()


@pytest.mark.parametrize("legacy", [False, True])
def test_the_seed_decides(legacy):
    def labels(seed):
        return simulate(_records(LABELS), "random_per_sample", 0.5, seed=seed, legacy=legacy).labels

    np.testing.assert_array_equal(labels(1), labels(1))
    assert (labels(1) != labels(2)).any()


def test_the_given_records_are_not_changed():
    records = _records(LABELS.copy())
    simulated = simulate(records, "fix_per_class", 2)
    np.testing.assert_array_equal(records.labels, LABELS)
    assert simulated.images is records.images
    assert simulated.class_names == records.class_names


class _Rows:
    """Labels that only rows can be read of."""

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return LABELS[index]


def test_labels_may_be_anything_with_rows():
    from_rows = simulate(_records(_Rows()), "fix_per_class", 3).labels
    np.testing.assert_array_equal(from_rows, simulate(_records(LABELS), "fix_per_class", 3).labels)


@pytest.mark.parametrize(
    ("method", "amount", "message"),
    [
        ("fix_per_class", -1, "at least 0, got -1"),
        ("random_per_sample", 1.5, "in .0, 1., got 1.5"),
        ("per_image", 1, "method must be one of fix_per_class, random_per_sample, got 'per_image'"),
    ],
)
def test_an_impossible_simulation_raises(method, amount, message):
    with pytest.raises(ValueError, match=message):
        simulate(_records(LABELS), method, amount)


ARGUMENTS = {
    "reader": part(digits, num_images=30),
    "method": "random_per_sample",
    "amount": 0.5,
}


def test_the_reader_hides_labels_of_the_training_split():
    records = partial("train", **ARGUMENTS, seed=3)
    whole = digits("train", num_images=30)
    np.testing.assert_array_equal(records.images, whole.images)
    expected = simulate(whole, "random_per_sample", 0.5, seed=3).labels
    np.testing.assert_array_equal(records.labels, expected)
    assert (records.labels == -1).any()


def test_the_reader_leaves_other_splits_whole():
    records = partial("val", **ARGUMENTS)
    np.testing.assert_array_equal(records.labels, digits("val", num_images=30).labels)


def test_the_training_split_may_have_another_name():
    assert (partial("val", **ARGUMENTS, hidden_split="val").labels == -1).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": part("digit")}, "unknown reader 'digit'; did you mean digits"),
        ({"reader": part(digits, images=3)}, "reader digits takes no argument 'images'"),
        ({"method": "per_image"}, "method must be one of"),
    ],
)
def test_what_the_wrapped_reader_does_not_take_raises(changes, message):
    with pytest.raises(ValueError, match=message):
        partial("train", **ARGUMENTS | changes)
