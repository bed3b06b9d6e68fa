"""Farthest-point selection: each pick is the patch least like all picks before it.

It is the greedy 2-approximation of the k-centre problem (Gonzalez, 1985) that PatchCore calls its coreset. Started from
centroids, it adds the rare normal patches that centroids smear out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_BLOCK = 16384


def farthest_points(
    candidates: Rows,
    start: Rows,
    count: int,
    *,
    origins: NDArray[np.intp] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Rows:
    """Pick `count` candidates, each the farthest in cosine from the start and the picks before it.

    The result is exact, though most candidates are never compared: a candidate's distance only falls as picks are
    added, so one that began nearer than the farthest of the others is now cannot be the next pick. Candidates are
    therefore woken in blocks, farthest first, when their turn may come.

    Where origins are given, a pick needs support: a candidate of another image must be nearer to it than all rows
    chosen so far are, one that the start explains no better than those rows explain the pick. What a single image shows
    is a slipped-in defect more often than a rare look of a good part. Should support run out, the refused ones
    follow, the last and so the least unusual first.

    Args:
        candidates: unit rows, float32 [n, dimensions].
        start: unit rows already chosen, float32 [m, dimensions], m >= 1.
        count: picks to make, at most n.
        origins: image of each candidate, [n]; no support is needed without, or where all are of one image.
        progress: called with the picks made so far.

    Returns:
        float32 [count, dimensions], in the order picked.
    """
    field = _Candidates(candidates, greatest_similarity(candidates, start), origins)
    picks = np.empty((count, candidates.shape[1]), np.float32)
    refused: list[int] = []
    made = 0
    while made < count:
        best = field.farthest(picks[:made])
        if field.exhausted(best):
            picks[made:] = field.pool[refused[: made - count - 1 : -1]]
            progress(count)
            break
        similarity = field.pool @ field.pool[best]
        if field.supported(best, similarity):
            picks[made] = field.pool[best]
            made += 1
            np.maximum(field.nearest, similarity, out=field.nearest)
            progress(made)
        else:
            refused.append(best)
        field.nearest[best] = np.inf  # never again, even where a row's product with itself rounds below another's
    return picks


class _Candidates:
    """Candidates in the order of their similarity to the start, of which only the first, the farthest, are awake.

    Attributes:
        pool: those awake.
        nearest: greatest similarity of each with the start and all picks; infinite once it is picked or refused.
    """

    def __init__(self, candidates: Rows, to_start: NDArray[np.float32], origins: NDArray[np.intp] | None) -> None:
        self._candidates = candidates
        self._order = np.argsort(to_start, kind="stable")
        self._to_start = to_start[self._order]
        several = origins is not None and bool((origins != origins[0]).any())
        self._origins = origins[self._order] if origins is not None and several else None
        self.pool = candidates[self._order[:_BLOCK]]
        self.nearest = self._to_start[:_BLOCK].copy()

    def farthest(self, picks: Rows) -> int:
        """The awake candidate to consider next, after waking those that may be farther."""
        best = int(self.nearest.argmin())
        while (awake := len(self.pool)) < len(self._order) and self._to_start[awake] <= self.nearest[best]:
            block = self._candidates[self._order[awake : awake + _BLOCK]]
            nearest = self._to_start[awake : awake + _BLOCK]
            if len(picks):
                nearest = np.maximum(nearest, greatest_similarity(block, picks))
            self.pool = np.concatenate([self.pool, block])
            self.nearest = np.concatenate([self.nearest, nearest])
            best = int(self.nearest.argmin())
        return best

    def exhausted(self, best: int) -> bool:
        """Whether even the farthest is picked or refused, and so all are."""
        return bool(np.isinf(self.nearest[best]))

    def supported(self, best: int, similarity: NDArray[np.float32]) -> bool:
        """Whether another image shows what this candidate does, given its similarity with those awake."""
        if self._origins is None:
            return True
        unexplained = self._to_start[: len(self.pool)] <= self.nearest[best]
        others = self._origins[: len(self.pool)] != self._origins[best]
        return bool((others & unexplained & (similarity > self.nearest[best])).any())


def greatest_similarity(points: Rows, rows: Rows) -> NDArray[np.float32]:
    """Greatest cosine of each unit point, float32 [n], with unit rows."""
    blocks = range(0, len(points), _BLOCK)
    return np.concatenate([(points[i : i + _BLOCK] @ rows.T).max(1) for i in blocks])
