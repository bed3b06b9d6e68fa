from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lineward.runtime.distinct import distinct_images, fingerprint, pixels_sha256
from lineward.runtime.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def test_a_copy_is_the_same_image_whatever_its_name_and_format(tmp_path: Path):
    for name in ("a.png", "b.bmp", "c.tif"):
        cv2.imwrite(str(tmp_path / name), PIXELS)
    cv2.imwrite(str(tmp_path / "other.png"), PIXELS ^ 1)
    found = distinct_images(sorted(tmp_path.iterdir()))
    assert {path.name for path, _ in found} == {"a.png", "other.png"}
    assert [digest for _, digest in found] == sorted(digest for _, digest in found)


@pytest.mark.parametrize(
    "other", [PIXELS[::-1], PIXELS.reshape(6, 8, 3), PIXELS[:, :, 0], PIXELS.astype(np.uint16)], ids=str
)
def test_pixels_shape_and_depth_all_count(other):
    assert pixels_sha256(other) != pixels_sha256(PIXELS)


def test_order_does_not_change_a_fingerprint():
    assert fingerprint(["b", "a"]) == fingerprint(["a", "b"]) != fingerprint(["a"])


def test_an_unreadable_image_is_named(tmp_path: Path):
    (tmp_path / "cut.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"cut\.png"):
        distinct_images([tmp_path / "cut.png"])
