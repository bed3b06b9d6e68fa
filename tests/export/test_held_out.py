from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lineward.export.held_out import Plan, Promise, plan_calibration
from lineward.runtime.errors import CalibrationError
from lineward.runtime.images import write_png


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    paths = [folder / f"{i:03d}.png" for i in range(240)]
    for i, path in enumerate(paths):
        write_png(path, np.full((1, 1, 3), i, np.uint8))
    return paths


def plan(images: list[Path], count: int, rate: float, method: str = "auto", confidence: float | None = None) -> Plan:
    return plan_calibration(images[:count], (), Promise(rate, confidence, method, seed=0))


@pytest.mark.parametrize(
    ("count", "rate", "confidence", "held_out"),
    [
        (5, 0.3, None, 3),
        (12, 0.5, None, 1),
        (25, 0.5, None, 2),
        (40, 0.05, None, 19),
        (200, 0.3, None, 20),
        (60, 0.05, 0.95, 59),
        (60, 0.1, 0.9, 22),
    ],
)
def test_a_tenth_is_held_out_or_as_many_as_the_promise_needs(
    images: list[Path], count: int, rate: float, confidence: float | None, held_out: int
):
    made = plan(images, count, rate, "split", confidence)
    bank, apart = ({path for path, _ in chosen} for chosen in (made.bank, made.held_out))
    assert len(apart) == held_out
    assert bank.isdisjoint(apart)
    assert bank | apart == set(images[:count])


@pytest.mark.parametrize(
    ("count", "rate", "confidence", "method"),
    [
        (76, 0.05, None, "split-conformal"),  # 19 are a quarter
        (75, 0.05, None, "cross-conformal"),
        (19, 0.05, None, "cross-conformal"),
        (5, 0.2, None, "cross-conformal"),
        (4, 0.25, None, "split-conformal"),  # too few to be dealt into five folds
        (200, 0.05, None, "split-conformal"),
        (70, 0.05, 0.95, "split-conformal"),  # folds keep no rate with confidence
    ],
)
def test_few_images_are_judged_in_folds(
    images: list[Path], count: int, rate: float, confidence: float | None, method: str
):
    made = plan(images, count, rate, confidence=confidence)
    assert made.method == method
    if made.folds:
        assert made.bank == made.held_out
        assert sorted(np.concatenate(made.folds)) == list(range(count))


@pytest.mark.parametrize(("count", "held_out"), [(61, 60), (180, 60), (240, 80)])
def test_a_tail_takes_a_third_of_the_images(images: list[Path], count: int, held_out: int):
    made = plan(images, count, 0.001, "tail")
    assert (made.method, len(made.held_out), len(made.bank)) == ("tail", held_out, count - held_out)


@pytest.mark.parametrize(
    ("count", "rate", "method", "confidence", "message"),
    [
        (18, 0.05, "auto", None, "18 different good images cannot support a false-reject rate of 0.05:"),
        (19, 0.05, "split", None, "19 different good images cannot support"),
        (18, 0.05, "cross", None, "18 held-out good images cannot support"),
        (4, 0.5, "cross", None, "4 good images cannot be dealt into 5 folds"),
        (
            59,
            0.05,
            "auto",
            0.95,
            "cannot support a false-reject rate of 0.05 with 95 % confidence: 59 must be held out",
        ),
        (60, 0.001, "tail", None, "60 different good images are too few to follow the tail"),
        (40, 0.05, "best", None, "best: no such way"),
        (40, 0.05, "cross", 0.95, "keeps no rate with a stated confidence"),
        (40, 0.05, "split", 1.5, "a confidence of 1.5 makes no sense"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(
    images: list[Path], count: int, rate: float, method: str, confidence: float | None, message: str
):
    with pytest.raises(CalibrationError, match=message):
        plan(images, count, rate, method, confidence)


def test_images_set_apart_are_not_judged_in_folds(images: list[Path]):
    with pytest.raises(CalibrationError, match="held-out images of its own"):
        plan_calibration(images[:40], images[40:80], Promise(0.05, None, "cross", 0))


def test_images_set_apart_may_have_a_tail(images: list[Path]):
    made = plan_calibration(images[:40], images[40:140], Promise(0.001, None, "tail", 0))
    assert (made.method, len(made.bank), len(made.held_out)) == ("tail", 40, 100)
