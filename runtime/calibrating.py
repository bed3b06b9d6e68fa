"""From a device's own good images to its own threshold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lineward.runtime.bundle import Bundle
from lineward.runtime.calibration_file import FORMAT, Calibration
from lineward.runtime.conformal import calibrate, check_support
from lineward.runtime.distinct import distinct_images, fingerprint
from lineward.runtime.errors import CalibrationError, ImageError
from lineward.runtime.images import decode_image, read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Threshold
from lineward.runtime.preprocessing import Frame


def calibrate_device(
    inspector: Inspector,
    paths: Sequence[Path],
    false_reject_rate: float,
    confidence: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Calibration:
    """Find the threshold that keeps a promise on this device's own good parts.

    Args:
        inspector: the bundle and the engine to calibrate; its own threshold plays no part.
        paths: images of good parts, none of which built the bundle's bank.
        false_reject_rate: promised share of good parts rejected, at most.
        confidence: with which it is kept; None for on average over calibrations.
        progress: called with the images scored so far.

    Raises:
        CalibrationError: too few different images for the promise, scores that cannot be those of different good parts,
            or a threshold that would let pass what the bundle knows to be defective.
        ImageError: an image cannot be read, or is of another shape or kind than the others or the bundle's own.
    """
    bundle = inspector.bundle
    check_support(false_reject_rate, len(paths), confidence)
    distinct = distinct_images(paths)
    check_support(false_reject_rate, len(distinct), confidence)
    scores = score_good_parts(inspector, [path for path, _ in distinct], progress)
    data = fingerprint(digest for _, digest in distinct)
    threshold = calibrate(scores, false_reject_rate, confidence, seed=0, data_sha256=data)
    check_still_rejects(bundle, threshold)
    return Calibration(
        format=FORMAT,
        product=bundle.manifest.product,
        bundle_version=bundle.manifest.version,
        bundle_sha256=bundle.sha256,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        copies=len(paths) - len(distinct),
        threshold=threshold,
    )


def score_good_parts(
    inspector: Inspector, paths: Sequence[Path], progress: Callable[[int], None] = lambda _: None
) -> list[float]:
    """The image scores of good parts, all photographed alike.

    Raises:
        CalibrationError: an image has no finite score.
        ImageError: an image cannot be read, or is of another shape or kind than the first, or has colour where the
            bundle's own images are gray, or the other way round.
    """
    scores = []
    camera = OneCamera(inspector.bundle)
    for done, path in enumerate(paths, 1):
        frame = camera.read(path)
        score = inspector.inspect(frame).score
        if not math.isfinite(score):
            raise CalibrationError(f"{path}: has no finite score", do="look at this image, and leave it out if damaged")
        scores.append(score)
        progress(done)
    return scores


class OneCamera:
    """Reads images, and makes sure that they are photographed alike, and in colour or gray as a bundle's own are."""

    def __init__(self, bundle: Bundle | None = None) -> None:
        self._golden = None if bundle is None else _golden_frame(bundle)
        self._first: tuple[Path, Frame] | None = None

    def read(self, path: Path) -> Frame:
        """Read an image.

        Raises:
            ImageError: it cannot be read, or is of another shape or kind than the first or the bundle's own.
        """
        frame = read_image(path)
        first_path, first = self._first = self._first or (path, frame)
        if frame.shape != first.shape or frame.dtype != first.dtype:
            raise ImageError(
                f"{path}: {_describe(frame)}, but {first_path} is {_describe(first)}",
                do="use images of one camera, taken with the same settings",
            )
        if self._golden is not None and frame.ndim != self._golden.ndim:
            raise ImageError(
                f"{path}: {_describe(frame)}, but the bundle learned from images in {_colour(self._golden)}",
                do="use images as the camera of this bundle gives them",
            )
        return frame


def check_still_rejects(bundle: Bundle, threshold: Threshold) -> None:
    """Check that a threshold rejects every golden image that the bundle's own rejects.

    Raises:
        CalibrationError: it would let one pass, so the images it came from were hardly good parts of this product.
    """
    for golden in bundle.manifest.golden:
        if bundle.manifest.threshold.value < golden.image_score <= threshold.value:
            name, score = golden.image, golden.image_score
            raise CalibrationError(
                f"a threshold of {threshold.value:.4f} would pass {name}, a known defect that scores {score:.4f}",
                do="look whether the images show good parts of this product, sharp and lit as on the line",
            )


def _golden_frame(bundle: Bundle) -> Frame | None:
    for golden in bundle.manifest.golden:
        return decode_image(bundle.members[golden.image], golden.image)
    return None


def _describe(frame: Frame) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]} pixels in {_colour(frame)}, {8 * frame.itemsize} bits"


def _colour(frame: Frame) -> str:
    return "gray" if frame.ndim == 2 else "colour"
