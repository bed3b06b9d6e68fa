"""From a camera frame to the pixels that the embedding graph takes, bit for bit the same everywhere.

OpenCV's plain bilinear resize differs between x86 and Arm by up to one grey level, with a bias; a bank learned on
one would be shifted on the other. INTER_LINEAR_EXACT is integer arithmetic and equal on both, but it does not
low-pass, so a frame much larger than its target would alias. Hence the halving ladder: exact means of 2x2 pixels while
a side is even and at least twice its target; then one exact resize to the nearest target * 2^k that is not smaller, and
k more such means. The first halvings are for speed: 1024 to 320 pixels a side takes a quarter of the time.
"""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import ImageError

Frame = NDArray[np.uint8] | NDArray[np.uint16]
"""A camera frame: uint8 or uint16, [H, W] gray or [H, W, 3] RGB."""

RESIZE = "halving-ladder-of-linear-exact/2"
DEPTH = "high-byte"
COLOUR = "RGB"
SMALLEST_SIDE = 8
"""Pixels of a frame's side, at least."""


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to a frame before the embedding graph, to the letter, as stored in a bundle.

    Attributes:
        width: columns of the graph's input, in pixels.
        height: rows of the graph's input, in pixels.
        resize: the one resize there is, with its version.
        depth: how 16-bit pixels become 8-bit ones (the high byte).
        colour: channel order of the graph's input; gray frames are repeated.
    """

    width: int
    height: int
    resize: str = RESIZE
    depth: str = DEPTH
    colour: str = COLOUR


def preprocess(frame: Frame, spec: Preprocessing) -> NDArray[np.uint8]:
    """Bring a frame to the graph's size, depth and colour order.

    Args:
        frame: uint8 or uint16, [H, W] gray or [H, W, 3] RGB.
        spec: the bundle's preprocessing.

    Returns:
        uint8 [spec.height, spec.width, 3], RGB, C-contiguous.

    Raises:
        ImageError: the frame has another shape or type.
    """
    return as_rgb8(_resize(_eight_bit(check_frame(frame)), spec.width, spec.height))


def preprocessed_sha256(frame: Frame, spec: Preprocessing) -> str:
    """SHA-256 of a frame's preprocessed pixels, in hexadecimal: equal on every device, or the device is not fit."""
    return hashlib.sha256(preprocess(frame, spec).tobytes()).hexdigest()


def as_rgb8(frame: Frame) -> NDArray[np.uint8]:
    """A frame as uint8 [H, W, 3], RGB; the frame itself where it is that already."""
    pixels = _eight_bit(frame)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels  # type: ignore[return-value]


def check_frame(frame: Any) -> Frame:
    """Return the frame if it can be inspected.

    Raises:
        ImageError: it is not an array, has another shape or type, or is smaller than 8 pixels a side.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype not in (np.uint8, np.uint16):
        kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ImageError(f"a frame of {kind} cannot be inspected", do="pass a uint8 or uint16 array")
    if frame.ndim != 2 and not (frame.ndim == 3 and frame.shape[2] == 3):
        raise ImageError(f"a frame of shape {frame.shape} cannot be inspected", do="pass [H, W] gray or [H, W, 3] RGB")
    if min(frame.shape[:2]) < SMALLEST_SIDE:
        raise ImageError(
            f"a frame of {frame.shape[1]}x{frame.shape[0]} pixels cannot be inspected",
            do=f"pass at least {SMALLEST_SIDE} pixels a side",
        )
    return frame


def _eight_bit(frame: Frame) -> NDArray[np.uint8]:
    return (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame.astype(np.uint8, copy=False)


def _resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = pixels.shape[:2]
    while (_halved(columns, width), _halved(rows, height)) != (columns, rows):
        columns, rows = _halved(columns, width), _halved(rows, height)
        pixels = _resize_exact(pixels, columns, rows)
    columns, rows = width << _halvings(columns, width), height << _halvings(rows, height)
    pixels = _resize_exact(pixels, columns, rows)
    while (columns, rows) != (width, height):
        columns, rows = max(columns >> 1, width), max(rows >> 1, height)
        pixels = _resize_exact(pixels, columns, rows)
    return np.ascontiguousarray(pixels)


def _halved(side: int, target: int) -> int:
    """Half of a side that is even and at least twice its target; any other side as it is."""
    return side // 2 if side % 2 == 0 and side >= 2 * target else side


def _halvings(source: int, target: int) -> int:
    """Smallest k with target * 2^k >= source, and 0 when the source is the smaller one."""
    return max(0, (source - 1) // target).bit_length()


def _resize_exact(pixels: NDArray[np.uint8], columns: int, rows: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (rows, columns):
        return pixels
    return cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT)  # type: ignore[return-value]
