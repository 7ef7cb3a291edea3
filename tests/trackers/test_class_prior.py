"""Class priors: the estimate, its file and its picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.trackers.class_prior import (
    ClassPrior,
    draw_prior,
    prior_csv,
    read_prior,
    update_prior,
    write_prior,
)
from tests import golden, networks

CASE = golden.cases("csl_prior")["prior"]
EXPECTED = golden.arrays("csl_prior", "prior")
NAMES = [f"class {k}" for k in range(12)]
BATCHES = [jnp.asarray(golden.fill_input(*CASE["inputs"][f"logits{n}"]["fill"])) for n in range(3)]


def _write(folder, text):
    (folder / "prior.csv").write_text(text)
    return folder / "prior.csv"


def test_the_running_mean_equals_reference_after_every_batch():
    prior, count = jnp.zeros(12), jnp.zeros(())
    for number, logits in enumerate(BATCHES):
        prior, count = update_prior(prior, count, logits)
        np.testing.assert_allclose(prior, EXPECTED[f"avg{number}"], rtol=1e-6)
    assert count == 11


def test_the_tracker_equals_reference_after_every_batch():
    tracker = ClassPrior()
    arrays = tracker.init(networks.model(num_classes=12, class_names=tuple(NAMES)))
    for number, logits in enumerate(BATCHES):
        batch = {"valid": jnp.ones(len(logits), bool)}
        arrays = tracker.update(arrays, {"logits": logits}, batch)
        np.testing.assert_allclose(arrays["mean"], EXPECTED[f"avg{number}"], rtol=1e-6)
    assert arrays["count"] == 11


def test_a_head_without_logits_is_refused():
    batch = {"valid": jnp.ones(4, bool)}
    with pytest.raises(ValueError, match="class_prior reads logits, the head gives means, weights"):
        ClassPrior().update({}, {"weights": jnp.ones(4), "means": jnp.ones(4)}, batch)


def test_rows_of_padding_do_not_count():
    valid = jnp.array([True, False, True, True])
    prior, count = update_prior(jnp.zeros(12), jnp.zeros(()), BATCHES[0], valid)
    np.testing.assert_allclose(prior, jax.nn.sigmoid(BATCHES[0])[valid].mean(0), rtol=1e-6)
    assert count == 3


def test_a_batch_of_padding_alone_changes_nothing():
    prior, count = update_prior(jnp.zeros(12), jnp.zeros(()), BATCHES[0], jnp.zeros(4, bool))
    np.testing.assert_array_equal(prior, 0)
    assert count == 0


def test_the_file_has_the_text_of_the_reference(tmp_path):
    write_prior(tmp_path / "prior.csv", NAMES, EXPECTED["avg2"])
    assert (tmp_path / "prior.csv").read_text() == CASE["extra"]["csv"]


def test_the_file_of_the_reference_reads_back(tmp_path):
    path = _write(tmp_path, CASE["extra"]["csv"])
    np.testing.assert_array_equal(read_prior(path, NAMES), EXPECTED["avg2"])


def test_the_order_of_class_names_counts(tmp_path):
    path = _write(tmp_path, "Classes,avg_pred\ncat,0.25\ndog,0.5\n")
    np.testing.assert_array_equal(read_prior(path), [0.25, 0.5])
    np.testing.assert_array_equal(read_prior(path, ["dog", "cat"]), [0.5, 0.25])


def test_names_with_commas_quotes_and_accents_survive(tmp_path):
    names = ["cup, saucer", 'so-called "dog"', "café"]
    write_prior(tmp_path / "prior.csv", names, np.array([0.1, 0.2, 1e-9], np.float32))
    values = read_prior(tmp_path / "prior.csv", names)
    np.testing.assert_array_equal(values, np.array([0.1, 0.2, 1e-9], np.float32))


def test_the_byte_order_mark_of_a_spreadsheet_is_no_text(tmp_path):
    path = _write(tmp_path, "\ufeffClasses,avg_pred\ncat,0.25\n")
    np.testing.assert_array_equal(read_prior(path, ["cat"]), [0.25])


@pytest.mark.parametrize("text", ["1542867", "1542867,\n"])
def test_a_stray_last_line_is_left_out(tmp_path, text):
    path = _write(tmp_path, f"Classes,avg_pred\ncat,0.25\ndog,0.5\n{text}")
    np.testing.assert_array_equal(read_prior(path, ["cat", "dog"]), [0.25, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("class,prior\ncat,0.5\n", "header"),
        ("Classes,avg_pred\ncat\ndog,0.5\n", "line 2: .* got cat"),
        ("Classes,avg_pred\ncat,0.5\ndog,often\n", "line 3: .* got dog,often"),
        ("Classes,avg_pred\ncat,1.5\ndog,0.5\n", "line 2"),
        ("Classes,avg_pred\ncat,nan\ndog,0.5\n", "line 2"),
        ("Classes,avg_pred\ncat,0.5\ncat,0.5\n", "2 rows name only 1"),
        ("Classes,avg_pred\ncat,0.5\n", "1 classes for 2 .* such as .'dog'"),
        ("Classes,avg_pred\ncat,0.5\nowl,0.5\n", "unknown, such as .'owl'"),
    ],
)
def test_an_unusable_file_raises_and_says_why(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_prior(_write(tmp_path, text), ["cat", "dog"])


def test_a_missing_file_raises_and_says_what_writes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="class_prior, such as csl/coco:mode=ignore"):
        read_prior(tmp_path / "prior.csv")


def test_a_file_is_replaced_as_a_whole(tmp_path):
    for values in ([0.5, 0.25], [0.125, 0.75]):
        write_prior(tmp_path / "prior.csv", ["cat", "dog"], np.array(values, np.float32))
        np.testing.assert_array_equal(read_prior(tmp_path / "prior.csv"), values)
    assert [path.name for path in tmp_path.iterdir()] == ["prior.csv"]


def test_writing_another_number_of_values_than_names_raises(tmp_path):
    with pytest.raises(ValueError, match="2 values for 1 class names"):
        write_prior(tmp_path / "prior.csv", ["cat"], np.zeros(2, np.float32))


def test_writing_repeated_names_raises(tmp_path):
    with pytest.raises(ValueError, match="repeat"):
        write_prior(tmp_path / "prior.csv", ["cat", "cat"], np.zeros(2, np.float32))


def test_a_prior_for_a_loss_is_in_the_order_of_the_classes(tmp_path):
    path = _write(tmp_path, "Classes,avg_pred\ncat,0.25\ndog,0.5\n")
    np.testing.assert_array_equal(prior_csv(("dog", "cat"), path=str(path)), [0.5, 0.25])


@pytest.mark.parametrize("count", [3, 150])
def test_the_picture_takes_any_number_of_classes_and_any_values(tmp_path, count):
    names = ["a", "$b", *(f"c_{n}^" for n in range(count - 2))]
    values = np.linspace(0, 1, count, dtype=np.float32)
    draw_prior(tmp_path / "prior.png", names, values, np.zeros(count))
    assert (tmp_path / "prior.png").stat().st_size > 1000
