"""The trigger-to-verdict path for one image: preprocess, score, map, decide."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.anomaly_map import MapMaker, image_score
from lineward.runtime.blob import largest_blob
from lineward.runtime.bundle import Bundle
from lineward.runtime.calibration_file import Calibration, check_bound
from lineward.runtime.engines import Engine, OnnxRuntimeEngine
from lineward.runtime.inspection import Inspection, Reason, decide
from lineward.runtime.manifest import MinimumArea
from lineward.runtime.preprocessing import Frame, preprocess
from lineward.runtime.stages import Stage, StageEnded, nobody


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
        self._maps = MapMaker(bundle.manifest.grid, bundle.manifest.score)

    def inspect(self, frame: Frame) -> Inspection:
        """Inspect one frame.

        Args:
            frame: uint8 or uint16, [H, W] gray or [H, W, 3] RGB, of any size.

        Raises:
            ImageError: the frame has another shape or type.
            EngineError: the engine failed.
        """
        start = time.perf_counter()
        pixels = preprocess(frame, self.bundle.manifest.preprocessing)
        self._ended(Stage.PREPROCESS)
        patch_scores = self._engine.score(pixels[np.newaxis])[0]
        self._ended(Stage.SIMILARITY)
        anomaly_map = self._maps.anomaly_map(patch_scores)
        self._ended(Stage.MAP)
        area = self.bundle.manifest.score.area
        score = image_score(anomaly_map, area)
        threshold = self.threshold.value
        verdict, reason = decide(score, threshold)
        inspection = Inspection(verdict, reason, score, threshold, anomaly_map, time.perf_counter() - start, pixels)
        if area is not None:
            inspection = _with_area(inspection, area)
        self._ended(Stage.VERDICT)
        return inspection

    def patch_scores(self, frames: Iterable[Frame], batch: int = 8) -> Iterator[NDArray[np.float32]]:
        """Patch scores, float32 [rows, columns], of each frame; the batch changes the speed, not the result."""
        spec = self.bundle.manifest.preprocessing
        for chunk in _chunks(frames, batch):
            yield from self._engine.score(np.stack([preprocess(frame, spec) for frame in chunk]))


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
