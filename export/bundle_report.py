"""The report of a bundle: what it promises and on what evidence, in one HTML file that can be printed and signed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import msgspec

from lineward.calibration.escapes import counted_rate
from lineward.export.good_parts import GoodParts
from lineward.export.page import Picture, picture, render, shrink, write_page
from lineward.export.score_histogram import Group, Histogram, histogram
from lineward.runtime.bundle import Bundle
from lineward.runtime.conformal import percent
from lineward.runtime.drift import STATISTICS
from lineward.runtime.golden import check_golden
from lineward.runtime.images import decode_image, read_image
from lineward.runtime.inspection import Inspection
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import DriftReference, Manifest, Threshold
from lineward.runtime.overlay import draw_overlay
from lineward.runtime.preprocessing import Frame, as_rgb8

_WORST = 12

Rows = Sequence[tuple[str, str]]
"""Rows of a table: what, and what of it."""


@dataclass(frozen=True)
class Making:
    """How a report was made.

    Attributes:
        time: UTC time, ISO 8601.
        machine: in words.
        version: of Lineward.
        engine: that scored.
    """

    time: str
    machine: str
    version: str
    engine: str


def write_bundle_report(
    path: Path,
    inspector: Inspector,
    making: Making,
    *,
    promise: Rows,
    signatures: Rows,
    good: GoodParts | None = None,
    slack: float = 0.0,
) -> None:
    """Write what a bundle is, promises and shows.

    The file holds its pictures and style, has no scripts, and loads nothing: it can be mailed, printed and archived.

    Args:
        path: the HTML file; overwritten if it exists.
        inspector: holds the bundle and the threshold that applies; it inspects golden images and the worst good parts.
        making: how the report is made.
        promise: the threshold's promise and evidence in words: see `describe_threshold`, `describe_calibration`.
        signatures: in words: see `describe_signatures`.
        good: good parts scored with this inspector; None leaves out what they would show.
        slack: see `check_golden`.

    Raises:
        BundleError: this machine gives other results than were packed.
        DataError: the file cannot be written.
        ImageError: a good part's image cannot be read any more.
        EngineError: the engine failed.
    """
    bundle, threshold = inspector.bundle, inspector.threshold
    html = render(
        "bundle_report.html.j2",
        bundle=bundle,
        threshold=threshold,
        making=making,
        words=in_words(threshold),
        promise=_joined(promise),
        golden=_golden(inspector, slack),
        good=None if good is None else _evidence(good, bundle, threshold),
        histogram=None if good is None else _histogram(good, threshold),
        worst=[] if good is None else _worst(inspector, good),
        drift=_drift(bundle.manifest.drift),
        conversion=_conversion(bundle.manifest),
        signatures=_joined(signatures),
        score=_score,
    )
    write_page(path, html)


def in_words(threshold: Threshold) -> str:
    """The promise as a line engineer can repeat it; docs/calibration.md explains each."""
    t, rate = threshold, percent(threshold.false_reject_rate)
    if t.extrapolation:
        return (
            f"Our {t.sample_size} images cannot show a rate as low as {rate}."
            f" If scores go on falling off as they do, at most {rate} of good parts are rejected."
        )
    if t.folds:
        return f"About {rate} of good parts are rejected. The method held in tests; what is proven of it is weaker."
    if t.confidence is not None:
        return f"We are {percent(t.confidence)} sure that this threshold rejects at most {rate} of good parts."
    words = f"If we calibrated again and again, at most {rate} of good parts would be rejected on average."
    if t.bound is None:
        return words
    bound = f"with {percent(t.bound.confidence)} confidence it rejects at most {percent(t.bound.rate)}"
    return f"{words} This one calibration may lie somewhat above or below: {bound}."


def _joined(rows: Rows) -> Iterator[tuple[str, str]]:
    """Rows without a name are said further of the one before."""
    name, said = "", ""
    for following, text in rows:
        if following and said:
            yield name, said
            said = ""
        name, said = following or name, f"{said}; {text}" if said else text
    if said:
        yield name, said


# ---- Good parts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Evidence:
    """What good parts scored now say of the promise.

    Attributes:
        summary: how many passed, in words.
        interval: the share rejected, with its interval.
        broken: whether more were rejected than the promise allows, beyond chance.
        provenance: what can be told of where the images come from.
        copies: images left out as copies.
    """

    summary: str
    interval: str
    broken: bool
    provenance: str
    copies: int


def _evidence(good: GoodParts, bundle: Bundle, threshold: Threshold) -> _Evidence:
    rate = counted_rate(good.rejected, len(good.parts))
    allowed = threshold.bound.rate if threshold.bound else threshold.false_reject_rate
    return _Evidence(
        f"{rate.of - rate.counted} of {rate.of} good parts passed, {rate.counted or 'none'} rejected",
        f"{percent(rate.share)} rejected, with {percent(rate.confidence)} confidence from {percent(rate.lower)} to"
        f" {percent(rate.upper)}",
        rate.lower > allowed,
        _provenance(good, bundle, threshold),
        good.copies,
    )


def _provenance(good: GoodParts, bundle: Bundle, threshold: Threshold) -> str:
    if good.data_sha256 == bundle.manifest.origin.data_sha256:
        return (
            "These are the very images that the bundle was trained on: it knows most of them by heart, and that they"
            " pass proves nothing."
        )
    if good.data_sha256 == threshold.data_sha256:
        return "These are the very images that the threshold was found with: they show its evidence, and add none."
    return (
        "That none of these images had a part in the training is the word of whoever made this report: the bundle knows"
        " only the fingerprint of all its images together, which is another."
    )


def _histogram(good: GoodParts, threshold: Threshold) -> Histogram:
    title = f"{len(good.parts)} good parts, {good.rejected} rejected"
    return histogram([Group(title, False, [part.score for part in good.parts])], threshold.value)


# ---- Pictures ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Card:
    """One image: its name, what was said of it, a note, and its pictures."""

    name: str
    inspection: Inspection
    note: str
    pictures: tuple[Picture, ...]


def _golden(inspector: Inspector, slack: float) -> list[_Card]:
    """The golden images as this machine sees them now."""
    bundle, cards = inspector.bundle, []
    results = check_golden(bundle, inspector, slack)
    for golden, result in zip(bundle.manifest.golden, results, strict=True):
        note = (
            f"packed with a score of {golden.image_score:.4f}; patch scores here within {result.deviation:.1e} of those"
            f" packed, allowed are {result.tolerance:.0e}"
        )
        cards.append(_card(inspector, golden.image, decode_image(bundle.members[golden.image], golden.image), note))
    return cards


def _worst(inspector: Inspector, good: GoodParts) -> list[_Card]:
    parts = sorted(good.parts, key=lambda part: math.inf if math.isnan(part.score) else part.score, reverse=True)
    return [_card(inspector, part.path.name, read_image(part.path), "") for part in parts[:_WORST]]


def _card(inspector: Inspector, name: str, frame: Frame, note: str) -> _Card:
    inspection, small = inspector.inspect(frame), shrink(as_rgb8(frame))
    pictures = (picture("Photo", small), picture("Anomaly map", draw_overlay(small, inspection)))
    return _Card(name, inspection, note, pictures)


# ---- Other records -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reference:
    """What is usual of one statistic: number of values, least, mean and greatest."""

    name: str
    count: int
    values: tuple[str, str, str]


def _drift(reference: DriftReference | None) -> list[_Reference]:
    found = []
    for statistic in STATISTICS if reference else ():
        values: tuple[float, ...] = getattr(reference, statistic.value)
        if values:
            least, usual, greatest = (f"{value:.4g}" for value in (min(values), mean(values), max(values)))
            found.append(_Reference(statistic.value, len(values), (least, usual, greatest)))
    return found


def _conversion(manifest: Manifest) -> list[tuple[str, str]]:
    """The record of a conversion, where the manifest has one."""
    return list(_flat("", msgspec.to_builtins(getattr(manifest, "conversion", None))))


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """The leaves of a record, each with the names that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}, {key}" if name else str(key), inner)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for number, item in enumerate(value, 1):
            yield from _flat(f"{name} {number}", item)
    elif value is not None:
        yield name.replace("_", " "), ", ".join(map(_leaf, value)) if isinstance(value, list) else _leaf(value)


def _leaf(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _score(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "no score"
