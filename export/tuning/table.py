"""The table of candidates, and what is chosen from it for a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lineward.export.conversion import FLOAT32
from lineward.runtime.errors import BenchError

_CLEARLY = 0.9
"""A candidate is not timed in full where one at least as accurate takes less than this share of its median."""


@dataclass(frozen=True)
class Graph:
    """An embedding graph that is searched over; its embeddings serve every bank.

    Attributes:
        size: side of the square input, in pixels.
        precision: see `conversion.PRECISIONS`.
        dimensions: kept by the whitening; None for all.
    """

    size: int
    precision: str = FLOAT32
    dimensions: int | None = None

    @property
    def name(self) -> str:
        """In words, but for what is nothing special."""
        precision = [self.precision] * (self.precision != FLOAT32)
        kept = [f"{self.dimensions} dimensions"] * (self.dimensions is not None)
        return ", ".join([f"{self.size} pixels", *precision, *kept])


@dataclass(frozen=True)
class Candidate:
    """What is searched over.

    Attributes:
        graph: gives the embeddings.
        rows: rows of the memory bank.
    """

    graph: Graph
    rows: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.graph.name}, {self.rows} rows"


def file_stem(of: Graph | Candidate) -> str:
    """What its files are called."""
    return of.name.replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Accuracy:
    """How well a candidate tells good from defective.

    Attributes:
        image_auroc: of the image scores.
        pixel_auroc: of the anomaly maps; None where no defect has a mask.
    """

    image_auroc: float
    pixel_auroc: float | None

    @property
    def score(self) -> float:
        """What candidates are ranked by: the mean of both, so that maps still rank where every image is told apart."""
        return self.image_auroc if self.pixel_auroc is None else (self.image_auroc + self.pixel_auroc) / 2


@dataclass(frozen=True)
class Timing:
    """How long a candidate takes from trigger to verdict on this device, in seconds.

    Attributes:
        p50: the least median of a few short runs: that of the least disturbed one.
        p99: percentile 99 of each window; empty where the candidate was not worth timing in full.
    """

    p50: float
    p99: tuple[float, ...] = ()

    @property
    def bound(self) -> float | None:
        """The greatest p99 of all windows.

        Of n + 1 windows that are alike, the last has the greatest p99 with probability 1 / (n + 1): a further window
        stays within the greatest of nine in 9 of 10 runs. Vovk, Gammerman and Shafer, "Algorithmic Learning in a
        Random World" (2005), section 2.2.
        """
        return max(self.p99, default=None)


@dataclass(frozen=True)
class Row:
    """A candidate with what was found of it."""

    candidate: Candidate
    accuracy: Accuracy
    timing: Timing


def worth_timing(probed: Iterable[Row]) -> list[Candidate]:
    """The candidates that some budget may choose: none at least as accurate is clearly faster in the short run."""
    rows = list(probed)
    return [row.candidate for row in rows if not any(_clearly_better(other, row) for other in rows)]


def pareto_front(table: Iterable[Row]) -> list[Row]:
    """The rows that no other beats in accuracy and time at once, fastest first; of equals one."""
    front: list[Row] = []
    for row in sorted(_timed(table), key=lambda row: (_bound(row), -row.accuracy.score)):
        if not front or row.accuracy.score > front[-1].accuracy.score:
            front.append(row)
    return front


def choose(table: Iterable[Row], budget: float) -> Row:
    """The most accurate row whose p99 stays within the budget, in seconds; of equals the fastest.

    The choice is the greatest of a set that only grows with the budget, so a larger one never gives a worse score.

    Raises:
        BenchError: no candidate fits.
    """
    front = pareto_front(table)
    fitting = [row for row in front if _bound(row) <= budget]
    if fitting:
        return fitting[-1]
    fastest = front[0]
    needed = math.ceil(_bound(fastest) * 1e4) / 10  # never rounded down: it is what to ask for
    raise BenchError(
        f"nothing fits into {budget * 1e3:g} ms: the fastest candidate, {fastest.candidate.name}, takes up to "
        f"{needed:.1f} ms (p99)",
        do=f"allow {needed:.1f} ms or more, search smaller inputs and banks (--sizes, --banks), or use a faster device "
        "or engine; on a busy device, end other programs and measure again with --again",
    )


def _timed(table: Iterable[Row]) -> list[Row]:
    return [row for row in table if row.timing.p99]


def _bound(row: Row) -> float:
    return max(row.timing.p99)


def _clearly_better(other: Row, row: Row) -> bool:
    return other.accuracy.score >= row.accuracy.score and other.timing.p50 < _CLEARLY * row.timing.p50
