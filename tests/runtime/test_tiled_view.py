from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lineward.runtime.bundle import REGION, decode_bundle
from lineward.runtime.errors import BundleError, ImageError
from lineward.runtime.inspection import Reason, Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Grid, Score, Tiles
from lineward.runtime.preprocessing import Preprocessing
from lineward.runtime.region import encode_region
from lineward.runtime.stages import Stage
from lineward.runtime.view import View

SIDE, STRIDE = 8, 4
SPEC = Preprocessing(SIDE * STRIDE, SIDE * STRIDE)
cuts = st.builds(Tiles, st.integers(1, 4), st.integers(1, 4), st.integers(0, SIDE // 2), st.integers(0, SIDE // 2))
seeds = st.integers(0, 2**32 - 1)


def view(tiles, region=None):
    rows, columns = tiles.patches(SIDE, SIDE)
    return View(SPEC, Grid(SIDE, SIDE, 1), Score(rows * STRIDE, columns * STRIDE, 1.0), region, tiles)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def patch_means(images):
    """Scores that are what a patch shows: [N, rows, columns]."""
    blocks = images[..., 0].reshape(len(images), SIDE, STRIDE, SIDE, STRIDE)
    return (blocks.mean((2, 4)) / 255).astype(np.float32)


@given(cuts, st.floats(0, 2, width=32))
def test_a_constant_field_merges_to_the_constant(tiles, value):
    seen = view(tiles)
    merged = seen.merge(np.full((len(seen.counts), SIDE, SIDE), value, np.float32))
    assert merged.shape == (seen.rows, seen.columns) == tiles.patches(SIDE, SIDE)
    np.testing.assert_allclose(merged, value, rtol=1e-6)
    np.testing.assert_allclose(seen.maps.anomaly_map(merged), value, rtol=1e-5, atol=1e-6)


@given(cuts, seeds)
def test_a_frame_of_the_tiles_own_size_merges_without_a_seam(tiles, seed):
    """As large as the inputs together: what each patch shows is merged to what it shows of the frame."""
    seen = view(tiles)
    frame = noise(seed, seen.rows * STRIDE, seen.columns * STRIDE, 3)
    expected = frame[..., 0].reshape(seen.rows, STRIDE, seen.columns, STRIDE).mean((1, 3)) / 255
    np.testing.assert_allclose(seen.merge(patch_means(seen.pixels(frame))), expected, atol=1e-6)


@given(cuts, st.integers(8, 32), st.integers(8, 32), st.data())
def test_every_pixel_of_the_frame_is_seen(tiles, height, width, data):
    """Of a frame that no tile is scaled down of, so that a single bright pixel cannot be lost."""
    assume(height * SIDE // tiles.patches(SIDE, SIDE)[0] >= 8)
    assume(width * SIDE // tiles.patches(SIDE, SIDE)[1] >= 8)
    frame = np.zeros((height, width), np.uint8)
    frame[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = 255
    assert view(tiles).pixels(frame).any()


@given(cuts, st.integers(64, 300), st.integers(64, 300))
def test_a_tile_shows_its_place(tiles, height, width):
    """A frame whose grey is a patch's row, or column, gives patches that show theirs, to a part of a patch."""
    seen = view(tiles)
    for axis, count in enumerate((seen.rows, seen.columns)):
        length = (height, width)[axis]
        ramp = (np.arange(length) + 0.5) / length * 255
        frame = np.broadcast_to(np.expand_dims(ramp, 1 - axis), (height, width)).astype(np.uint8)
        shown = seen.merge(patch_means(seen.pixels(frame)))
        expected = np.expand_dims((np.arange(count) + 0.5) / count, 1 - axis)
        assert np.abs(shown - expected).max() < 0.75 / count + 1 / length + 2 / 255


@given(cuts, seeds)
def test_merging_stays_between_the_scores(tiles, seed):
    seen = view(tiles)
    scores = np.random.default_rng(seed).random((len(seen.counts), SIDE, SIDE)).astype(np.float32)
    merged = seen.merge(scores)
    assert scores.min() - 1e-6 <= merged.min()
    assert merged.max() <= scores.max() + 1e-6


@given(cuts, seeds)
def test_with_a_region_every_tile_seen_has_a_part_in_it_and_none_is_missed(tiles, seed):
    rows, columns = tiles.patches(SIDE, SIDE)
    region = np.zeros((rows * STRIDE, columns * STRIDE), np.bool_)
    y, x = np.random.default_rng(seed).integers((0, 0), region.shape)
    region[y : y + 9, x : x + 9] = True
    seen = view(tiles, region)
    assert seen.counts.any(axis=1).all()
    merged = seen.merge(np.ones(seen.counts.shape, np.float32).reshape(-1, SIDE, SIDE))
    anomaly_map = seen.maps.anomaly_map(merged)
    np.testing.assert_allclose(anomaly_map[region], 1, rtol=1e-5)
    assert (anomaly_map[~region] == 0).all()


# ---- Through the inspector --------------------------------------------------------------------------------


def tiled(rebundle, tiles, members):
    """The tiny bundle for frames of many tiles; its graph knows nothing of them."""
    rows, columns = tiles.patches(8, 8)
    score = Score(rows * 8, columns * 8, 1.0)
    return decode_bundle(rebundle(members, tiles=tiles, score=score, golden=()), "tiled.lineward")


@pytest.fixture(scope="module")
def without_golden(tiny):
    return {name: None for name in tiny.members if name.startswith("golden/")}


@pytest.fixture(scope="module")
def bundle(rebundle, without_golden):
    return tiled(rebundle, Tiles(3, 4, 2, 1), without_golden)


@pytest.fixture(scope="module")
def frame(golden_frames):
    return np.ascontiguousarray(np.tile(golden_frames[0], (3, 4, 1))[: 20 * 8, : 29 * 8])


def test_an_inspection_of_a_tiled_frame(bundle, frame):
    inspection = Inspector(bundle).inspect(frame)
    assert inspection.anomaly_map.shape == (20 * 8, 29 * 8)
    assert inspection.score == inspection.anomaly_map.max() > 0
    assert inspection.pixels.shape == (12 * 64, 64, 3)
    np.testing.assert_array_equal(inspection.pixels[:64], frame[:64, :64])
    np.testing.assert_array_equal(inspection.pixels[-64:], frame[-64:, -64:])


def test_patch_scores_are_those_of_the_inspection(bundle, frame):
    inspector, frames = Inspector(bundle), [frame, 255 - frame, frame[:, ::-1]]
    for scores, one in zip(inspector.patch_scores(frames), frames, strict=True):
        assert scores.shape == (20, 29)
        np.testing.assert_allclose(bundle.view.maps.anomaly_map(scores), inspector.inspect(one).anomaly_map, atol=1e-6)


@pytest.mark.parametrize(("tiles", "expected"), [(Tiles(2, 3, 2, 1), [6]), (Tiles(3, 4, 2, 1), [8, 4])])
def test_tiles_are_scored_at_once_but_not_any_number_of_them(tiles, expected, rebundle, without_golden, frame):
    batches = []

    class Noting:
        def score(self, images):
            batches.append(len(images))
            return np.zeros((len(images), 8, 8), np.float32)

    Inspector(tiled(rebundle, tiles, without_golden), Noting()).inspect(frame)
    assert batches == expected


def test_every_stage_is_heard_in_order(bundle, frame):
    heard = []
    Inspector(bundle, ended=heard.append).inspect(frame)
    twice = [Stage.EMBEDDING, Stage.SIMILARITY] * 2
    assert heard == [Stage.PREPROCESS, *twice, Stage.MAP, Stage.VERDICT]


@pytest.mark.parametrize("tile", [0, 5, 11])
def test_a_score_that_is_none_rejects_in_whichever_tile(tile, bundle, frame):
    class Broken:
        given = 0

        def score(self, images):
            scores = np.full((len(images), 8, 8), 0.1, np.float32)
            if self.given <= tile < self.given + len(images):
                scores[tile - self.given, 0, 0] = np.nan
            self.given += len(images)
            return scores

    inspection = Inspector(bundle, Broken()).inspect(frame)
    assert (inspection.verdict, inspection.reason) == (Verdict.REJECT, Reason.SCORE_INVALID)


def test_a_region_leaves_tiles_out(rebundle, without_golden, frame):
    region = np.zeros((20 * 8, 29 * 8), np.bool_)
    region[:40, :40] = True
    members = {**without_golden, REGION: encode_region(region)}
    bundle = tiled(rebundle, Tiles(3, 4, 2, 1), members)
    engine_sees = bundle.view.pixels(frame)
    assert len(engine_sees) == 1
    changed = frame.copy()
    changed[60:, 60:] = 0
    inspector = Inspector(bundle)
    assert inspector.inspect(frame).score == inspector.inspect(changed).score > 0


def test_a_large_frame_costs_no_more_than_its_tiles(bundle):
    """12k x 8k pixels: views of the frame are brought to size one after the other."""
    frame = np.broadcast_to(np.uint8(7), (8000, 12000))
    assert bundle.view.pixels(frame).shape == (12, 64, 64, 3)


@pytest.mark.parametrize("shape", [(17, 200), (200, 25), (8, 8)])
def test_a_frame_too_small(shape, bundle):
    with pytest.raises(ImageError, match=f"a frame of {shape[1]}x{shape[0]} pixels is too small to be cut into tiles"):
        bundle.view.pixels(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 0},
        {"columns": 33},
        {"rows": -1},
        {"overlap_rows": -1},
        {"overlap_rows": 5},
        {"overlap_columns": 5},
        {"overlap_columns": 1 << 40},
        {"rows": "2"},
    ],
)
def test_tiles_that_a_runtime_refuses(changes, tiny, rebundle):
    tiles = msgspec.structs.replace(Tiles(2, 3, 1, 1), **changes)
    with pytest.raises(BundleError, match="tiles"):
        decode_bundle(rebundle(tiles=tiles), "b.lineward")
    assert tiny.manifest.tiles is None


def test_more_patches_than_a_device_should_make_a_map_of(rebundle, tiny):
    grid = msgspec.structs.replace(tiny.manifest.grid, rows=128)
    with pytest.raises(BundleError, match="more than 2048 patches a side"):
        decode_bundle(rebundle(tiles=Tiles(32, 1, 0, 0), grid=grid), "b.lineward")


def test_more_pixels_than_a_device_should_make_room_for(rebundle):
    with pytest.raises(BundleError, match="pixels"):
        decode_bundle(rebundle(tiles=Tiles(32, 32, 0, 0), preprocessing=Preprocessing(512, 512)), "b.lineward")
