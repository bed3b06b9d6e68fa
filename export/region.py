"""The region of interest as people give it: a mask image, or a polygon."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import read_image
from lineward.runtime.preprocessing import as_rgb8
from lineward.runtime.region import Region

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_POLYGON = re.compile(rf"\s*{_NUMBER},{_NUMBER}(?:\s+{_NUMBER},{_NUMBER})*\s*", re.IGNORECASE)
_WHITE = 127  # what JPEG makes of black and white stays on its side of the middle
_FINER = 4
"""Times finer that a polygon is drawn: OpenCV draws its edge too, a pixel wide, which must not make a pixel count."""


def read_region(text: str, frame: tuple[int, int], height: int, width: int) -> Region:
    """Read a region of interest.

    Args:
        text: a mask image's path, white where the image counts; or a polygon's corners, `x,y x,y x,y`, in pixels of the
            frame, or as fractions of its sides if none is above 1.
        frame: rows and columns of the frames.
        height: rows of the region.
        width: its columns.

    Returns:
        bool [height, width].

    Raises:
        DataError: the polygon has too few corners or leaves the frame, the mask is of another shape than the frames,
            or nothing counts.
        ImageError: the mask cannot be read.
    """
    mask = _polygon(text, frame, height, width) if _POLYGON.fullmatch(text) else _mask(text, frame)
    region = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > _WHITE)
    if not region.any():
        raise DataError(
            f"region {text}: nothing of the image counts at {width}x{height} pixels, at which it is inspected",
            do="draw what is to be inspected in white, larger than such a pixel",
        )
    return region


def _mask(text: str, frame: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        mask = as_rgb8(read_image(Path(text))).min(axis=2)
    except ImageError as error:
        raise ImageError(
            f"region {error.what}",
            do='name a mask image, white where the part is, or corners of a polygon: "x,y x,y x,y"',
        ) from error
    # Drawn over a smaller copy of a frame it serves as well, if that had the frame's shape, to half a pixel a side.
    apart = abs(mask.shape[0] * frame[1] - mask.shape[1] * frame[0])
    if apart > sum(frame) / 2:
        raise DataError(
            f"region {text}: {mask.shape[1]}x{mask.shape[0]} pixels, but the images have {frame[1]}x{frame[0]}",
            do="draw it over one of the images",
        )
    return np.asarray(mask, dtype=np.uint8)


def _polygon(text: str, frame: tuple[int, int], height: int, width: int) -> NDArray[np.uint8]:
    corners = np.array([[float(number) for number in corner.split(",")] for corner in text.split()])
    if len(corners) < 3:
        raise DataError(f"region {text}: {len(corners)} corners", do="give three or more")
    sides = np.array([1, 1] if corners.max() <= 1 else [frame[1], frame[0]])
    if not (np.all(corners >= 0) and np.all(corners <= sides)):  # false for infinities too
        raise DataError(
            f"region {text}: leaves the image, which has {frame[1]}x{frame[0]} pixels",
            do="give corners in pixels, or as fractions from 0 to 1",
        )
    mask = np.zeros((_FINER * height, _FINER * width), np.uint8)
    # Corners lie on edges of pixels, OpenCV's on their centres.
    places = corners / sides * mask.shape[::-1] - 0.5
    cv2.fillPoly(mask, [np.round(places).astype(np.int32)], (255,))
    return mask
