"""How well a bundle does on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lineward.calibration.metrics import Confusion, PixelHistograms, confusion_at, f1_max, image_auroc
from lineward.export.datasets import Sample, read_mask
from lineward.runtime.errors import DataError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector


@dataclass(frozen=True)
class Result:
    """What the bundle said of one labelled image.

    Attributes:
        sample: the image and its label.
        score: its image score.
        verdict: what the line would have been told.
        seconds: from frame to verdict.
    """

    sample: Sample
    score: float
    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of a bundle on labelled images.

    Attributes:
        results: every image.
        threshold: the bundle's own.
        image_auroc: probability that a defective image scores above a good one; None without both kinds.
        f1: greatest F1 of the image scores over all thresholds; None without both kinds.
        f1_threshold: the threshold that gives it.
        pixel_auroc: the same of pixels; None without ground-truth masks.
        aupro: area under the per-region overlap up to a false-positive rate of 0.3; None without masks.
        confusion: good and defective images, passed and rejected at the bundle's threshold.
    """

    results: tuple[Result, ...]
    threshold: float
    image_auroc: float | None
    f1: float | None
    f1_threshold: float | None
    pixel_auroc: float | None
    aupro: float | None
    confusion: Confusion


def evaluate(
    inspector: Inspector, samples: Sequence[Sample], progress: Callable[[int], None] = lambda _: None
) -> Evaluation:
    """Inspect labelled images and compare with their labels.

    Pixel figures are taken at the images' own size, over good images and all defective ones that have masks.

    Raises:
        DataError: there are no labelled images.
        ImageError: an image or mask cannot be read.
    """
    if not samples:
        raise DataError("no labelled images to evaluate on", do="pass a folder with test/good and test/<defect>")
    results = []
    pixels = PixelHistograms()
    for done, sample in enumerate(samples, 1):
        frame = read_image(sample.path)
        inspection = inspector.inspect(frame)
        results.append(Result(sample, inspection.score, inspection.verdict, inspection.seconds))
        if inspection.anomaly_map is not None and (sample.masks or not sample.defective):
            height, width = frame.shape[:2]
            scores = cv2.resize(inspection.anomaly_map, (width, height)).astype(np.float32)
            pixels.update(scores, read_mask(sample, (height, width)))
        progress(done)
    return _figures(tuple(results), inspector.bundle.manifest.threshold.value, pixels)


def _figures(results: tuple[Result, ...], threshold: float, pixels: PixelHistograms) -> Evaluation:
    scores = np.array([r.score for r in results])
    labels = np.array([r.sample.defective for r in results])
    both = bool(labels.any() and not labels.all())
    f1, f1_threshold = f1_max(scores, labels) if both else (None, None)
    return Evaluation(
        results=results,
        threshold=threshold,
        image_auroc=image_auroc(scores, labels) if both else None,
        f1=f1,
        f1_threshold=f1_threshold,
        pixel_auroc=pixels.auroc() if pixels.regions else None,
        aupro=pixels.aupro() if pixels.regions else None,
        confusion=confusion_at(scores, labels, threshold),
    )
