"""PatchCore: the distance to the nearest patch of a greedily chosen memory bank.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.measure import Scores
from lineward.export.training import Progress

Rows = NDArray[np.float32]

NEIGHBOURS = 9
"""Neighbours of a bank row that the re-weighting looks at, itself among them: b of eq. 7, 9 as in anomalib."""

_AWAKE = 4096


@dataclass(frozen=True)
class PatchCore:
    """PatchCore on the shared features, with a bank of a given number of rows.

    Nothing is approximated: the paper selects rows by their distances after a random projection (Algorithm 1), here
    they are selected by the distances themselves, from a random first patch. Bank and scores need little memory of
    their own, since the features stay in their file: about 20 MB at 152 channels.

    Attributes:
        rows: of the bank.
        reweighted: whether the greatest patch distance of an image is re-weighted (eq. 7) to give its score. The paper
            defines it so, while the code published with it takes the greatest distance as it is, the default here.
            At distances in the tens, as between these features, it changes next to nothing.
    """

    rows: int = 4096
    reweighted: bool = False

    def __call__(self, material: Material, seed: int, progress: Progress) -> Scores:
        """See `System`.

        Raises:
            ValueError: there are fewer patches than rows.
        """
        train, test = material.train.features, material.test.features
        candidates = train.reshape(-1, train.shape[-1])
        with progress.step("choose the bank", self.rows) as advance:
            bank = np.asarray(candidates[k_centre(candidates, self.rows, np.random.default_rng(seed), advance)])
        images, patches = np.empty(len(test)), np.empty(test.shape[:2], np.float32)
        with progress.step("score test images", len(test)) as advance:
            for i, image in enumerate(test):
                nearest, patches[i] = pairwise_distances_argmin_min(image, bank)
                worst = patches[i].argmax()
                images[i] = patches[i, worst] * (weight(image[worst], nearest[worst], bank) if self.reweighted else 1)
                advance(i + 1)
        side = material.setting.side
        return Scores(images, patches.reshape(-1, side, side))


def k_centre(
    points: Rows, count: int, rng: np.random.Generator, progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.intp]:
    """Choose points greedily, each the farthest in Euclidean distance from those before it, the first at random.

    The result is exact, though most points are seldom compared: a point's distance only falls as picks are added, so
    while the farthest of a few awake points is farther than each of the others was when they were last compared, it is
    the farthest of all. When it no longer is, all points are compared with the new picks at once, and the farthest
    wake.

    Args:
        points: float32 [n, dimensions].
        count: points to choose.
        rng: chooses the first.
        progress: called with the points chosen so far.

    Returns:
        Their indices, no two alike, intp [count], in the order chosen.

    Raises:
        ValueError: there are fewer points.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} of {len(points)} patches cannot be chosen")
    picks = np.empty(count, np.intp)
    picks[0] = rng.integers(len(points))
    distances = np.full(len(points), np.inf, np.float32)
    compared, made = 0, 1
    progress(made)
    while made < count:
        new = points[picks[compared:made]]
        np.minimum(distances, pairwise_distances_argmin_min(points, new)[1], out=distances)
        distances[picks[:made]] = -np.inf
        compared = made
        awake, sleeping = _farthest(distances)
        for pick in _picks(points[awake], distances[awake], sleeping, count - made):
            picks[made] = awake[pick]
            made += 1
            progress(made)
    return picks


def weight(patch: Rows, nearest: int, bank: Rows) -> float:
    """The factor of a patch's distance in eq. 7, from 0 to 1: the greater, the less lonely its nearest row is.

    It is 1 - exp(s) / sum(exp(d)), where d are the distances of the patch to the `NEIGHBOURS` rows nearest to its
    nearest row, that row itself among them, and s is the least of them. anomalib computes the same.

    Args:
        patch: float32 [dimensions].
        nearest: index of the row nearest to it.
        bank: float32 [rows, dimensions].
    """
    around = np.linalg.norm(bank - bank[nearest], axis=1)
    distances = np.linalg.norm(bank[np.argsort(around, kind="stable")[:NEIGHBOURS]] - patch, axis=1)
    exponentials = np.exp(distances - distances.max())
    return float(1 - exponentials.min() / exponentials.sum())


def _farthest(distances: NDArray[np.float32]) -> tuple[NDArray[np.intp], float]:
    """The farthest points, which wake, and the greatest distance of the others."""
    if len(distances) <= _AWAKE:
        return np.arange(len(distances)), -np.inf
    order = np.argpartition(distances, -_AWAKE)
    return order[-_AWAKE:], float(distances[order[:-_AWAKE]].max())


def _picks(points: Rows, distances: NDArray[np.float32], sleeping: float, most: int) -> list[int]:
    """Pick greedily among the awake points while none that sleeps can be farther."""
    picks: list[int] = []
    while len(picks) < most and distances[farthest := int(distances.argmax())] >= sleeping:
        picks.append(farthest)
        np.minimum(distances, np.linalg.norm(points - points[farthest], axis=1), out=distances)
        distances[farthest] = -np.inf  # never twice
    return picks
