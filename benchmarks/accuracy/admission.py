"""An admission rule for the farthest-point half of the bank that was tried, and is not in the product: support.

A pick is admitted only if another image shows it too, so that what a single image shows, a slipped-in defect perhaps,
does not enter the bank. `python -m benchmarks.accuracy.outliers` says what it wins and costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.measure import Scores
from benchmarks.accuracy.systems import System
from benchmarks.accuracy.systems.lineward import Lineward
from lineward.export import bank
from lineward.export.bank.farthest_point import greatest_similarity
from lineward.export.training import Progress

Rows = NDArray[np.float32]

_BLOCK = 16384


@dataclass(frozen=True)
class WithSupport:
    """Lineward with one rule more; the product's own code runs, but for the choice of the farthest points."""

    system: System = field(default_factory=Lineward)

    def __call__(self, material: Material, seed: int, progress: Progress) -> Scores:
        """See `System`; raises what Lineward raises."""
        patches = material.setting.side**2

        def pick(candidates: Rows, start: Rows, count: int, progress: Callable[[int], None]) -> Rows:
            # The pool holds the patches of image after image, all of them while they fit.
            return supported_points(candidates, start, count, np.arange(len(candidates)) // patches, progress)

        with mock.patch.object(bank, "farthest_points", pick):
            return self.system(material, seed, progress)


def supported_points(
    candidates: Rows,
    start: Rows,
    count: int,
    origins: NDArray[np.intp],
    progress: Callable[[int], None] = lambda _: None,
) -> Rows:
    """As `farthest_points`, but a pick needs support.

    A candidate of another image must be nearer to it than all rows chosen so far are, one that the start explains no
    better than those rows explain the pick. Should support run out, the refused ones follow, the last and so the least
    unusual first.

    Args:
        candidates: unit rows, float32 [n, dimensions].
        start: unit rows already chosen, float32 [m, dimensions], m >= 1.
        count: picks to make, at most n.
        origins: image of each candidate, [n].
        progress: called with the picks made so far.

    Returns:
        float32 [count, dimensions], in the order picked.
    """
    pool = _Candidates(candidates, greatest_similarity(candidates, start), origins)
    picks = np.empty((count, candidates.shape[1]), np.float32)
    refused: list[int] = []
    made = 0
    while made < count:
        best = pool.farthest(picks[:made])
        if pool.exhausted(best):
            picks[made:] = pool.rows[refused[: made - count - 1 : -1]]
            progress(count)
            break
        similarity = pool.rows @ pool.rows[best]
        if pool.supported(best, similarity):
            picks[made] = pool.rows[best]
            made += 1
            np.maximum(pool.nearest, similarity, out=pool.nearest)
            progress(made)
        else:
            refused.append(best)
        pool.nearest[best] = np.inf  # never again, even where a row's product with itself rounds below another's
    return picks


class _Candidates:
    """Candidates in the order of their similarity to the start, of which only the first, the farthest, are awake.

    Attributes:
        rows: those awake.
        nearest: greatest similarity of each with the start and all picks; infinite once it is picked or refused.
    """

    def __init__(self, candidates: Rows, to_start: NDArray[np.float32], origins: NDArray[np.intp]) -> None:
        self._candidates = candidates
        self._order = np.argsort(to_start, kind="stable")
        self._to_start = to_start[self._order]
        self._origins = origins[self._order]
        self.rows = candidates[self._order[:_BLOCK]]
        self.nearest = self._to_start[:_BLOCK].copy()

    def farthest(self, picks: Rows) -> int:
        """The awake candidate to consider next, after waking those that may be farther."""
        best = int(self.nearest.argmin())
        while (awake := len(self.rows)) < len(self._order) and self._to_start[awake] <= self.nearest[best]:
            block = self._candidates[self._order[awake : awake + _BLOCK]]
            nearest = self._to_start[awake : awake + _BLOCK]
            if len(picks):
                nearest = np.maximum(nearest, greatest_similarity(block, picks))
            self.rows = np.concatenate([self.rows, block])
            self.nearest = np.concatenate([self.nearest, nearest])
            best = int(self.nearest.argmin())
        return best

    def exhausted(self, best: int) -> bool:
        """Whether even the farthest is picked or refused, and so all are."""
        return bool(np.isinf(self.nearest[best]))

    def supported(self, best: int, similarity: NDArray[np.float32]) -> bool:
        """Whether another image shows what this candidate does, given its similarity with those awake."""
        unexplained = self._to_start[: len(self.rows)] <= self.nearest[best]
        others = self._origins[: len(self.rows)] != self._origins[best]
        return bool((others & unexplained & (similarity > self.nearest[best])).any())
