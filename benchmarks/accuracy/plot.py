"""Plots of all systems: image AUROC by category, and by the share of defects in the training set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.accuracy.categories import DataSet
from benchmarks.accuracy.paper import MEAN
from benchmarks.accuracy.runs import Run
from benchmarks.accuracy.tabulate import of_category, statistic

_WIDTH = 0.7
"""What the systems of a category take, of the distance to the next category."""


def plot_image_auroc(path: Path, data_sets: Sequence[DataSet], runs: Sequence[Run], systems: Sequence[str]) -> None:
    """Draw mean and spread over seeds as dots with bars, and the paper's figures as crosses.

    Args:
        path: file to write; its suffix, such as .png or .svg, says how.
        data_sets: each gets axes of its own.
        runs: of all categories found.
        systems: their names, in order.
    """
    figure = Figure(figsize=(10, 4 * len(data_sets)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(data_sets), squeeze=False)
    for axes, data_set in zip(rows[:, 0], data_sets, strict=True):
        _draw(axes, data_set, runs, systems)
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(systems) + 1)
    _save(figure, path)


def plot_by_share(
    path: Path, data_sets: Sequence[DataSet], runs: Mapping[float, Sequence[Run]], systems: Sequence[str]
) -> None:
    """Draw image AUROC against the share of defects in the training set: a line through means, a band of the spread.

    Args:
        path: file to write; its suffix, such as .png or .svg, says how.
        data_sets: each of their categories gets a panel of its own.
        runs: of all categories found, by the share asked for; drawn is the share that there is.
        systems: their names, in order.
    """
    panels = [(data_set, category) for data_set in data_sets for category in data_set.found]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each, (data_set, category) in zip(axes, panels, strict=False):
        _draw_shares(each, data_set, category, runs, systems)
    for each in axes[len(panels) :]:
        each.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # Neither date nor random identifiers: the same runs give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "lineward", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes: Axes, data_set: DataSet, runs: Sequence[Run], systems: Sequence[str]) -> None:
    categories = [*data_set.found, MEAN]
    for index, system in enumerate(systems):
        shift = ((index + 0.5) / len(systems) - 0.5) * _WIDTH
        for place, category in enumerate(categories):
            label = system if place == 0 else None
            colour = f"C{index}"
            if ours := statistic(of_category(data_set, runs, category, system), "image_auroc"):
                axes.errorbar(place + shift, ours.mean, ours.spread, fmt="o", color=colour, capsize=3, label=label)
            theirs = data_set.paper.image_auroc(category, system) if data_set.paper else None
            if theirs is not None:
                axes.plot(place + shift, theirs, "x", color=colour)
    axes.plot([], [], "x", color="gray", label="the paper's")
    names = [name.replace("_", " ") for name in categories]
    axes.set_xticks(range(len(categories)), names, rotation=30, ha="right", rotation_mode="anchor")
    all_of_it = len(data_set.found) + len(data_set.missing)
    axes.set_title(f"{data_set.name}, {len(data_set.found)} of {all_of_it} categories: mean and spread over seeds")
    axes.set_ylabel("image AUROC")
    axes.grid(axis="y", alpha=0.3)


def _draw_shares(
    axes: Axes, data_set: DataSet, category: str, runs: Mapping[float, Sequence[Run]], systems: Sequence[str]
) -> None:
    good = len(data_set.found[category].train)
    for index, system in enumerate(systems):
        places, means, spreads = [], [], []
        for share in sorted(runs):
            chosen = of_category(data_set, runs[share], category, system)
            if ours := statistic(chosen, "image_auroc"):
                places.append(100 * chosen[0].slipped / (good + chosen[0].slipped))
                means.append(ours.mean)
                spreads.append(ours.spread or 0)
        axes.plot(places, means, "o-", color=f"C{index}", label=system)
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(places, low, high, color=f"C{index}", alpha=0.15, linewidth=0)
    axes.set_title(f"{data_set.name}: {category.replace('_', ' ')}")
    axes.set_xlabel("defective share of the training images, %")
    axes.set_ylabel("image AUROC")
    axes.grid(axis="y", alpha=0.3)
