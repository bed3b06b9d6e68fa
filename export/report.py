"""The report of an evaluation: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.calibration.metrics import Confusion
from lineward.export.datasets import Sample, read_mask
from lineward.export.evaluation import Evaluation, KindFigures, Result
from lineward.export.page import Picture, picture, render, shrink, write_page
from lineward.export.score_histogram import Group, Histogram, histogram
from lineward.runtime.errors import DataError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Threshold
from lineward.runtime.overlay import draw_overlay
from lineward.runtime.preprocessing import as_rgb8

_OUTLINE = (0, 225, 255)
_RIGHT = 6  # right verdicts to show of each kind
_NO_MASKS = "not measured (no masks)"


def write_report(path: Path, inspector: Inspector, evaluation: Evaluation, *, worst: int = 12) -> None:
    """Write what an evaluation found, with pictures of the images that teach most.

    The file holds its pictures and style, has no scripts, and loads nothing: it can be mailed, printed and archived.

    Args:
        path: the HTML file; overwritten if it exists.
        inspector: the one that was evaluated; it inspects the pictured images once more for their anomaly maps.
        evaluation: its figures.
        worst: false rejects to picture at most, and escapes likewise.

    Raises:
        DataError: the file cannot be written, or `worst` is negative.
        ImageError: a pictured image or its mask cannot be read any more.
        EngineError: the engine failed.
    """
    if worst < 0:
        raise DataError(f"report: {worst} images of the worst", do="ask for 0 or more")
    html = render(
        "report.html.j2",
        bundle=inspector.bundle,
        summary=_summary(evaluation.confusion),
        figures=_figures(evaluation, inspector.bundle.manifest.threshold),
        outcomes=_outcomes(evaluation.confusion),
        histogram=_histogram(evaluation),
        kinds=_kinds(evaluation),
        by_kind=evaluation.by_kind,
        galleries=_galleries(inspector, evaluation.results, worst),
        score=_score,
        metric=_metric,
    )
    write_page(path, html)


# ---- Figures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figure:
    """One figure: its name, its value and what it means."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class _Outcome:
    """A row of the confusion table: parts of one label, and the share of them that went wrong, in words."""

    label: str
    passed: int
    rejected: int
    rate: str


@dataclass(frozen=True)
class _Kind:
    """What became of the parts of one kind; `escaped` is None for good ones, which cannot, as are their `figures`."""

    name: str
    count: int
    rejected: int
    escaped: int | None
    median: float
    figures: KindFigures | None


def _summary(confusion: Confusion) -> str:
    """The outcome in one sentence."""
    good = confusion.true_pass + confusion.false_reject
    defective = confusion.true_reject + confusion.escape
    said_of_good = f"{confusion.true_pass} of {good} good parts passed"
    if confusion.false_reject:
        said_of_good += f", {confusion.false_reject} rejected"
    said_of_defective = f"{confusion.true_reject} of {defective} defective parts rejected"
    said_of_defective += f", {confusion.escape or 'none'} escaped"
    if not defective:
        return f"{said_of_good}; no defective parts were inspected."
    return f"{said_of_good if good else 'No good parts were inspected'}; {said_of_defective}."


def _outcomes(confusion: Confusion) -> list[_Outcome]:
    good = confusion.true_pass + confusion.false_reject
    defective = confusion.true_reject + confusion.escape
    return [
        _Outcome(
            "Good", confusion.true_pass, confusion.false_reject, _rate("false-reject", confusion.false_reject, good)
        ),
        _Outcome("Defective", confusion.escape, confusion.true_reject, _rate("escape", confusion.escape, defective)),
    ]


def _figures(evaluation: Evaluation, threshold: Threshold) -> list[_Figure]:
    return [
        *_image_figures(evaluation),
        *_pixel_figures(evaluation),
        *_mean_figures(evaluation),
        *_line_figures(evaluation, threshold),
    ]


def _image_figures(evaluation: Evaluation) -> list[_Figure]:
    missing = "defective" if any(not r.sample.defective for r in evaluation.results) else "good"
    absent = f"not measured (no {missing} parts)"
    f1_note = "the best balance of false rejects and escapes that any threshold gives"
    if evaluation.f1 is not None and evaluation.f1_threshold is not None:
        f1_note = f"at a threshold of {_score(evaluation.f1_threshold)}; the bundle's own gives {_f1(evaluation)}"
    return [
        _Figure(
            "Image AUROC",
            _metric(evaluation.image_auroc, absent),
            "chance that a defective part scores above a good one",
        ),
        _Figure("F1max", _metric(evaluation.f1, absent), f1_note),
    ]


def _pixel_figures(evaluation: Evaluation) -> list[_Figure]:
    return [
        _Figure(
            "Pixel AUROC",
            _metric(evaluation.pixel_auroc, _NO_MASKS),
            "chance that a pixel on a defect scores above one that is not",
        ),
        _Figure(
            "AUPRO@0.3",
            _metric(evaluation.aupro, _NO_MASKS),
            "share of each defect's area found, averaged up to 30% of the other pixels flagged",
        ),
    ]


