"""The trigger-to-verdict path for one image: preprocess, score, map, decide."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.anomaly_map import image_score
from lineward.runtime.blob import largest_blob
from lineward.runtime.bundle import Bundle
from lineward.runtime.calibration_file import Calibration, check_bound
from lineward.runtime.engines import Engine, OnnxRuntimeEngine
from lineward.runtime.inspection import Inspection, Reason, decide
from lineward.runtime.manifest import MinimumArea
from lineward.runtime.preprocessing import Frame
from lineward.runtime.stages import Stage, StageEnded, nobody

_BATCH = 8
"""Inputs that an engine is given at once: a frame, or one of its tiles."""


class Inspector:
    """Inspects images with a bundle.

    Args:
        bundle: what to inspect with.
        engine: the hardware to score on; onnxruntime on the CPU by default.
        ended: hears each stage of `inspect` end, for measuring; an engine given must be told of it as well, or its
            embedding is heard as a part of similarity.
        calibration: this device's own threshold; the bundle's by default.

    Attributes:
        bundle: what it inspects with.
        threshold: the one that applies.

    Raises:
        CalibrationError: the calibration belongs to another bundle.

    Example:
        >>> inspector = Inspector(read_bundle("bottle.lineward"))
        >>> inspector.inspect(read_image("part.png")).verdict
        <Verdict.PASS: 'pass'>
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine | None = None,
        ended: StageEnded = nobody,
        calibration: Calibration | None = None,
    ) -> None:
        if calibration is not None:
            check_bound(calibration, bundle)
        self.bundle = bundle
        self.threshold = bundle.manifest.threshold if calibration is None else calibration.threshold
        self._engine = engine or OnnxRuntimeEngine(bundle, ended=ended)
        self._ended = ended
        self._view, self._maps = bundle.view, bundle.view.maps

    def inspect(self, frame: Frame) -> Inspection:
        """Inspect one frame.

        Args:
            frame: uint8 or uint16, [H, W] gray or [H, W, 3] RGB, of any size.

        Raises:
            ImageError: the frame has another shape or type.
            EngineError: the engine failed.
        """
        start = time.perf_counter()
        pixels = self._view.pixels(frame)
        seen = pixels.reshape(-1, *pixels.shape[2:])
        self._ended(Stage.PREPROCESS)
        patch_scores = self._view.merge(self._score(pixels))
        anomaly_map = self._maps.anomaly_map(patch_scores)
        self._ended(Stage.MAP)
        area = self.bundle.manifest.score.area
        score = image_score(anomaly_map, area)
        threshold = self.threshold.value
        verdict, reason = decide(score, threshold)
        inspection = Inspection(verdict, reason, score, threshold, anomaly_map, time.perf_counter() - start, seen)
        if area is not None:
            inspection = _with_area(inspection, area)
        self._ended(Stage.VERDICT)
        return inspection

    def patch_scores(self, frames: Iterable[Frame], batch: int = _BATCH) -> Iterator[NDArray[np.float32]]:
        """Patch scores, float32 [rows, columns], of each frame; the batch changes the speed, not the result."""
        inputs = len(self._view.counts)
        for chunk in _chunks(frames, max(1, batch // inputs)):
            scores = self._score(np.concatenate([self._view.pixels(frame) for frame in chunk]))
            for start in range(0, len(scores), inputs):
                yield self._view.merge(scores[start : start + inputs])

    def _score(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Patch scores of inputs, float32 [N, rows, columns]: so many at a time that memory does not grow with them."""
        scores = []
        for start in range(0, len(pixels), _BATCH):
            scores.append(self._engine.score(pixels[start : start + _BATCH]))
            self._ended(Stage.SIMILARITY)
        return scores[0] if len(scores) == 1 else np.concatenate(scores)


def _with_area(i: Inspection, area: MinimumArea) -> Inspection:
    """What the area has to do with a verdict; the verdict itself is the score's."""
    assert i.anomaly_map is not None
    level = area.level * i.threshold
    faint = i.reason is Reason.ABOVE_THRESHOLD and float(np.max(i.anomaly_map)) <= i.threshold
    reason = Reason.AREA_ABOVE_THRESHOLD if faint else i.reason
    return replace(i, reason=reason, pixel_threshold=level, area=largest_blob(i.anomaly_map, level))


def _chunks(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
