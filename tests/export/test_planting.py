from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.export.planting import KINDS, plant
from lineward.export.synthetic import render_part
from lineward.runtime.preprocessing import Frame

PART = render_part(0, size=256).image
FRAMES: dict[str, Frame] = {
    "colour": PART,
    "gray": np.ascontiguousarray(PART[:, :, 1]),
    "16 bits": PART.astype(np.uint16) << 8,
    "wide": np.ascontiguousarray(PART[:100]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FRAMES)
def test_a_defect_lies_within_its_mask_and_can_be_seen(name: str, kind: str):
    frame = FRAMES[name]
    before = frame.copy()
    for seed in range(5):
        planted, mask = plant(frame, kind, np.random.default_rng(seed))
        assert (planted.dtype, planted.shape, mask.dtype) == (frame.dtype, frame.shape, np.bool_)
        changed = planted != frame if frame.ndim == 2 else (planted != frame).any(2)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.5
        assert 0 < mask.mean() < 0.1
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_plants_the_same_defect_and_another_another(kind: str):
    one, again, other = (plant(PART, kind, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_an_image_where_nothing_can_be_seen_is_still_an_image():
    """Without structure nothing can be moved or worn away: no endless search."""
    planted, mask = plant(np.full((64, 64), 128, np.uint8), "worn", np.random.default_rng(0))
    assert mask.any()
    assert (planted == 128).all()


@pytest.mark.parametrize("kind", ["scratch", "stain"])
@pytest.mark.parametrize("level", [0, 255])
def test_scratches_and_stains_show_on_black_and_on_white(level: int, kind: str):
    for seed in range(8):
        planted, _ = plant(np.full((128, 128), level, np.uint8), kind, np.random.default_rng(seed))
        assert np.abs(planted.astype(int) - level).max() > 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_each_defect_is_small_and_shows(seed: int, kind: str):
    planted, _ = plant(PART, kind, np.random.default_rng(seed))
    changed = np.abs(planted.astype(int) - PART).max(axis=2)
    assert 0 < (changed > 5).mean() < 0.05


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(8, 200),
    width=st.integers(8, 200),
    channels=st.sampled_from([(), (3,)]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    kind=st.sampled_from(list(KINDS)),
    seed=st.integers(0, 1000),
)
def test_any_frame_keeps_its_shape_and_type(height, width, channels, dtype, kind, seed):
    frame = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, *channels), dtype=dtype)
    before = frame.copy()
    planted, mask = plant(frame, kind, np.random.default_rng(seed))
    assert (planted.shape, planted.dtype, mask.shape) == (frame.shape, dtype, frame.shape[:2])
    assert np.array_equal(frame, before)