def _mean_figures(evaluation: Evaluation) -> list[_Figure]:
    """What is apart for each kind of defect, as one number; the kinds' own are in their table."""
    if evaluation.by_kind is None:
        return []
    mean, names = evaluation.by_kind.mean, ", ".join(evaluation.by_kind.kinds)
    return [
        _Figure(
            "Image AUROC by kind",
            _metric(mean.image_auroc, "not measured (no good parts)"),
            f"mean of {names}, each against all good parts",
        ),
        _Figure(
            "sPRO@0.05",
            _metric(mean.spro, _NO_MASKS),
            f"share found of what must be of a defect, averaged up to 5% of the other pixels flagged; mean of {names}",
        ),
    ]


def _line_figures(evaluation: Evaluation, threshold: Threshold) -> list[_Figure]:
    times = [1000 * r.seconds for r in evaluation.results]
    return [
        _Figure(
            "False-reject promise",
            ("about " if threshold.folds else "at most ")
            + f"{100 * threshold.false_reject_rate:.3g}%"
            + (" (extrapolated)" if threshold.extrapolation else ""),
            f"by {threshold.method} on {threshold.sample_size} good images held out from the bank",
        ),
        _Figure(
            "Time per image",
            f"{median(times):.1f} ms",
            f"median from frame to verdict, greatest {max(times):.1f} ms, on the machine that evaluated",
        ),
    ]


def _kinds(evaluation: Evaluation) -> list[_Kind]:
    """Kinds of defect, those of which the largest share escaped first, then the good parts."""
    figures = evaluation.by_kind.kinds if evaluation.by_kind else {}
    by_kind: dict[str, list[Result]] = {}
    for result in evaluation.results:
        by_kind.setdefault(result.sample.kind, []).append(result)
    kinds = [_kind(name, members, figures.get(name)) for name, members in by_kind.items()]
    return sorted(kinds, key=lambda k: (k.escaped is None, -(k.escaped or 0) / k.count, k.name))


def _kind(name: str, members: Sequence[Result], figures: KindFigures | None) -> _Kind:
    rejected = sum(_rejected(r) for r in members)
    escaped = len(members) - rejected if members[0].sample.defective else None
    return _Kind(name, len(members), rejected, escaped, median(map(_rank, members)), figures)


def _rejected(result: Result) -> bool:
    return result.verdict is Verdict.REJECT


def _rank(result: Result) -> float:
    """The score to order by: a part without one was rejected, as if it had the highest."""
    return math.inf if math.isnan(result.score) else result.score


def _f1(evaluation: Evaluation) -> str:
    """F1 at the bundle's threshold, of an evaluation that has defective parts."""
    return f"{evaluation.confusion.f1:.4f}"


def _metric(value: float | None, absent: str) -> str:
    return absent if value is None else f"{value:.4f}"


def _rate(name: str, part: int, whole: int) -> str:
    return f"{name} rate {100 * part / whole:.1f}%" if whole else f"{name} rate not measured"


def _score(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "no score"


# ---- Histogram -----------------------------------------------------------------------------------------


def _histogram(evaluation: Evaluation) -> Histogram:
    good = [r for r in evaluation.results if not r.sample.defective]
    defective = [r for r in evaluation.results if r.sample.defective]
    return histogram([_group("Good", good), _group("Defective", defective)], evaluation.threshold)


def _group(label: str, members: Sequence[Result]) -> Group:
    rejected = sum(_rejected(r) for r in members)
    title = f"{label} parts: {len(members) - rejected} passed, {rejected} rejected"
    return Group(title, label == "Defective", [r.score for r in members])


# ---- Gallery -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Card:
    """One image: what the bundle said of it, with its pictures."""

    result: Result
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class _Gallery:
    """Images that have something in common; `count` of `total` have it, and some of them are shown."""

    title: str
    order: str
    count: int
    total: int
    cards: tuple[_Card, ...]


def _galleries(inspector: Inspector, results: Sequence[Result], worst: int) -> list[_Gallery]:
    good = [r for r in results if not r.sample.defective]
    defective = [r for r in results if r.sample.defective]
    chosen = [
        ("Good parts wrongly rejected", good, True, "highest score first", worst),
        ("Defective parts that escaped", defective, False, "lowest score first", worst),
        ("Defective parts rejected", defective, True, "highest score first", _RIGHT),
        ("Good parts passed", good, False, "lowest score first", _RIGHT),
    ]
    galleries = []
    for title, members, rejected, order, most in chosen:
        alike = sorted((r for r in members if _rejected(r) == rejected), key=_rank, reverse=rejected)
        cards = tuple(_card(inspector, r) for r in alike[:most])
        galleries.append(_Gallery(title, order, len(alike), len(members), cards))
    return galleries


def _card(inspector: Inspector, result: Result) -> _Card:
    frame = read_image(result.sample.path)
    small = shrink(as_rgb8(frame))
    pictures = [picture("Photo", small)]
    if result.sample.masks:
        pictures.append(picture("Ground truth", _outlined(small, result.sample, frame.shape[:2])))
    pictures.append(picture("Anomaly map", draw_overlay(small, inspector.inspect(frame))))
    return _Card(result, tuple(pictures))


def _outlined(picture: NDArray[np.uint8], sample: Sample, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture with its sample's ground truth outlined; `shape` is the image's own (H, W)."""
    mask = shrink(read_mask(sample, shape).astype(np.uint8) * np.uint8(255))
    outlines, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlined = picture.copy()
    cv2.drawContours(outlined, outlines, -1, _OUTLINE, max(1, round(min(mask.shape) / 200)))
    return outlined
