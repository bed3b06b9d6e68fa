from __future__ import annotations

import numpy as np
import pytest

from lineward.export.drift_reference import GREATEST, drift_reference
from lineward.runtime.drift import Measurement
from lineward.runtime.drift.measurements import Look


def looks(count: int, first: int = 0) -> list[Look]:
    return [Look(100 + i, 40 + i / 7, 5.0, 8.0) for i in range(first, first + count)]


def measured(count: int) -> list[Measurement]:
    return [Measurement(0.5 - i / 1000, i / 1000, look) for i, look in enumerate(looks(count))]


def test_scores_are_of_held_out_images_and_looks_of_all():
    reference = drift_reference(measured(3), looks(2, 3), seed=0)
    assert reference.score == (0.498, 0.499, 0.5)
    assert reference.distance == (0.0, 0.001, 0.002)
    assert reference.brightness == (100, 101, 102, 103, 104)
    assert reference.contrast == tuple(float(f"{40 + i / 7:.6g}") for i in range(5))
    assert reference.colour == (5.0,) * 5
    assert reference.sharpness == (8.0,) * 5


@pytest.mark.parametrize("seed", [0, 1])
def test_of_many_a_random_part_is_kept(seed):
    reference = drift_reference(measured(5), looks(2000), seed)
    assert len(reference.brightness) == len(reference.sharpness) == GREATEST
    assert np.mean(reference.brightness) == pytest.approx(1100, abs=120)
    assert reference == drift_reference(measured(5), looks(2000), seed)
    assert reference != drift_reference(measured(5), looks(2000), 1 - seed)


def test_nothing_to_compare_with():
    reference = drift_reference([], looks(2), seed=0)
    assert reference.score == reference.distance == ()
    assert len(reference.brightness) == 2
