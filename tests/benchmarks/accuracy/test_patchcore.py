from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from benchmarks.accuracy.material import Images, Material, Setting
from benchmarks.accuracy.systems import patchcore
from benchmarks.accuracy.systems.patchcore import PatchCore, k_centre, weight
from lineward.export.datasets import Sample
from lineward.export.training import Advance

Features = NDArray[np.float32]
SETTING = Setting(size=32, levels=(8,))


class Recorder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def step(self, name: str, total: int) -> Iterator[Advance]:
        told = self.told.setdefault(name, [])
        yield told.append
        assert told[-1] == total


def material(train: Features, test: Features, setting: Setting = SETTING) -> Material:
    """Images of which only the features, float32 [N, patches, channels], are known."""

    def images(features: Features) -> Images:
        samples = tuple(Sample(Path(f"{i}.png"), "good") for i in range(len(features)))
        return Images(samples, np.empty((len(features), 0, 0, 3), np.uint8), features)

    return Material("made up", setting, images(train), images(test))


def features(images: int, channels: int = 6, seed: int = 0, setting: Setting = SETTING) -> Features:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, setting.side**2, channels)).astype(np.float32)


def distance(one: Features, other: Features) -> float:
    return math.dist(one.tolist(), other.tolist())


def plain_k_centre(points: Features, count: int, first: int) -> list[int]:
    """Every point compared with every pick, in float64."""
    picks = [first]
    while len(picks) < count:
        nearest = [-1.0 if i in picks else min(distance(p, points[j]) for j in picks) for i, p in enumerate(points)]
        picks.append(int(np.argmax(nearest)))
    return picks


def first_of(count: int, seed: int = 0) -> int:
    return int(np.random.default_rng(seed).integers(count))


# Small integers have exact distances, full of ties, so that any farthest point may be picked.
@settings(max_examples=60, deadline=None)
@given(
    points=arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(-3, 3)),
    share=st.floats(0, 1),
    awake=st.sampled_from([1, 2, 3, 7, 4096]),
    seed=st.integers(0, 9),
)
def test_each_pick_is_a_farthest_point_and_none_is_picked_twice(points: Features, share: float, awake: int, seed: int):
    count = max(1, round(share * len(points)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patchcore, "_AWAKE", awake)
        picks = k_centre(points, count, np.random.default_rng(seed)).tolist()
    assert len(set(picks)) == len(picks) == count
    assert picks[0] == first_of(len(points), seed)
    between = np.linalg.norm(points[:, np.newaxis] - points, axis=2)
    for made in range(1, count):
        nearest = between[:, picks[:made]].min(1)
        assert nearest[picks[made]] == nearest.max()


# Far from the origin, |x|^2 + |y|^2 - 2 x.y in float32 would leave nothing of the distances.
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("awake", [5, 4096])
def test_it_equals_the_plain_algorithm_wherever_the_points_lie(
    monkeypatch: pytest.MonkeyPatch, offset: float, awake: int
):
    monkeypatch.setattr(patchcore, "_AWAKE", awake)
    points = features(8)[..., :5].reshape(-1, 5) + np.float32(offset)
    assert k_centre(points, 30, np.random.default_rng(0)).tolist() == plain_k_centre(points, 30, first_of(len(points)))


def test_the_others_sleep_while_the_farthest_are_awake(monkeypatch: pytest.MonkeyPatch):
    # 8 points far from all others, which are on top of each other: they are found in two comparisons of all points.
    compared: list[int] = []

    def spy(points: Features, rows: Features):
        compared.append(len(rows))
        return original(points, rows)

    original = patchcore.pairwise_distances_argmin_min
    monkeypatch.setattr(patchcore, "_AWAKE", 10)
    monkeypatch.setattr(patchcore, "pairwise_distances_argmin_min", spy)
    points = np.concatenate([np.zeros((92, 8), np.float32), np.diag(np.arange(8, 16)).astype(np.float32)])
    rng = np.random.default_rng(0)
    assert sorted(k_centre(points, 9, rng)[1:]) == list(range(92, 100))
    assert compared == [1]


@pytest.mark.parametrize("count", [0, 97])
def test_no_more_than_there_are_can_be_chosen(count: int):
    with pytest.raises(ValueError, match=f"{count} of 96"):
        k_centre(features(6).reshape(96, -1), count, np.random.default_rng(0))


def plain_score(image: Features, bank: Features) -> tuple[list[float], float, float]:
    """Distances of an image's patches, its score, and its score re-weighted (eq. 7), written out."""
    distances = [min(distance(patch, row) for row in bank) for patch in image]
    worst = int(np.argmax(distances))
    nearest = min(bank, key=lambda row: distance(image[worst], row))
    neighbours = sorted(bank, key=lambda row: distance(nearest, row))[:9]
    total = sum(math.exp(distance(image[worst], row)) for row in neighbours)
    score = max(distances)
    return distances, score, (1 - math.exp(score) / total) * score


@pytest.mark.parametrize("rows", [1, 4, 9, 40])
def test_scores_equal_those_written_out(rows: int):
    train, test = features(4), features(3, seed=1) * 2
    points = train.reshape(-1, 6)
    bank = points[plain_k_centre(points, rows, first_of(len(points)))]
    expected = [plain_score(image, bank) for image in test]
    plain = PatchCore(rows)(material(train, test), 0, Recorder())
    weighted = PatchCore(rows, reweighted=True)(material(train, test), 0, Recorder())
    assert plain.patches.shape == (3, 4, 4)
    assert plain.patches.dtype == np.float32
    np.testing.assert_allclose(plain.patches.reshape(3, 16), [patches for patches, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(plain.images, [score for _, score, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(weighted.images, [score for _, _, score in expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weighted.patches, plain.patches)


def test_a_row_with_near_neighbours_weighs_more_than_a_lonely_one():
    bank = np.concatenate([np.zeros((9, 2)), np.full((1, 2), 50.0)]).astype(np.float32)
    crowded, lonely = (weight(bank[i] + np.float32(1), i, bank) for i in (0, 9))
    assert crowded == pytest.approx(8 / 9)
    assert lonely == pytest.approx(1)  # as eq. 7 has it: its other neighbours are far, and so take all of the sum


def test_distances_in_the_hundreds_do_not_overflow():
    bank = np.array([[0], [1000], [3000]], np.float32)
    assert weight(np.array([-2000], np.float32), 0, bank) == 1


def test_what_was_seen_scores_nothing_when_all_of_it_is_remembered():
    train = features(2)
    scores = PatchCore(32)(material(train, train), 0, Recorder())
    np.testing.assert_allclose(scores.images, 0, atol=1e-5)


def test_a_seed_fixes_the_scores():
    given = material(features(4), features(3, seed=1))
    one, same, other = (PatchCore(8)(given, seed, Recorder()).patches for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_progress_counts_rows_and_images():
    recorder = Recorder()
    PatchCore(5)(material(features(2), features(3)), 0, recorder)
    assert recorder.told == {"choose the bank": [1, 2, 3, 4, 5], "score test images": [1, 2, 3]}
