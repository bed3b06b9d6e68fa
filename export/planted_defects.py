"""Small defects planted into photos of good parts, for where no defective part is at hand.

They stand for what a neighbourhood of patches can show: a piece of the part in the wrong place (Li et al., "CutPaste",
CVPR 2021), a scratch, a stain. They are no model of real defects: they compare two graphs on the same images, and say
nothing of how many real defects either would find.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.preprocessing import Frame

Floats = NDArray[np.float32]

_SIDE = (1 / 16, 1 / 8)
"""Least and greatest side of a defect, in sides of the image."""
_CONTRAST = (0.15, 0.35)
"""Least and greatest change by a scratch or stain, in the range of grey levels."""


def plant_defects(frame: Frame, seed: int) -> list[Frame]:
    """The frame with one defect of each kind in turn.

    Args:
        frame: uint8 or uint16, [H, W] gray or [H, W, 3] RGB.
        seed: of every random choice.

    Returns:
        One frame for each kind, of the shape and type of the one given.
    """
    rng = np.random.default_rng(seed)
    return [_as_type(kind(frame.astype(np.float32), rng, _white(frame)), frame) for kind in _KINDS]


def _moved_piece(frame: Floats, rng: np.random.Generator, _white: float) -> Floats:
    height, width = (_between(rng, *(side * s for s in _SIDE)) for side in frame.shape[:2])
    (top, left), (to_top, to_left) = (_corner(rng, frame, height, width) for _ in range(2))
    planted = frame.copy()
    planted[to_top : to_top + height, to_left : to_left + width] = frame[top : top + height, left : left + width]
    return planted


def _scratch(frame: Floats, rng: np.random.Generator, white: float) -> Floats:
    length = max(frame.shape[:2]) * rng.uniform(*_SIDE) * 2
    angle = rng.uniform(0, np.pi)
    centre = _place(rng, frame)
    half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint(centre + sign * half)) for sign in (-1, 1)]
    cover = np.zeros(frame.shape[:2], np.uint8)
    cv2.line(cover, ends[0], ends[1], 255, max(1, max(frame.shape[:2]) // 128), cv2.LINE_AA)
    return _shaded(frame, cover.astype(np.float32) / np.float32(255), rng, white)


def _stain(frame: Floats, rng: np.random.Generator, white: float) -> Floats:
    radius = max(frame.shape[:2]) * rng.uniform(*_SIDE) / 2
    rows, columns = np.indices(frame.shape[:2], np.float32)
    x, y = _place(rng, frame)
    cover = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * (radius / 2) ** 2)).astype(np.float32)
    return _shaded(frame, cover, rng, white)


_KINDS: tuple[Callable[[Floats, np.random.Generator, float], Floats], ...] = (_moved_piece, _scratch, _stain)


def _shaded(frame: Floats, cover: Floats, rng: np.random.Generator, white: float) -> Floats:
    """Lighter where it is dark, darker where it is light, so that it shows."""
    grey = frame if frame.ndim == 2 else frame.mean(2)
    sign = 1 if (grey * cover).sum() < cover.sum() * white / 2 else -1
    cover = cover if frame.ndim == 2 else cover[..., np.newaxis]
    return np.asarray(frame + sign * rng.uniform(*_CONTRAST) * white * cover, np.float32)


def _place(rng: np.random.Generator, frame: Floats) -> NDArray[np.float64]:
    """A point (x, y) in the inner three quarters."""
    height, width = frame.shape[:2]
    return rng.uniform(1 / 8, 7 / 8, 2) * (width, height)


def _corner(rng: np.random.Generator, frame: Floats, height: int, width: int) -> tuple[int, int]:
    return int(rng.integers(frame.shape[0] - height + 1)), int(rng.integers(frame.shape[1] - width + 1))


def _between(rng: np.random.Generator, least: float, greatest: float) -> int:
    return max(1, round(rng.uniform(least, greatest)))


def _white(frame: Frame) -> float:
    return float(np.iinfo(frame.dtype).max)


def _as_type(planted: Floats, frame: Frame) -> Frame:
    typed: Frame = np.rint(planted.clip(0, _white(frame))).astype(frame.dtype)
    return typed
