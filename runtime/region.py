"""The region of interest: which part of the image counts, as a bundle holds it."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import BundleError

Region = NDArray[np.bool_]
"""True where the image counts, bool [map_height, map_width]: the pixels of the anomaly map."""

_GRAY_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_REBUILD = "take the bundle again from where it was made"


def encode_region(region: Region) -> bytes:
    """A region as PNG, 8-bit gray: 255 where the image counts, 0 elsewhere."""
    return bytes(cv2.imencode(".png", region.astype(np.uint8) * np.uint8(255))[1])


def decode_region(data: bytes, height: int, width: int, where: str) -> Region:
    """The region that a bundle holds.

    Args:
        data: a PNG as `encode_region` writes it.
        height: rows that it must have: those of the anomaly map.
        width: its columns.
        where: names it in errors.

    Raises:
        BundleError: it is no such PNG, of another size, has other values than 0 and 255, or nothing counts.
    """
    # The header first: a decoder makes room for whatever size it claims.
    header = struct.pack(">IIBB", width, height, 8, 0)
    pixels = None
    if data.startswith(_GRAY_PNG + header):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (height, width):
        raise BundleError(f"{where}: should be an 8-bit gray PNG of {width}x{height} pixels", do=_REBUILD)
    region = pixels == 255
    if not np.array_equal(region, pixels != 0):
        raise BundleError(f"{where}: should hold 0 and 255 alone", do=_REBUILD)
    if not region.any():
        raise BundleError(f"{where}: nothing of the image counts", do=_REBUILD)
    return np.asarray(region)


def patches_within(region: Region, rows: int, columns: int) -> NDArray[np.bool_]:
    """The patches that count, bool [rows, columns]: those of which any pixel does."""
    height, width = region.shape
    tops, lefts = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    return np.asarray(np.logical_or.reduceat(np.logical_or.reduceat(region, tops, axis=0), lefts, axis=1))
