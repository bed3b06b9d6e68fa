"""The report of an evaluation: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from numpy.typing import NDArray

from lineward.calibration.metrics import Confusion
from lineward.export.datasets import Sample, read_mask
from lineward.export.evaluation import Evaluation, KindFigures, Result
from lineward.runtime.errors import DataError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Threshold
from lineward.runtime.overlay import draw_overlay
from lineward.runtime.preprocessing import as_rgb8

_PICTURE = 320  # greatest side, in pixels
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_OUTLINE = (0, 225, 255)
_RIGHT = 6  # right verdicts to show of each kind
_BARS = 40
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
    html = _template().render(
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
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: the report cannot be written ({error.strerror})", do="check the folder and its free space"
        ) from error


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


@dataclass(frozen=True)
class _Bar:
    """Parts whose scores lie between two edges; `place` counts bars from the left."""

    place: int
    count: int
    wrong: bool
    title: str


@dataclass(frozen=True)
class _Panel:
    """The bars of one label and the count of the tallest."""

    title: str
    bars: tuple[_Bar, ...]
    tallest: int


@dataclass(frozen=True)
class _Histogram:
    """Scores of good and of defective parts over one axis.

    Attributes:
        threshold: the score at the threshold line.
        bars: bars along the axis.
        passing: how many of these lie below the threshold line.
        ticks: positions along the axis, in percent, with their labels.
        panels: one for each label that occurs.
        unscored: parts without a score, which no bar holds.
    """

    threshold: float
    bars: int
    passing: int
    ticks: tuple[tuple[float, str], ...]
    panels: tuple[_Panel, ...]
    unscored: int


def _histogram(evaluation: Evaluation) -> _Histogram:
    """Count scores in bars that meet at the threshold, so that each lies wholly on one side of it."""
    threshold = evaluation.threshold
    scored = [r for r in evaluation.results if math.isfinite(r.score)]
    reached = [threshold, *(r.score for r in scored)]
    width = max((max(reached) - min(reached)) / _BARS, 1e-4)
    first = min(0, math.ceil((min(reached) - threshold) / width))
    last = max(1, math.ceil((max(reached) - threshold) / width))
    edges = [threshold + width * i for i in range(first - 1, last + 1)]
    panels = []
    for label, defective in (("Good", False), ("Defective", True)):
        members = [r for r in evaluation.results if r.sample.defective == defective]
        if members:
            panels.append(_panel(label, members, edges, 1 - first))
    return _Histogram(
        threshold=threshold,
        bars=len(edges) - 1,
        passing=1 - first,
        ticks=_ticks(edges[0], edges[-1]),
        panels=tuple(panels),
        unscored=len(evaluation.results) - len(scored),
    )


def _panel(label: str, members: Sequence[Result], edges: Sequence[float], passing: int) -> _Panel:
    width = edges[1] - edges[0]
    counts: dict[int, int] = {}
    for result in members:
        if math.isfinite(result.score):
            # Scores above an edge, up to and including the next: one at the threshold passes.
            place = math.ceil((result.score - edges[passing]) / width) + passing - 1
            place = min(max(place, 0), len(edges) - 2)
            counts[place] = counts.get(place, 0) + 1
    defective = members[0].sample.defective
    bars = tuple(
        _Bar(place, count, (place < passing) == defective, f"{count} from {edges[place]:.4f} to {edges[place + 1]:.4f}")
        for place, count in sorted(counts.items())
    )
    rejected = sum(_rejected(r) for r in members)
    title = f"{label} parts: {len(members) - rejected} passed, {rejected} rejected"
    return _Panel(title, bars, max(counts.values(), default=1))


def _ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Round numbers between two scores, four to ten, with their positions in percent."""
    most = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(most))
    step = max(power * m for m in (1, 2, 5) if m == 1 or power * m <= most)
    decimals = max(0, -math.floor(math.log10(step)))
    multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
    return tuple((100 * (m * step - low) / (high - low), f"{m * step:.{decimals}f}") for m in multiples)


# ---- Gallery -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """A picture as a data URI, and what it shows."""

    caption: str
    uri: str


@dataclass(frozen=True)
class _Card:
    """One image: what the bundle said of it, with its pictures."""

    result: Result
    pictures: tuple[_Picture, ...]


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
    small = _shrink(as_rgb8(frame))
    pictures = [_picture("Photo", small)]
    if result.sample.masks:
        pictures.append(_picture("Ground truth", _outlined(small, result.sample, frame.shape[:2])))
    pictures.append(_picture("Anomaly map", draw_overlay(small, inspector.inspect(frame))))
    return _Card(result, tuple(pictures))


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels, gray or RGB, with no side longer than a picture's."""
    height, width = pixels.shape[:2]
    scale = _PICTURE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _outlined(picture: NDArray[np.uint8], sample: Sample, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture with its sample's ground truth outlined; `shape` is the image's own (H, W)."""
    mask = _shrink(read_mask(sample, shape).astype(np.uint8) * np.uint8(255))
    outlines, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlined = picture.copy()
    cv2.drawContours(outlined, outlines, -1, _OUTLINE, max(1, round(min(mask.shape) / 200)))
    return outlined


def _picture(caption: str, pixels: NDArray[np.uint8]) -> _Picture:
    data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), _JPEG)[1].tobytes()
    return _Picture(caption, f"data:image/jpeg;base64,{base64.b64encode(data).decode()}")


# ---- Template ------------------------------------------------------------------------------------------


def _template() -> Template:
    environment = Environment(
        autoescape=True, finalize=_legible, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files("lineward.export").joinpath("report.html.j2").read_text("utf-8"))


def _legible(value: object) -> object:
    """Text with control, direction and undecodable characters, which file names may hold, spelled out."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
