"""Scores counted in bars on either side of a threshold; `histogram.html.j2` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_BARS = 40


@dataclass(frozen=True)
class Group:
    """Parts of one label; a score that is not finite is in no bar."""

    title: str
    defective: bool
    scores: Sequence[float]


@dataclass(frozen=True)
class Bar:
    """Parts whose scores lie between two edges; `place` counts bars from the left."""

    place: int
    count: int
    wrong: bool
    title: str


@dataclass(frozen=True)
class Panel:
    """The bars of one label and the count of the tallest."""

    title: str
    bars: tuple[Bar, ...]
    tallest: int


@dataclass(frozen=True)
class Histogram:
    """Scores of groups of parts over one axis.

    Attributes:
        threshold: the score at the threshold line.
        bars: bars along the axis.
        passing: how many of these lie below the threshold line.
        ticks: positions along the axis, in percent, with their labels.
        panels: one for each group.
        unscored: parts without a score, which no bar holds.
    """

    threshold: float
    bars: int
    passing: int
    ticks: tuple[tuple[float, str], ...]
    panels: tuple[Panel, ...]
    unscored: int


def histogram(groups: Sequence[Group], threshold: float) -> Histogram:
    """Count scores in bars that meet at the threshold, so that each lies wholly on one side of it."""
    scores = [score for group in groups for score in group.scores]
    finite = [score for score in scores if math.isfinite(score)]
    reached = [threshold, *finite]
    width = max((max(reached) - min(reached)) / _BARS, 1e-4)
    first = min(0, math.ceil((min(reached) - threshold) / width))
    last = max(1, math.ceil((max(reached) - threshold) / width))
    edges = [threshold + width * i for i in range(first - 1, last + 1)]
    return Histogram(
        threshold=threshold,
        bars=len(edges) - 1,
        passing=1 - first,
        ticks=_ticks(edges[0], edges[-1]),
        panels=tuple(_panel(group, edges, 1 - first) for group in groups if group.scores),
        unscored=len(scores) - len(finite),
    )


def _panel(group: Group, edges: Sequence[float], passing: int) -> Panel:
    width = edges[1] - edges[0]
    counts: dict[int, int] = {}
    for score in group.scores:
        if math.isfinite(score):
            # Scores above an edge, up to and including the next: one at the threshold passes.
            place = math.ceil((score - edges[passing]) / width) + passing - 1
            place = min(max(place, 0), len(edges) - 2)
            counts[place] = counts.get(place, 0) + 1
    bars = tuple(
        Bar(
            place,
            count,
            (place < passing) == group.defective,
            f"{count} from {edges[place]:.4f} to {edges[place + 1]:.4f}",
        )
        for place, count in sorted(counts.items())
    )
    return Panel(group.title, bars, max(counts.values(), default=1))


def _ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Round numbers between two scores, four to ten, with their positions in percent."""
    most = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(most))
    step = max(power * m for m in (1, 2, 5) if m == 1 or power * m <= most)
    decimals = max(0, -math.floor(math.log10(step)))
    multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
    return tuple((100 * (m * step - low) / (high - low), f"{m * step:.{decimals}f}") for m in multiples)
