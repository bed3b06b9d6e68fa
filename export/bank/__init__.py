"""The memory bank: which patches of good parts to remember."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from lineward.export.bank.farthest_point import farthest_points, greatest_similarity
from lineward.export.bank.spherical_kmeans import two_level_kmeans
from lineward.runtime.errors import TrainingError

Rows = NDArray[np.float32]
Embeddings = Callable[[], Iterable[Rows]]
"""Gives, each time it is called, the unit patch embeddings of every image in turn, float32 [patches, dimensions]."""

METHODS = ("two-halves", "k-means", "k-centre", "random")
"""k-means half and farthest-point half (the default); each alone (k-centre is PatchCore's choice); a random sample."""

POOL_ROWS = 1 << 19
"""Patches held in memory at once: 320 MB at 153 dimensions."""


def build_bank(
    embeddings: Embeddings,
    images: int,
    patches: int,
    rows: int,
    method: str = "two-halves",
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Rows:
    """Choose the bank.

    While all patches fit the pool they are all considered. Beyond that, k-means sees an equal random sample of each
    image, and the farthest-point half sees the patches of each image that the centroids explain worst.

    Args:
        embeddings: gives the embeddings of all images, image by image, anew at each call.
        images: how many images there are.
        patches: patches of an image.
        rows: rows of the bank.
        method: one of `METHODS`.
        seed: seed of every random choice.
        progress: called with the rows chosen so far.

    Returns:
        Unit rows, float32 [rows, dimensions].

    Raises:
        TrainingError: the method is unknown, or there are fewer patches (or less room in the pool) than rows.
    """
    if method not in METHODS:
        raise TrainingError(f"{method}: no such bank method", do=f"choose {', '.join(METHODS)}")
    share = max(1, min(patches, POOL_ROWS // max(1, images)))
    if not 2 <= rows <= images * share:
        raise TrainingError(
            f"a bank of {rows} rows cannot be chosen from {images} images of {patches} patches",
            do=f"choose from 2 to {images * share} rows" + (", or pass more good images" if share == patches else ""),
        )
    rng = np.random.default_rng(seed)
    pool = _pool(embeddings, images * share, lambda e: _random_patches(e, share, rng))
    if method == "random":
        progress(rows)
        return pool[np.sort(rng.choice(len(pool), rows, replace=False))]
    if method == "k-centre":
        first = pool[rng.integers(len(pool))][np.newaxis]
        return np.concatenate([first, farthest_points(pool, first, rows - 1, lambda made: progress(1 + made))])
    centroids = two_level_kmeans(pool, rows if method == "k-means" else rows // 2, rng)
    progress(len(centroids))
    if method == "k-means":
        return centroids
    if share < patches:
        del pool  # two of them would not fit where one does
        pool = _pool(embeddings, images * share, lambda e: _worst_explained(e, centroids, share))
    tail = farthest_points(pool, centroids, rows - len(centroids), lambda made: progress(len(centroids) + made))
    return np.concatenate([centroids, tail])


def _pool(embeddings: Embeddings, rows: int, select: Callable[[Rows], Rows]) -> Rows:
    """The selected patches of every image, float32 [rows, dimensions]."""
    pool, filled = np.empty((0, 0), np.float32), 0
    for image in embeddings():
        chosen = select(image)
        if filled == 0:
            pool = np.empty((rows, chosen.shape[1]), np.float32)
        pool[filled : filled + len(chosen)] = chosen
        filled += len(chosen)
    return pool


def _random_patches(embeddings: Rows, share: int, rng: np.random.Generator) -> Rows:
    if share >= len(embeddings):
        return embeddings
    return embeddings[np.sort(rng.choice(len(embeddings), share, replace=False))]


def _worst_explained(embeddings: Rows, centroids: Rows, share: int) -> Rows:
    worst = np.argpartition(greatest_similarity(embeddings, centroids), share)[:share]
    return embeddings[np.sort(worst)]
