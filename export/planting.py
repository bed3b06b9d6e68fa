"""Defects planted on good images, for those who have no defective ones yet.

They stand for what a neighbourhood of patches can show. They compare recipes, or two graphs, on the same images, and
say nothing of how many real defects will be found.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.preprocessing import Frame

_Mask = NDArray[np.bool_]

_LENGTH = (0.08, 0.2)
"""Of a defect, in shorter sides of the frame."""
_STRENGTH = (0.12, 0.3)
"""How far a colour moves, of full scale."""
_TRIES = 20
_SEEN = 0.02
"""Mean change, of full scale, below which a defect lies where nobody could see it, and is planted elsewhere."""


def plant(frame: Frame, kind: str, random: np.random.Generator) -> tuple[Frame, _Mask]:
    """Plant one defect.

    Args:
        frame: a good image, uint8 or uint16, [H, W] or [H, W, 3]; it is left as it is.
        kind: one of `KINDS`.
        random: source of place, size and strength.

    Returns:
        The frame with the defect, of the same type and shape, and where it is, bool [H, W].
    """
    full = float(np.iinfo(frame.dtype).max)
    for _ in range(_TRIES):
        planted, mask = KINDS[kind](frame.astype(np.float32) / full, random)
        changed = np.abs(planted - frame.astype(np.float32) / full)[mask]
        if changed.size and changed.mean() >= _SEEN:
            break
    rounded = np.rint(planted.clip(0, 1) * full)
    return rounded.astype(np.uint16) if frame.dtype == np.uint16 else rounded.astype(np.uint8), mask


def _scratch(pixels: NDArray[np.float32], random: np.random.Generator) -> tuple[NDArray[np.float32], _Mask]:
    """A thin line, lighter or darker."""
    short = min(pixels.shape[:2])
    mask = np.zeros(pixels.shape[:2], np.uint8)
    centre, angle = _place(pixels, random), random.uniform(0, np.pi)
    reach = random.uniform(*_LENGTH) * short / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint(centre + sign * reach)) for sign in (-1, 1)]
    cv2.line(mask, ends[0], ends[1], 255, max(1, round(short / 128)), cv2.LINE_AA)
    return _tinted(pixels, mask, random), mask > 0


def _stain(pixels: NDArray[np.float32], random: np.random.Generator) -> tuple[NDArray[np.float32], _Mask]:
    """A soft blot, lighter or darker."""
    mask = _ellipse(pixels, random)
    soft = cv2.GaussianBlur(mask, (0, 0), max(1.0, min(pixels.shape[:2]) / 100)).astype(np.uint8)
    return _tinted(pixels, soft, random), soft > 0


def _misplaced(pixels: NDArray[np.float32], random: np.random.Generator) -> tuple[NDArray[np.float32], _Mask]:
    """A piece of the part where it does not belong: CutPaste (Li et al., CVPR 2021), turned by half."""
    mask = _ellipse(pixels, random) > 0
    shift = (random.integers(pixels.shape[0]), random.integers(pixels.shape[1]))
    moved = np.roll(pixels[::-1, ::-1], shift, (0, 1))
    planted = pixels.copy()
    planted[mask] = moved[mask]
    return planted, mask


def _worn(pixels: NDArray[np.float32], random: np.random.Generator) -> tuple[NDArray[np.float32], _Mask]:
    """A spot whose structure is lost."""
    mask = _ellipse(pixels, random) > 0
    blurred = cv2.GaussianBlur(pixels, (0, 0), max(2.0, min(pixels.shape[:2]) / 40))
    planted = pixels.copy()
    planted[mask] = blurred[mask]
    return planted, mask


KINDS: dict[
    str, Callable[[NDArray[np.float32], np.random.Generator], tuple[NDArray[np.float32], NDArray[np.bool_]]]
] = {"scratch": _scratch, "stain": _stain, "misplaced": _misplaced, "worn": _worn}
"""What can be planted."""


def _place(pixels: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float64]:
    """A point (x, y) in the middle three fifths of the frame, where the part is."""
    return random.uniform(0.2, 0.8, 2) * [pixels.shape[1], pixels.shape[0]]


def _ellipse(pixels: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.uint8]:
    mask = np.zeros(pixels.shape[:2], np.uint8)
    centre = tuple(int(v) for v in _place(pixels, random))
    axes = tuple(max(1, round(random.uniform(*_LENGTH) * min(pixels.shape[:2]) / 2)) for _ in range(2))
    cv2.ellipse(mask, centre, axes, random.uniform(0, 180), 0, 360, 255, cv2.FILLED)
    return mask


def _tinted(
    pixels: NDArray[np.float32], opacity: NDArray[np.uint8], random: np.random.Generator
) -> NDArray[np.float32]:
    """Moved towards white or black where there is opacity, 0 to 255."""
    change = random.uniform(*_STRENGTH) * random.choice([-1, 1]) * (opacity / np.float32(255))
    changed: NDArray[np.float32] = pixels + (change if pixels.ndim == 2 else change[:, :, np.newaxis])
    return changed.clip(0, 1).astype(np.float32)
