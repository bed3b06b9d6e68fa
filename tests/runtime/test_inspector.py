from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
import pytest

from lineward.runtime.bundle import decode_bundle
from lineward.runtime.engines import OnnxRuntimeEngine
from lineward.runtime.errors import EngineError, ImageError
from lineward.runtime.inspection import Reason, Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import preprocess
from lineward.runtime.stages import Stage


class FixedEngine:
    """Gives every image the same patch scores."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float32)

    def score(self, images):
        return np.repeat(self.scores[np.newaxis], len(images), axis=0)


class BrokenEngine:
    def score(self, images):
        raise EngineError(f"no scores for {len(images)} images", do="try again")


@pytest.fixture(scope="module")
def inspector(tiny):
    return Inspector(tiny)


@pytest.fixture(scope="module")
def frames(golden_frames):
    """Frames of several sizes, depths and colours."""
    good = golden_frames[0]
    random = np.random.RandomState(0)
    noise = [random.randint(0, 256, shape).astype(np.uint8) for shape in ((64, 64, 3), (100, 80), (64, 48, 3))]
    return [*golden_frames, good[:, ::-1], 255 - good, good.astype(np.uint16) << 8, good[:, :, 1], *noise] + [
        np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)
    ]


def test_golden_images_give_what_was_packed(tiny, inspector, golden_frames):
    for golden, frame in zip(tiny.manifest.golden, golden_frames, strict=True):
        pixels = preprocess(frame, tiny.manifest.preprocessing)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == golden.preprocessed_sha256
        scores = next(inspector.patch_scores([frame]))
        np.testing.assert_allclose(
            scores, tiny.golden_scores(golden.scores), rtol=0, atol=tiny.manifest.golden_tolerance
        )
        assert inspector.inspect(frame).score == pytest.approx(golden.image_score, abs=tiny.manifest.golden_tolerance)


def test_what_an_inspection_says(tiny, inspector, golden_frames):
    inspection = inspector.inspect(golden_frames[0])
    assert inspection.verdict is Verdict.PASS
    assert inspection.reason is Reason.WITHIN_THRESHOLD
    assert inspection.threshold == tiny.manifest.threshold.value
    assert inspection.anomaly_map.shape == (64, 64)
    assert inspection.anomaly_map.dtype == np.float32
    assert inspection.score == inspection.anomaly_map.max()
    assert inspection.anomaly_map.min() >= 0
    np.testing.assert_array_equal(
        inspection.pixels, preprocess(golden_frames[0], inspector.bundle.manifest.preprocessing)
    )
    assert 0 < inspection.seconds < 60


def test_a_part_unlike_the_good_ones_is_rejected(inspector, golden_frames):
    inspection = inspector.inspect(255 - golden_frames[0])
    assert inspection.verdict is Verdict.REJECT
    assert inspection.reason is Reason.ABOVE_THRESHOLD
    assert inspection.score > inspection.threshold


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8, 100])
def test_a_batch_gives_what_each_gives_alone(batch, inspector, frames):
    """To 1e-6; on an x86 it is to the bit, but onnxruntime may sum in another order for another number of rows."""
    alone = [next(inspector.patch_scores([frame])) for frame in frames]
    together = list(inspector.patch_scores(frames, batch))
    assert len(together) == len(frames)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_order_does_not_matter(inspector, frames):
    order = np.random.RandomState(0).permutation(len(frames))
    straight = [inspector.inspect(frame).anomaly_map for frame in frames]
    shuffled = [inspector.inspect(frames[index]).anomaly_map for index in order]
    np.testing.assert_array_equal(shuffled, [straight[index] for index in order])


def test_repeats_are_equal_to_the_bit(tiny, inspector, frames):
    for frame in frames[:4]:
        first = inspector.inspect(frame)
        for other in (inspector, Inspector(tiny)):
            again = other.inspect(frame)
            np.testing.assert_array_equal(again.anomaly_map, first.anomaly_map)
            assert again.score == first.score


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_change_the_speed_and_not_the_result(threads, tiny, inspector, frames):
    other = Inspector(tiny, OnnxRuntimeEngine(tiny, threads))
    for frame in frames:
        np.testing.assert_allclose(
            other.inspect(frame).anomaly_map, inspector.inspect(frame).anomaly_map, rtol=0, atol=1e-6
        )


def test_patch_scores_takes_frames_one_batch_at_a_time(tiny, golden_frames):
    taken = 0

    def camera():
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield golden_frames[0]

    scores = Inspector(tiny, FixedEngine(np.zeros((8, 8)))).patch_scores(camera(), batch=4)
    next(scores)
    assert taken == 4
    assert len(list(scores)) == 99


def test_no_frames_no_scores(inspector):
    assert list(inspector.patch_scores([])) == []


@pytest.mark.parametrize(
    "frame",
    [None, "part.png", np.zeros((64, 64), np.float32), np.zeros((64, 64, 4), np.uint8), np.zeros((4, 4), np.uint8)],
    ids=["none", "path", "float", "alpha", "small"],
)
def test_frames_that_cannot_be_inspected(frame, inspector):
    with pytest.raises(ImageError):
        inspector.inspect(frame)
    with pytest.raises(ImageError):
        next(inspector.patch_scores([frame]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spread", ["one patch", "all patches"])
def test_scores_that_are_not_finite_reject(value, spread, tiny, golden_frames):
    scores = np.zeros((8, 8))
    scores[(3, 4) if spread == "one patch" else ...] = value
    inspection = Inspector(tiny, FixedEngine(scores)).inspect(golden_frames[0])
    assert inspection.verdict is Verdict.REJECT
    assert inspection.reason is Reason.SCORE_INVALID
    assert not math.isfinite(inspection.score)


def test_the_threshold_is_the_bundles(tiny, rebundle, golden_frames):
    """A constant map: its score is known to the bit, and equality passes."""
    engine = FixedEngine(np.full((8, 8), 0.5))
    score = Inspector(tiny, engine).inspect(golden_frames[0]).score
    for value, verdict in ((score, Verdict.PASS), (math.nextafter(score, 0), Verdict.REJECT)):
        threshold = msgspec.structs.replace(tiny.manifest.threshold, value=value)
        bundle = decode_bundle(rebundle(threshold=threshold), "other.lineward")
        assert Inspector(bundle, engine).inspect(golden_frames[0]).verdict is verdict


def test_a_failing_engine_is_heard(tiny, golden_frames):
    with pytest.raises(EngineError, match="no scores for 1 images"):
        Inspector(tiny, BrokenEngine()).inspect(golden_frames[0])


@pytest.mark.parametrize("tells", [True, False], ids=["engine tells", "engine does not"])
def test_stages_are_heard_in_order_and_change_no_result(tells, tiny, inspector, golden_frames):
    heard = []
    engine = OnnxRuntimeEngine(tiny, ended=heard.append) if tells else OnnxRuntimeEngine(tiny)
    watched = Inspector(tiny, engine, heard.append)
    for frame in golden_frames:
        heard.clear()
        assert watched.inspect(frame).score == inspector.inspect(frame).score
        expected = [stage for stage in Stage if stage is not Stage.DECODE and (tells or stage is not Stage.EMBEDDING)]
        assert heard == expected


def test_an_inspector_tells_the_engine_it_opens_who_hears(tiny, golden_frames):
    heard = []
    Inspector(tiny, ended=heard.append).inspect(golden_frames[0])
    assert Stage.EMBEDDING in heard


@pytest.mark.parametrize(("rows", "columns"), [(4, 16), (16, 4)])
def test_grids_need_not_be_square(rows, columns, tiny, rebundle, golden_frames):
    """The same patches laid out otherwise: scores keep their row-major order."""
    grid = msgspec.structs.replace(tiny.manifest.grid, rows=rows, columns=columns)
    bundle = decode_bundle(rebundle(grid=grid), "other.lineward")
    scores = next(Inspector(bundle).patch_scores(golden_frames[:1]))
    np.testing.assert_array_equal(scores.ravel(), next(Inspector(tiny).patch_scores(golden_frames[:1])).ravel())
    assert Inspector(bundle).inspect(golden_frames[0]).anomaly_map.shape == (64, 64)
