from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.engines import open_engine
from lineward.runtime.inspector import Inspector
from lineward.runtime.pipeline import AHEAD, in_order


@pytest.fixture(scope="module")
def inspectors(tiny) -> list[Inspector]:
    return [Inspector(tiny, open_engine(tiny, threads=1)) for _ in range(3)]


@given(st.lists(st.floats(0, 0.002), max_size=30), st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_results_come_in_the_order_of_the_items_however_long_each_takes(inspectors, seconds, workers):
    def work(_inspector: Inspector, item: tuple[int, float]) -> int:
        time.sleep(item[1])
        return item[0]

    assert list(in_order(inspectors[:workers], work, list(enumerate(seconds)))) == list(range(len(seconds)))


@pytest.mark.parametrize("workers", [1, 3])
def test_scores_and_maps_are_those_of_one_after_the_other_to_the_bit(tiny, inspectors, workers):
    """The single path uses every core for an image, the pipeline one."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (rng.integers(20, 90), rng.integers(20, 90), 3)).astype(np.uint8) for _ in range(40)]
    single = Inspector(tiny)
    found = in_order(inspectors[:workers], lambda inspector, frame: inspector.inspect(frame), frames)
    for frame, there in zip(frames, found, strict=True):
        here = single.inspect(frame)
        assert (here.score, here.verdict, here.reason) == (there.score, there.verdict, there.reason)
        np.testing.assert_array_equal(here.anomaly_map, there.anomaly_map)


def test_no_inspector_serves_two_items_at_once(inspectors):
    busy = {id(inspector): threading.Lock() for inspector in inspectors}
    rng = random.Random(0)

    def work(inspector: Inspector, item: int) -> int:
        assert busy[id(inspector)].acquire(blocking=False)
        time.sleep(rng.random() / 500)
        busy[id(inspector)].release()
        return item

    assert len(list(in_order(inspectors, work, range(100)))) == 100


def test_items_are_taken_only_as_results_are(inspectors):
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(10_000):
            taken += 1
            yield item

    results = in_order(inspectors, lambda _, item: item, items())
    for done in range(1, 50):
        next(results)
        assert taken <= done + AHEAD * len(inspectors)
    results.close()
    assert taken < 100


def test_an_error_comes_in_its_turn_and_ends_it(inspectors):
    begun = []

    def work(_inspector: Inspector, item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("the sixth")
        return item

    results = in_order(inspectors, work, range(1000))
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="the sixth"):
        next(results)
    assert len(begun) <= 5 + AHEAD * len(inspectors)


def test_nothing_is_nothing(inspectors):
    assert list(in_order(inspectors, lambda _, item: item, [])) == []
