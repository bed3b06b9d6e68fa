from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lineward.export.bank import farthest_point
from lineward.export.bank.farthest_point import farthest_points, greatest_similarity

Rows = NDArray[np.float32]

# Unit vectors with coordinates in quarters: their inner products are exact, in whatever order they are summed, and full
# of ties.
LATTICE = (
    np.array([v for v in itertools.product(range(-3, 4), repeat=5) if sum(x * x for x in v) == 16], np.float32) / 4
)


def reference(candidates: Rows, start: Rows, count: int) -> Rows:
    """Every candidate compared with every pick; of equally far ones, the first in order of first distance."""
    nearest = (candidates @ start.T).max(1)
    order = np.argsort(nearest, kind="stable")
    candidates, nearest = candidates[order], nearest[order]
    picks = []
    for _ in range(count):
        best = int(nearest.argmin())
        picks.append(candidates[best])
        nearest = np.maximum(nearest, candidates @ candidates[best])
        nearest[best] = np.inf
    return np.array(picks)


@settings(max_examples=150, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(LATTICE) - 1), min_size=2, max_size=80),
    starts=st.integers(1, 4),
    share=st.floats(0, 1),
    block=st.sampled_from([1, 2, 3, 7, 16384]),
)
def test_it_equals_the_plain_algorithm_however_few_are_awake(chosen: list[int], starts: int, share: float, block: int):
    rows = LATTICE[chosen]
    start, candidates = rows[:starts], rows[min(starts, len(rows) - 1) :]
    count = max(1, round(share * len(candidates)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(farthest_point, "_BLOCK", block)
        picks = farthest_points(candidates, start, count)
    np.testing.assert_array_equal(picks, reference(candidates, start, count))


def test_each_pick_is_the_farthest_of_all():
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(500, 8)).astype(np.float32)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(farthest_point, "_BLOCK", 32)
        picks = farthest_points(candidates, candidates[:1], 60)
    chosen = [candidates[0]]
    for pick in picks:
        nearest = (candidates @ np.array(chosen).T).max(1)
        assert (pick @ np.array(chosen).T).max() == pytest.approx(nearest.min(), abs=1e-6)
        chosen.append(pick)


def test_blocks_that_cannot_hold_the_next_pick_sleep_on(monkeypatch: pytest.MonkeyPatch):
    # 8 candidates far from the start and 92 on top of it: to pick the 8 nobody need look at the others.
    axes = np.eye(10, dtype=np.float32)
    candidates = np.concatenate([np.repeat(axes[:1], 92, axis=0), axes[1:9]])
    compared = []

    def spy(points: Rows, rows: Rows) -> NDArray[np.float32]:
        compared.append(len(points))
        return greatest_similarity(points, rows)

    monkeypatch.setattr(farthest_point, "_BLOCK", 10)
    monkeypatch.setattr(farthest_point, "greatest_similarity", spy)
    picks = farthest_points(candidates, axes[:1], 8)
    np.testing.assert_array_equal(picks, axes[1:9])
    assert compared == [100]


@pytest.mark.parametrize("block", [1, 4, 16384])
def test_duplicates_are_picked_only_when_nothing_else_is_left(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(farthest_point, "_BLOCK", block)
    axes = np.eye(4, dtype=np.float32)
    candidates = np.repeat(axes, 3, axis=0)
    picks = farthest_points(candidates, axes[:1], 12)
    assert {tuple(pick) for pick in picks[:3]} == {tuple(axis) for axis in axes[1:]}
    assert sorted(map(tuple, picks)) == sorted(map(tuple, candidates))


def test_no_row_is_picked_twice_though_it_rounds_below_itself():
    rng = np.random.default_rng(1)
    candidates = rng.normal(size=(64, 153)).astype(np.float32)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    picks = farthest_points(candidates, candidates[:1], 64)
    assert len({pick.tobytes() for pick in picks}) == 64


def test_progress_counts_the_picks():
    made: list[int] = []
    farthest_points(LATTICE, LATTICE[:1], 5, made.append)
    assert made == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("block", [1, 5, 16384])
def test_the_greatest_similarity(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(farthest_point, "_BLOCK", block)
    points, rows = LATTICE[::7], LATTICE[::31]
    expected = [max(float(np.dot(point, row)) for row in rows) for point in points]
    np.testing.assert_array_equal(greatest_similarity(points, rows), np.array(expected, np.float32))


@pytest.mark.parametrize("block", [4, 16384])
def test_picking_ends_where_all_are_near(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(farthest_point, "_BLOCK", block)
    candidates, start, until = LATTICE[::3], LATTICE[:2], 0.8
    everything = reference(candidates, start, len(candidates))
    picks = farthest_points(candidates, start, len(candidates), until=until)
    assert 0 < len(picks) < len(everything)
    np.testing.assert_array_equal(picks, everything[: len(picks)])
    assert greatest_similarity(candidates, np.concatenate([start, picks])).min() >= until
    assert greatest_similarity(picks[-1:], np.concatenate([start, picks[:-1]]))[0] < until
    assert len(farthest_points(candidates, start, 3, until=until)) == 3
