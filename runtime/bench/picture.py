"""One picture of a bench: of every run a histogram and a timeline of trigger-to-verdict latencies."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.bench.record import TRIGGER, Record, Run, latencies
from lineward.runtime.bench.statistics import summarise

_WIDTH, _ROW, _MARGIN = 1200, 320, 60
_BINS = 60
_INK, _GRID, _BAR, _DOT, _MISS, _QUEUED = (
    (40, 40, 40),
    (225, 225, 225),
    (70, 130, 180),
    (70, 130, 180),
    (200, 30, 30),
    (230, 140, 20),
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

Picture = NDArray[np.uint8]


class Axes:
    """A plot in a picture: values to pixels, grid, ticks and title.

    Args:
        picture: to draw in, uint8 [H, W, 3], RGB.
        left: column of the plot's left edge.
        top: row of its upper edge.
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, picture: Picture, left: int, top: int, width: int, height: int) -> None:
        self.picture, self.left, self.top, self.width, self.height = picture, left, top, width, height
        self.ends = (1.0, 1.0)

    def frame(self, title: str, x: tuple[float, str], y: tuple[float, str | None]) -> None:
        """Set the ranges, from 0 to the end of each axis, and draw title, grid and ticks; without a unit no number."""
        self.ends = x[0], y[0]
        write(self.picture, title, self.left, self.top - 12)
        for value in _ticks(x[0]):
            column = self.column(value)
            cv2.line(self.picture, (column, self.top), (column, self.top + self.height), _GRID)
            write(self.picture, f"{value:g}", column - 4, self.top + self.height + 16)
        write(self.picture, x[1], self.left + self.width - 16, self.top + self.height + 32)
        for value in _ticks(y[0]) if y[1] else ():
            row = self.row(value)
            cv2.line(self.picture, (self.left, row), (self.left + self.width, row), _GRID)
            write(self.picture, f"{value:g}", self.left - 36, row + 4)
        if y[1]:
            write(self.picture, y[1], self.left - 36, self.top - 12)
        corner = (self.left + self.width, self.top + self.height)
        cv2.rectangle(self.picture, (self.left, self.top), corner, _GRID)

    def column(self, value: float) -> int:
        """The column of a value of x."""
        return self.left + round(value / self.ends[0] * self.width)

    def row(self, value: float) -> int:
        """The row of a value of y."""
        return self.top + self.height - round(value / self.ends[1] * self.height)


def draw_record(record: Record) -> Picture:
    """Draw a record.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    picture = np.full((_ROW * len(record.runs) + 30, _WIDTH, 3), 255, np.uint8)
    machine = record.machine
    head = f"{record.product}, engine {record.engine}, {machine.board or machine.cpu or machine.architecture}"
    write(picture, f"{head}, {machine.cores} cores, {record.created}", _MARGIN, 24)
    half = (_WIDTH - 3 * _MARGIN) // 2
    for index, run in enumerate(record.runs):
        top = 30 + index * _ROW + 50
        _histogram(Axes(picture, _MARGIN, top, half, _ROW - 100), run, record.deadline)
        _timeline(Axes(picture, 2 * _MARGIN + half, top, half, _ROW - 100), run, record.deadline)
    return picture


def _histogram(axes: Axes, run: Run, deadline: float | None) -> None:
    """Counts on a logarithmic scale: one slow inspection of thousands must be seen."""
    values = latencies(run)[TRIGGER] * 1e3
    counts, edges = np.histogram(values, _BINS, (0, _greatest(values, deadline)))
    heights = np.log1p(counts)
    title = f"{run.name}: trigger to verdict, {len(values)} triggers (log of counts, most {counts.max()})"
    axes.frame(title, (edges[-1], "ms"), (float(heights.max()) * 1.05, None))
    for height, left, right in zip(heights, edges, edges[1:], strict=False):
        if height:
            corner = (max(axes.column(left) + 1, axes.column(right) - 1), axes.row(0))
            cv2.rectangle(axes.picture, (axes.column(left) + 1, axes.row(height)), corner, _BAR, cv2.FILLED)
    found = summarise(values)
    for level, (name, value) in enumerate({"p50": found.p50, "p99": found.p99, "max": found.greatest}.items()):
        if value is not None:
            _upright(axes, value, f"{name} {value:.3g}", _INK, level)
    if deadline:
        _upright(axes, deadline * 1e3, f"deadline {deadline * 1e3:.3g}", _MISS, 3)


def _timeline(axes: Axes, run: Run, deadline: float | None) -> None:
    """One dot a trigger, at the time it was due: red where the deadline was missed, orange where it was queued."""
    values = latencies(run)[TRIGGER] * 1e3
    due = np.array([sample.planned for sample in run.samples])
    top = _greatest(values, deadline)
    axes.frame(f"{run.name}: latency over time", (max(float(due[-1]), 1e-3), "s"), (top, "ms"))
    if deadline:
        row = axes.row(deadline * 1e3)
        cv2.line(axes.picture, (axes.left, row), (axes.left + axes.width, row), _MISS)
    for x, y, sample in zip(due, values, run.samples, strict=True):
        missed = deadline is not None and y > deadline * 1e3
        colour = _MISS if missed else _QUEUED if sample.queued else _DOT
        cv2.circle(axes.picture, (axes.column(x), axes.row(y)), 4 if missed else 2, colour, cv2.FILLED, cv2.LINE_AA)


def _ticks(end: float) -> NDArray[np.float64]:
    """Four to ten round numbers from 0 to the end."""
    magnitude = 10.0 ** math.floor(math.log10(end))
    step = next(step for step in (0.1, 0.2, 0.25, 0.5, 1, 2) if end / (step * magnitude) <= 10) * magnitude
    return np.round(np.arange(0, end, step), 12)


def _greatest(values: NDArray[np.float64], deadline: float | None) -> float:
    return max(float(values.max()), (deadline or 0.0) * 1e3, 1e-6) * 1.05


def _upright(axes: Axes, value: float, text: str, colour: tuple[int, int, int], level: int) -> None:
    column = axes.column(value)
    cv2.line(axes.picture, (column, axes.top), (column, axes.top + axes.height), colour)
    left = min(column + 4, axes.left + axes.width - 8 * len(text))
    write(axes.picture, text, left, axes.top + 14 + 16 * level, colour)


def write(picture: Picture, text: str, left: int, bottom: int, colour: tuple[int, int, int] = _INK) -> None:
    """Write a line of text; Hershey fonts have ASCII alone."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, (left, bottom), _FONT, 0.42, colour, 1, cv2.LINE_AA)
