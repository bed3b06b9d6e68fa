from __future__ import annotations

import math
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.calibrating import calibrate_device, check_still_rejects
from lineward.runtime.conformal import split_conformal
from lineward.runtime.distinct import distinct_images, fingerprint
from lineward.runtime.errors import CalibrationError, ImageError
from lineward.runtime.images import encode_png, read_image, write_png
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame

RATE = 0.2


@pytest.fixture
def good(tmp_path: Path, golden_frames: list[Frame]) -> list[Path]:
    """A dozen pictures of the good golden part, each a little lighter than the last."""
    paths = [tmp_path / f"{i:02d}.png" for i in range(12)]
    for i, path in enumerate(paths):
        write_png(path, np.clip(golden_frames[0].astype(int) + i, 0, 255).astype(np.uint8))
    return paths


@pytest.fixture
def strict(rebundle, tiny: Bundle) -> Bundle:
    """The tiny bundle with a threshold between its golden images."""
    good, defect = (golden.image_score for golden in tiny.manifest.golden)
    threshold = msgspec.structs.replace(tiny.manifest.threshold, value=(good + defect) / 2)
    return decode_bundle(rebundle(threshold=threshold), "strict")


@pytest.fixture
def lenient(rebundle, tiny: Bundle) -> Inspector:
    """The tiny bundle without its golden defect."""
    golden = tiny.manifest.golden[0]
    kept = {
        name: None for name in tiny.members if name.startswith("golden/") and name not in (golden.image, golden.scores)
    }
    return Inspector(decode_bundle(rebundle(kept, golden=(golden,)), "lenient"))


def test_the_threshold_is_the_devices_own(tiny: Bundle, good: list[Path]):
    inspector = Inspector(tiny)
    made = calibrate_device(inspector, good, RATE)
    scores = [inspector.inspect(read_image(path)).score for path in good]
    assert made.threshold.value == split_conformal(scores, RATE)
    assert (made.threshold.sample_size, made.copies) == (12, 0)
    assert (made.bundle_sha256, made.product) == (tiny.sha256, tiny.manifest.product)
    assert made.threshold.data_sha256 == fingerprint(digest for _, digest in distinct_images(good))
    assert Inspector(tiny, calibration=made).threshold == made.threshold


def test_copies_are_left_out_whatever_their_format(tiny: Bundle, good: list[Path], tmp_path: Path):
    copies = [tmp_path / f"copy{i}.bmp" for i in range(3)]
    for copy in copies:
        cv2.imwrite(str(copy), cv2.imread(str(good[0]), cv2.IMREAD_UNCHANGED))
    made = calibrate_device(Inspector(tiny), [*good, *copies], RATE)
    assert (made.threshold.sample_size, made.copies) == (12, 3)
    assert made.threshold == calibrate_device(Inspector(tiny), good, RATE).threshold


def test_copies_are_no_evidence(tiny: Bundle, good: list[Path], tmp_path: Path):
    for i in range(30):
        (tmp_path / f"again{i}.png").write_bytes(good[0].read_bytes())
    with pytest.raises(CalibrationError, match=r"^1 held-out good images cannot support"):
        calibrate_device(Inspector(tiny), sorted(tmp_path.glob("again*.png")), RATE)


@pytest.mark.parametrize(
    ("count", "rate", "confidence"), [(3, 0.2, None), (12, 0.05, None), (12, 0.2, 0.95), (0, 0.2, None)]
)
def test_too_few_images_are_told_how_many_it_takes(
    tiny: Bundle, good: list[Path], count: int, rate: float, confidence: float | None
):
    with pytest.raises(CalibrationError, match=f"^{count} held-out good images cannot support"):
        calibrate_device(Inspector(tiny), good[:count], rate, confidence)


def other_size(frame: Frame) -> Frame:
    return frame[:-8]


def gray(frame: Frame) -> Frame:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else np.dstack([frame] * 3)


def deep(frame: Frame) -> Frame:
    return frame.astype(np.uint16) << 8


@pytest.mark.parametrize("change", [other_size, gray, deep])
def test_one_image_that_is_not_like_the_others_is_named(tiny: Bundle, good: list[Path], change):
    good[7].write_bytes(encode_png(change(read_image(good[7]))))
    with pytest.raises(ImageError, match=r"pixels in (gray|colour), (8|16) bits, but .* is"):
        calibrate_device(Inspector(tiny), good, RATE)


def test_gray_images_are_no_evidence_for_a_bundle_in_colour(tiny: Bundle, good: list[Path]):
    for path in good:
        path.write_bytes(encode_png(gray(read_image(path))))
    with pytest.raises(ImageError, match="but the bundle learned from images in"):
        calibrate_device(Inspector(tiny), good, RATE)


def test_a_damaged_image_is_named(tiny: Bundle, good: list[Path]):
    good[5].write_bytes(b"cut")
    with pytest.raises(ImageError, match=r"05\.png"):
        calibrate_device(Inspector(tiny), good, RATE)


def test_pictures_of_something_else_do_not_open_the_gate(strict: Bundle, tmp_path: Path, golden_frames: list[Frame]):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"noise{i}.png" for i in range(12)]
    for path in paths:
        write_png(path, rng.integers(0, 256, golden_frames[0].shape, dtype=np.uint8))
    with pytest.raises(CalibrationError, match=r"would pass golden/defect\.png, a known defect"):
        calibrate_device(Inspector(strict), paths, RATE)


def test_a_threshold_just_below_the_known_defect_is_allowed(strict: Bundle):
    defect = strict.manifest.golden[1].image_score
    threshold = strict.manifest.threshold
    check_still_rejects(strict, msgspec.structs.replace(threshold, value=math.nextafter(defect, 0)))
    with pytest.raises(CalibrationError, match="known defect"):
        check_still_rejects(strict, msgspec.structs.replace(threshold, value=defect))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_named(tiny: Bundle, good: list[Path], wrong: float):
    class Broken:
        def score(self, images):
            rows, columns = tiny.manifest.grid.rows, tiny.manifest.grid.columns
            return np.full((len(images), rows, columns), wrong, np.float32)

    with pytest.raises(CalibrationError, match=r"\.png: has no finite score"):
        calibrate_device(Inspector(tiny, Broken()), good, RATE)


def test_a_camera_that_shows_nothing_is_no_evidence(lenient: Inspector, good: list[Path]):
    class Constant:
        def score(self, images):
            grid = lenient.bundle.manifest.grid
            return np.full((len(images), grid.rows, grid.columns), 0.1, np.float32)

    with pytest.raises(CalibrationError, match="all 12 held-out good images have the same score"):
        calibrate_device(Inspector(lenient.bundle, Constant()), good, RATE)
