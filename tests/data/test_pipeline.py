"""The pipeline: complete, reproducible, resumable, the same for any number of hosts and workers."""

import errno
import multiprocessing
import subprocess
import sys
import textwrap
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mljax.config.schema import Preprocessing
from mljax.data import pipeline
from mljax.data.augment.cutout import cutout
from mljax.data.augment.randaugment import randaugment
from mljax.data.pipeline import eval_batches, train_batches
from mljax.data.records import Records

PREPROCESSING = Preprocessing(image_size=6)
AUGMENT = (partial(cutout, factor=0.5), randaugment)


def _records(count, *, ignored=False):
    rng = np.random.default_rng(count)
    return Records(
        images=rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8),
        labels=rng.integers(-1, 2, (count, 3)).astype(np.int8),
        class_names=("a", "b", "c"),
        ignored=rng.random((count, 3)) < 0.5 if ignored else None,
    )


def _on_disk(folder, count):
    records = _records(count)
    paths = [str(folder / f"{number}.png") for number in range(count)]
    for path, pixels in zip(paths, records.images, strict=True):
        Image.fromarray(pixels).save(path)
    return Records(images=paths, labels=records.labels, class_names=records.class_names), records


def _train(records, steps, **kwargs):
    arguments = {"preprocessing": PREPROCESSING, "batch_size": 4, "seed": 3} | kwargs
    with train_batches(records, **arguments) as batches:
        return [next(batches) for _ in range(steps)]


def _eval(records, **kwargs):
    arguments = {"preprocessing": PREPROCESSING, "batch_size": 4} | kwargs
    with eval_batches(records, **arguments) as batches:
        return list(batches)


def _assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert list(one) == list(other)
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])


def _join(hosts):
    """Puts the hosts' rows of each step side by side."""
    return [
        {key: np.concatenate([batch[key] for batch in step]) for key in step[0]}
        for step in zip(*hosts, strict=True)
    ]


def test_train_batch_holds_the_fields_that_the_step_reads():
    (batch,) = _train(_records(9), 1)
    described = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert described == {
        "images": ((4, 6, 6, 3), "uint8"),
        "labels": ((4, 3), "float32"),
        "valid": ((4,), "bool"),
        "index": ((4,), "int32"),
    }


def test_rows_are_the_records_they_name():
    records = _records(5)
    for batch in _train(records, 3):
        np.testing.assert_array_equal(batch["images"], records.images[batch["index"]])
        np.testing.assert_array_equal(batch["labels"], records.labels[batch["index"]])
        assert batch["valid"].all()


def test_each_epoch_holds_each_record_once_across_batch_borders():
    order = np.concatenate([batch["index"] for batch in _train(_records(7), 7)])
    epochs = order.reshape(4, 7)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(7), (4, 1)))
    assert len({epoch.tobytes() for epoch in epochs}) > 1


def test_batch_may_be_larger_than_the_data_set():
    (batch,) = _train(_records(3), 1, batch_size=8)
    assert np.bincount(batch["index"]).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_training_is_reproducible_by_its_seed():
    records = _records(20)
    first, again, other = (_train(records, 5, augment=AUGMENT, seed=s) for s in (1, 1, 2))
    _assert_equal(first, again)
    assert any(np.any(a["index"] != b["index"]) for a, b in zip(first, other, strict=True))


def test_a_record_is_augmented_differently_in_each_epoch():
    batches = _train(_records(1), 8, batch_size=1, augment=AUGMENT)
    assert len({batch["images"].tobytes() for batch in batches}) > 4


@pytest.mark.parametrize("start_step", [1, 3, 1000])
def test_resumed_batches_are_those_of_the_uninterrupted_run(start_step):
    records = _records(10)
    if start_step == 1000:
        far = _train(records, 3, augment=AUGMENT, start_step=999)[1:]
        _assert_equal(far, _train(records, 2, augment=AUGMENT, start_step=1000))
        return
    straight = _train(records, 6, augment=AUGMENT)
    resumed = _train(records, 6 - start_step, augment=AUGMENT, start_step=start_step)
    _assert_equal(straight[start_step:], resumed)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_batches_of_a_single_host(hosts):
    records = _records(10)
    whole = _train(records, 4, augment=AUGMENT)
    parts = [
        _train(records, 4, augment=AUGMENT, process_index=p, process_count=hosts)
        for p in range(hosts)
    ]
    assert parts[0][0]["images"].shape[0] == 4 // hosts
    _assert_equal(whole, _join(parts))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 20), hosts=st.sampled_from([1, 2, 4]), rows=st.integers(1, 4))
def test_evaluation_reads_each_record_once_in_order_on_any_number_of_hosts(count, hosts, rows):
    records = _records(count, ignored=True)
    parts = [
        _eval(records, batch_size=rows * hosts, process_index=p, process_count=hosts)
        for p in range(hosts)
    ]
    batches = _join(parts)
    assert {batch["images"].shape for batch in batches} == {(rows * hosts, 6, 6, 3)}
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    assert len(joined["index"]) - count < rows * hosts
    np.testing.assert_array_equal(joined["valid"], np.arange(len(joined["index"])) < count)
    np.testing.assert_array_equal(joined["index"][:count], np.arange(count))
    np.testing.assert_array_equal(joined["labels"][:count], records.labels)
    np.testing.assert_array_equal(joined["ignored"][:count], records.ignored)


def test_padding_is_zeros_with_index_minus_one():
    *_, last = _eval(_records(5, ignored=True))
    assert last["index"].tolist() == [4, -1, -1, -1]
    assert last["valid"].tolist() == [True, False, False, False]
    assert not any(last[key][1:].any() for key in ("images", "labels", "ignored"))


