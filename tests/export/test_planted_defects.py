from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.export.planted_defects import plant_defects
from lineward.export.synthetic import render_part

KINDS = 3


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(16, 200),
    width=st.integers(16, 200),
    channels=st.sampled_from([(), (3,)]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 1000),
)
def test_frames_keep_their_shape_and_type(height, width, channels, dtype, seed):
    frame = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, *channels), dtype=dtype)
    before = frame.copy()
    planted = plant_defects(frame, seed)
    assert len(planted) == KINDS
    assert all(p.shape == frame.shape and p.dtype == dtype for p in planted)
    assert np.array_equal(frame, before)


@pytest.mark.parametrize("seed", range(8))
def test_each_defect_is_small_and_shows(seed):
    frame = render_part(seed, size=256).image
    for planted in plant_defects(frame, seed):
        changed = np.abs(planted.astype(int) - frame).max(axis=2)
        assert 0 < (changed > 5).mean() < 0.05


@pytest.mark.parametrize("level", [0, 255])
def test_scratches_and_stains_show_on_black_and_on_white(level):
    frame = np.full((128, 128), level, np.uint8)
    _, scratch, stain = plant_defects(frame, 0)
    for planted in (scratch, stain):
        assert np.abs(planted.astype(int) - level).max() > 20


def test_the_same_seed_gives_the_same_defects_and_another_others():
    frame = render_part(0, size=64).image
    one, again, other = plant_defects(frame, 1), plant_defects(frame, 1), plant_defects(frame, 2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
