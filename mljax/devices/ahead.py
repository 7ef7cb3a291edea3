"""Work begun before its result is needed, so that devices do not wait for the host."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def begin_ahead(items: Iterable[T], begin: Callable[[T], R], count: int) -> Iterator[tuple[T, R]]:
    """Yields each item with what `begin` returned for it, `count` items ahead.

    JAX returns before a transfer or a program is done. While the caller waits for the result of one
    item, the devices have the next ones already.

    Args:
      items: such as batches.
      begin: called with each item, in order.
      count: how many items are begun beyond the one that is yielded.

    Raises:
      Exception: of the items or of `begin`, after the items before it were yielded, as if none were
        read ahead.
    """
    items, begun = iter(items), collections.deque()
    end: Exception | None = None
    while True:
        while end is None and len(begun) <= count:
            try:
                item = next(items)
                begun.append((item, begin(item)))
            except Exception as error:
                end = error
        if not begun:
            break
        yield begun.popleft()
    if end is not None and not isinstance(end, StopIteration):
        raise end
