"""The table as a picture: time against what is missing to a perfect score, the front as a line, the budget upright."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.export.tuning.table import Row, pareto_front
from lineward.runtime.bench.picture import Axes, write

_WIDTH, _HEIGHT, _MARGIN = 1000, 620, 70
_BEATEN, _FRONT, _CHOSEN, _BUDGET = (170, 170, 170), (70, 130, 180), (20, 140, 60), (200, 30, 30)


def draw_table(table: Sequence[Row], chosen: Row | None, budget: float, title: str) -> NDArray[np.uint8]:
    """Draw every candidate, at its p99 bound, or at its median where it was not timed in full.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    axes = Axes(picture, _MARGIN, 70, _WIDTH - 2 * _MARGIN, _HEIGHT - 150)
    times = [row.timing.bound or row.timing.p50 for row in table]
    longest = max([*times, budget]) * 1e3 * 1.08
    missing = max(1e-4, *(1 - row.accuracy.score for row in table)) * 1.15
    write(picture, title, _MARGIN, 24)
    axes.frame("", (longest, "ms"), (missing, "1 - score"))
    write(picture, "p99 at most, trigger to verdict; grey: beaten, at its median where not timed in full", _MARGIN, 44)
    column = axes.column(budget * 1e3)
    cv2.line(picture, (column, axes.top), (column, axes.top + axes.height), _BUDGET)
    write(picture, f"budget {budget * 1e3:g}", column + 4, axes.top + 14, _BUDGET)
    front = pareto_front(table)
    places = {
        id(row): (axes.column(t * 1e3), axes.row(1 - row.accuracy.score)) for row, t in zip(table, times, strict=True)
    }
    for row in table:
        if row not in front:
            cv2.circle(picture, places[id(row)], 4, _BEATEN, cv2.FILLED, cv2.LINE_AA)
    for before, after in pairwise(front):
        cv2.line(picture, places[id(before)], places[id(after)], _FRONT, 1, cv2.LINE_AA)
    for row in front:
        colour = _CHOSEN if row is chosen else _FRONT
        x, y = places[id(row)]
        cv2.circle(picture, (x, y), 6, colour, cv2.FILLED, cv2.LINE_AA)
        write(picture, row.candidate.name, min(x + 8, _WIDTH - 150), y - 8, colour)
    return picture
