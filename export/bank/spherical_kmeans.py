"""Spherical k-means in two levels: centroids on the unit sphere that carry the common modes of good patches.

Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", 2001. A flat k-means of k
centroids costs k inner products a patch and round; clustering coarsely first and then inside each cluster costs about
2 sqrt(k), for the same coverage.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_POINTS_PER_CENTROID = 64
_ROUNDS = 8
_BLOCK = 16384


def two_level_kmeans(points: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Find `count` unit centroids.

    Args:
        points: unit rows, float32 [n, dimensions]; a sample of at most 64 for each centroid is used.
        count: centroids to find, at most n.
        rng: source of every random choice.

    Returns:
        float32 [count, dimensions], unit rows.

    Raises:
        ValueError: `count` is not from 1 to n.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} centroids cannot be found among {len(points)} points")
    points = _sample(points, count * _POINTS_PER_CENTROID, rng)
    coarse = math.isqrt(count)
    if coarse < 2:
        return spherical_kmeans(points, count, rng)
    labels = _assign(points, spherical_kmeans(points, coarse, rng))
    sizes = np.bincount(labels, minlength=coarse)
    return np.concatenate(
        [
            spherical_kmeans(points[labels == cluster], share, rng)
            for cluster, share in enumerate(_shares(sizes, count))
            if share > 0
        ]
    )


def spherical_kmeans(points: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Find `count` unit centroids of unit points by Lloyd's rounds, all centroids at once."""
    centroids = points[rng.choice(len(points), count, replace=False)]
    for _ in range(_ROUNDS):
        labels = _assign(points, centroids)
        sums = _sums(points, labels, count)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        # An empty cluster starts again at a random point.
        fresh = points[rng.integers(len(points), size=count)]
        centroids = np.where(norms > 1e-6, sums / np.maximum(norms, 1e-6), fresh)
    return centroids


def _sums(points: Rows, labels: NDArray[np.intp], count: int) -> Rows:
    """The sum of the points of each label, float32 [count, dimensions]."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((count, points.shape[1]), np.float32)
    sums[present] = np.add.reduceat(points[order], starts)
    return sums


def _assign(points: Rows, centroids: Rows) -> NDArray[np.intp]:
    blocks = range(0, len(points), _BLOCK)
    return np.concatenate([(points[i : i + _BLOCK] @ centroids.T).argmax(1) for i in blocks])


def _sample(points: Rows, count: int, rng: np.random.Generator) -> Rows:
    return points if len(points) <= count else points[np.sort(rng.choice(len(points), count, replace=False))]


def _shares(sizes: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Split `count` in proportion to the sizes, none above its size, by largest remainders."""
    exact = sizes * (count / sizes.sum())
    shares: NDArray[np.intp] = np.minimum(np.floor(exact).astype(np.intp), sizes)
    while (left := count - int(shares.sum())) > 0:
        room = np.where(shares < sizes, exact - shares, -np.inf)
        best = np.argsort(-room, kind="stable")[:left]
        shares[best[shares[best] < sizes[best]]] += 1
    return shares