def test_ignored_mask_is_for_evaluation_only():
    assert "ignored" in _eval(_records(4, ignored=True))[0]
    assert "ignored" not in _eval(_records(4))[0]
    assert "ignored" not in _train(_records(4, ignored=True), 1)[0]


def test_images_on_disk_and_in_memory_give_the_same_batches(tmp_path):
    on_disk, in_memory = _on_disk(tmp_path, 7)
    _assert_equal(_eval(on_disk), _eval(in_memory))
    _assert_equal(_train(on_disk, 4, augment=AUGMENT), _train(in_memory, 4, augment=AUGMENT))


def test_bad_image_stops_with_its_name(tmp_path):
    records, _ = _on_disk(tmp_path, 7)
    (tmp_path / "5.png").write_bytes(b"")
    for run in (lambda: _eval(records), lambda: _train(records, 3)):
        with pytest.raises(ValueError, match=r"5\.png: cannot be read as an image"):
            run()


def test_skipped_bad_image_is_an_invalid_row_of_zeros_that_keeps_its_index(tmp_path):
    records, _ = _on_disk(tmp_path, 7)
    (tmp_path / "5.png").write_bytes(b"")
    (tmp_path / "6.png").unlink()
    first, last = _eval(records, bad_images="skip")
    assert first["valid"].all()
    assert last["index"].tolist() == [4, 5, 6, -1]
    assert last["valid"].tolist() == [True, False, False, False]
    assert not last["images"][1:].any() and not last["labels"][1:].any()
    seen = _train(records, 7, bad_images="skip", augment=AUGMENT)
    assert {int(i) for batch in seen for i in batch["index"][~batch["valid"]]} == {5, 6}


def test_closed_batches_are_at_their_end():
    batches = train_batches(_records(4), preprocessing=PREPROCESSING, batch_size=2, seed=0)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []


def test_batches_that_reach_their_end_stay_there():
    batches = eval_batches(_records(3), preprocessing=PREPROCESSING, batch_size=2)
    assert len(list(batches)) == 2
    assert list(batches) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 3, "process_count": 2}, "batch_size: got 3, .* number of hosts, 2"),
        ({"process_index": 2, "process_count": 2}, "process_index: got 2, expected 0 to 1"),
        ({"num_workers": -1}, "num_workers: got -1"),
        ({"start_step": -1}, "start_step: got -1"),
        ({"bad_images": "ignore"}, "bad_images: got 'ignore', expected 'fail' or 'skip'"),
    ],
)
def test_impossible_arguments_are_refused(monkeypatch, arguments, message):
    with pytest.raises(ValueError, match=message):
        _train(_records(4), 1, **arguments)


@pytest.mark.parametrize(("files", "expected"), [(499, 0), (1000, 2), (9000, 3)])
def test_as_many_workers_as_cpus_if_there_are_files_enough(monkeypatch, files, expected):
    monkeypatch.setattr(pipeline.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    labels = np.zeros((files, 1), np.int8)
    records = Records(images=["a.jpg"] * files, labels=labels, class_names=("a",))
    assert pipeline._as_many_as_help(records) == expected
    pixels = np.zeros((files, 1, 1, 3), np.uint8)
    in_memory = Records(images=pixels, labels=labels, class_names=("a",))
    assert pipeline._as_many_as_help(in_memory) == 0


def test_two_workers_give_the_batches_of_none():
    records = _records(10)
    expected = _train(records, 5, augment=AUGMENT, start_step=2)
    _assert_equal(_train(records, 5, augment=AUGMENT, start_step=2, num_workers=2), expected)
    assert multiprocessing.active_children() == []


def test_worker_gives_the_batches_of_none_until_a_bad_image_stops_it_by_name(tmp_path):
    records, _ = _on_disk(tmp_path, 10)
    expected = _eval(records)
    (tmp_path / "9.png").write_bytes(b"")
    batches = eval_batches(records, preprocessing=PREPROCESSING, batch_size=4, num_workers=1)
    _assert_equal([next(batches), next(batches)], expected[:2])
    with pytest.raises(ValueError, match=r"9\.png: cannot be read as an image"):
        next(batches)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_unclosed_workers_leave_no_word_and_no_memory_at_exit(tmp_path):
    script = tmp_path / "unclosed.py"
    script.write_text(
        textwrap.dedent("""
        from mljax.config.schema import Preprocessing
        from mljax.data.readers.digits import digits
        from mljax.data.pipeline import eval_batches, train_batches

        if __name__ == "__main__":
            records, size = digits("val", num_images=20), Preprocessing(image_size=32)
            ended = list(eval_batches(records, preprocessing=size, batch_size=8, num_workers=1))
            train = train_batches(records, preprocessing=size, batch_size=8, seed=0, num_workers=1)
            print(len(ended), next(train)["images"].shape)
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 (8, 32, 32, 3)\n", "")


@pytest.mark.slow
def test_a_killed_worker_is_named():
    options = {"preprocessing": PREPROCESSING, "batch_size": 4, "seed": 3, "num_workers": 1}
    with train_batches(_records(20), **options) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(ChildProcessError, match="ended by SIGKILL") as error:
            for _ in range(20):
                next(batches)
    assert "data.num_workers=1" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Worker process was terminated unexpectedly with exit code -7. Search"),
    ],
)
def test_full_shared_memory_is_named_with_what_to_do(error):
    found = str(pipeline._of_workers(error, 3))
    for text in ("/dev/shm", "data.num_workers (3)", "--shm-size"):
        assert text in found


def test_other_errors_of_workers_stay_as_they_are():
    error = ValueError("a.jpg cannot be read")
    assert pipeline._of_workers(error, 2) is error
