"""Many images over all cores, in order and in constant memory: throughput, where a line wants latency.

An image on one core and the next on another leave no core waiting for another, as threads that share an image do. Each
inspector decodes, embeds and scores its own image, so decoding runs beside scoring as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from lineward.runtime.inspector import Inspector

AHEAD = 4
"""Images begun and not yet taken, for each inspector: enough to keep one busy while a slow image is waited for."""

S = TypeVar("S")
T = TypeVar("T")


def in_order(inspectors: Sequence[Inspector], work: Callable[[Inspector, S], T], items: Iterable[S]) -> Iterator[T]:
    """Do the work of each item with an inspector that is free.

    Args:
        inspectors: each serves one item at a time, on a thread of its own.
        work: is called on that thread.
        items: taken one by one, at most `AHEAD` for each inspector before their results are.

    Yields:
        The results, in the order of the items.

    Raises:
        Exception: what the work of an item raises, in its turn; what was not begun by then is not.
    """
    free: SimpleQueue[Inspector] = SimpleQueue()
    for inspector in inspectors:
        free.put(inspector)

    def serve(item: S) -> T:
        inspector = free.get()
        try:
            return work(inspector, item)
        finally:
            free.put(inspector)

    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(len(inspectors), "inspect") as pool:
        try:
            for item in items:
                pending.append(pool.submit(serve, item))
                if len(pending) == AHEAD * len(inspectors):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
