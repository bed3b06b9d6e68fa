from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from lineward.runtime.cli.promise import describe_threshold
from lineward.runtime.manifest import Bound, Escapes, Extrapolation, Threshold

OLD = Threshold(0.25, 0.05, "split-conformal", 23, 11)
DATA = "ab" * 32


@dataclass(frozen=True)
class Case:
    threshold: Threshold
    said: tuple[str, ...]
    unsaid: tuple[str, ...] = ()


CASES = {
    "an old bundle": Case(
        OLD,
        (
            "at most 5 % of good parts rejected, on average over calibrations",
            "0.2500, by split-conformal from 23 held-out",
        ),
        ("confidence", "evidence", "EXTRAPOLATED"),
    ),
    "on average": Case(
        msgspec.structs.replace(OLD, bound=Bound(0.146, 0.95), data_sha256=DATA),
        (
            "on average over calibrations",
            "with 95 % confidence at most 14.6 % of good parts rejected",
            f"sha256 {DATA}",
        ),
    ),
    "with confidence": Case(
        msgspec.structs.replace(OLD, confidence=0.99, bound=Bound(0.04, 0.99)),
        ("at most 5 % of good parts rejected, with 99 % confidence",),
        ("average", "4 %"),
    ),
    "in folds": Case(
        msgspec.structs.replace(OLD, method="cross-conformal", folds=5),
        ("about 5 % of good parts rejected", "docs/calibration.md", "23 good images in 5 folds"),
        ("at most", "confidence"),
    ),
    "extrapolated": Case(
        msgspec.structs.replace(OLD, method="tail", extrapolation=Extrapolation(20, -0.2, 0.01, 0.43, 0.22, 0.95)),
        (
            "EXTRAPOLATED, more than 23 good images can show",
            "estimate 0.2200",
            "95 % confidence 0.2500",
            "fit p = 0.43",
        ),
        ("on average",),
    ),
    "with defects": Case(
        msgspec.structs.replace(OLD, escapes=Escapes(40, 1, 0.0006, 0.1316, 0.95, DATA)),
        ("1 of 40 labelled defects passed: 2.5 %, with 95 % confidence from 0.06 % to 13.2 %",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_promise_is_said_in_words(name: str):
    case = CASES[name]
    text = "\n".join(f"{head} {words}" for head, words in describe_threshold(case.threshold))
    for words in case.said:
        assert words in text
    for words in case.unsaid:
        assert words not in text
