"""A threshold and its promise in words that a line engineer can repeat."""

from __future__ import annotations

from lineward.runtime.calibration_file import Calibration
from lineward.runtime.conformal import percent
from lineward.runtime.manifest import Escapes, Extrapolation, Manifest, Threshold


def describe_threshold(threshold: Threshold) -> list[tuple[str, str]]:
    """Rows of a table: what is promised, with what confidence, on what evidence."""
    t = threshold
    rows = [("promise", _promise(t))]
    if t.bound and t.confidence is None:
        confident = (
            f"with {percent(t.bound.confidence)} confidence at most {percent(t.bound.rate)} of good parts rejected"
        )
        rows.append(("", confident))
    rows.append(("threshold", f"{t.value:.4f}, by {t.method} from {_sample(t)}, seed {t.seed}"))
    if t.extrapolation:
        rows.append(("tail", _tail(t.value, t.extrapolation)))
    if t.data_sha256:
        rows.append(("evidence", f"sha256 {t.data_sha256}"))
    if t.escapes:
        rows.append(("escapes", _escapes(t.escapes)))
    return rows


def describe_calibration(calibration: Calibration, manifest: Manifest) -> list[tuple[str, str]]:
    """Rows of a table: this device's promise, and what the bundle's own threshold is."""
    rows = [("calibrated", f"on this device, {calibration.created}"), *describe_threshold(calibration.threshold)]
    if calibration.copies:
        rows.append(("copies", f"{calibration.copies} images show the same pixels as others, and were left out"))
    return [*rows, ("bundle's own", f"{manifest.threshold.value:.4f}, by {manifest.threshold.method}")]


def _promise(t: Threshold) -> str:
    rate = f"at most {percent(t.false_reject_rate)} of good parts rejected"
    if t.extrapolation:
        return f"{rate}: EXTRAPOLATED, more than {t.sample_size} good images can show"
    if t.folds:
        return (
            f"about {percent(t.false_reject_rate)} of good parts rejected; see docs/calibration.md for what is proven"
        )
    return f"{rate}, " + (
        "on average over calibrations" if t.confidence is None else f"with {percent(t.confidence)} confidence"
    )


def _sample(t: Threshold) -> str:
    if t.folds:
        return f"{t.sample_size} good images in {t.folds} folds, each judged by a bank of the others"
    return f"{t.sample_size} held-out good images"


def _tail(value: float, e: Extrapolation) -> str:
    return (
        f"estimate {e.estimate:.4f}, upper limit with {percent(e.confidence)} confidence {value:.4f}; "
        f"from {e.exceedances} scores, shape {e.shape:.2f}, fit p = {e.p_value:.2f}"
    )


def _escapes(e: Escapes) -> str:
    return (
        f"{e.escaped} of {e.defects} labelled defects passed: {percent(e.escaped / e.defects)}, "
        f"with {percent(e.confidence)} confidence from {percent(e.lower)} to {percent(e.upper)}"
    )
