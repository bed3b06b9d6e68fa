"""Farthest-point selection: each pick is the patch least like all picks before it.

It is the greedy 2-approximation of the k-centre problem (Gonzalez, 1985) that PatchCore calls its coreset. Started from
centroids, it adds the rare normal patches that centroids smear out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_BLOCK = 16384


def farthest_points(
    candidates: Rows,
    start: Rows,
    count: int,
    progress: Callable[[int], None] = lambda _: None,
    until: float = math.inf,
) -> Rows:
    """Pick `count` candidates, each the farthest in cosine from the start and the picks before it.

    The result is exact, though most candidates are never compared: a candidate's distance only falls as picks are
    added, so one that began nearer than the farthest of the others is now cannot be the next pick. Candidates are
    therefore woken in blocks, farthest first, when their turn may come.

    Args:
        candidates: unit rows, float32 [n, dimensions].
        start: unit rows already chosen, float32 [m, dimensions], m >= 1.
        count: picks to make, at most n.
        progress: called with the picks made so far.
        until: picking ends early where no candidate is left that is less similar than this to all rows.

    Returns:
        float32 [count, dimensions], in the order picked; fewer rows where `until` ended it.
    """
    similarity = greatest_similarity(candidates, start)
    order = np.argsort(similarity, kind="stable")
    sleeping = similarity[order]
    picks = np.empty((count, candidates.shape[1]), np.float32)
    awake = _BLOCK
    pool, nearest = candidates[order[:awake]], sleeping[:awake].copy()
    for made in range(count):
        best = int(nearest.argmin())
        while awake < len(order) and sleeping[awake] <= nearest[best]:
            block = candidates[order[awake : awake + _BLOCK]]
            known = sleeping[awake : awake + _BLOCK]
            if made:
                known = np.maximum(known, greatest_similarity(block, picks[:made]))
            pool, nearest = np.concatenate([pool, block]), np.concatenate([nearest, known])
            awake += _BLOCK
            best = int(nearest.argmin())
        if nearest[best] >= until:
            return picks[:made]
        picks[made] = pool[best]
        np.maximum(nearest, pool @ pool[best], out=nearest)
        nearest[best] = np.inf  # never twice, even where a row's product with itself rounds below another's
        progress(made + 1)
    return picks


def greatest_similarity(points: Rows, rows: Rows) -> NDArray[np.float32]:
    """Greatest cosine of each unit point, float32 [n], with unit rows."""
    blocks = range(0, len(points), _BLOCK)
    return np.concatenate([(points[i : i + _BLOCK] @ rows.T).max(1) for i in blocks])
