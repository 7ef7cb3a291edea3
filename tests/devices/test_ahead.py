"""What is begun ahead, in which order, and when its errors are raised."""

import pytest

from mljax.devices.ahead import begin_ahead


def _steps(items, count, log):
    def read():
        for item in items:
            if isinstance(item, Exception):
                raise item
            log.append(f"begin {item}")
            yield item

    for item, begun in begin_ahead(read(), lambda item: 10 * item, count):
        assert begun == 10 * item
        log.append(f"end {item}")


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_items_come_in_order_and_so_many_are_begun_before_one_ends(count):
    log = []
    _steps(range(6), count, log)
    assert [line for line in log if line.startswith("end")] == [f"end {n}" for n in range(6)]
    for n in range(6):
        begun = [line for line in log[: log.index(f"end {n}")] if line.startswith("begin")]
        assert len(begun) == min(n + 1 + count, 6)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_an_error_comes_after_what_was_before_it(place):
    items, error, log = list(range(6)), OSError("a.jpg"), []
    items[place] = error
    with pytest.raises(OSError) as raised:
        _steps(items, 2, log)
    assert raised.value is error
    assert [line for line in log if line.startswith("end")] == [f"end {n}" for n in range(place)]


def test_an_error_of_the_beginning_waits_too():
    ahead = begin_ahead([2, 1, 0], lambda n: 1 / n, 2)
    assert [next(ahead), next(ahead)] == [(2, 0.5), (1, 1.0)]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_nothing_of_nothing():
    assert list(begin_ahead([], str, 2)) == []
