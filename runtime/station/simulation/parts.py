"""Parts for a simulated line, from a bundle alone: its golden image as the camera would see it again and again, and the
same with a defect planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import BundleError
from lineward.runtime.images import decode_image
from lineward.runtime.preprocessing import Frame

_NOISE = 0.004  # standard deviation of the camera's noise, of full scale: one grey level of 255
_LIGHT = 0.01  # greatest change of brightness from part to part
_RADIUS = (0.05, 0.1)  # of a defect, in shorter sides of the frame
_SEEN = 0.15  # least difference in colour that makes a hole a defect, of full scale
_MAP = 64  # side of the map of likely places

_Pixels = NDArray[np.float32]
_Point = tuple[int, int]


@dataclass(frozen=True)
class SimulatedPart:
    """A part before the camera.

    Attributes:
        frame: of the golden image's shape and type.
        planted: it has a defect.
    """

    frame: Frame
    planted: bool


def simulated_parts(bundle: Bundle, seed: int = 0, defects: float = 0.1) -> Iterator[SimulatedPart]:
    """Parts without end; the same seed gives the same ones.

    A bundle packs one typical good image, held out of its training, so the good parts are that one under a little noise
    and changing light: they exercise the line, and say nothing of how a bundle fares on parts it has not seen.

    Args:
        bundle: holds the golden images.
        seed: of noise, light and defects.
        defects: share of parts with a planted defect.

    Raises:
        BundleError: no golden image passes.
    """
    random = np.random.default_rng(seed)
    good = [_Scene(frame) for frame in good_images(bundle)]
    while True:
        scene = good[random.integers(len(good))]
        planted = bool(random.random() < defects)
        yield SimulatedPart(scene.photograph(random, planted), planted)


def good_images(bundle: Bundle) -> list[Frame]:
    """The golden images that pass.

    Raises:
        BundleError: there is none.
    """
    manifest = bundle.manifest
    names = [golden.image for golden in manifest.golden if golden.image_score <= manifest.threshold.value]
    if not names:
        raise BundleError(
            f"{manifest.product} {manifest.version}: holds no golden image that passes, so no part can be simulated",
            do="train the bundle anew, with more good images held out",
        )
    return [decode_image(bundle.members[name], name) for name in names]


class _Scene:
    """A good part before the camera.

    Args:
        frame: of it.
    """

    def __init__(self, frame: Frame) -> None:
        self._dtype = frame.dtype
        self._scale = np.float32(np.iinfo(frame.dtype).max)
        self._pixels: _Pixels = frame.astype(np.float32) / self._scale
        self._side = min(frame.shape[:2])
        self._background: _Pixels = np.median(_border(self._pixels), axis=0).astype(np.float32)
        self._likely = _likely_places(self._pixels)

    def photograph(self, random: np.random.Generator, planted: bool) -> Frame:
        pixels = self._with_defect(random) if planted else self._pixels
        light = np.float32(1 + random.uniform(-_LIGHT, _LIGHT))
        noise = random.standard_normal(pixels.shape, dtype=np.float32) * np.float32(_NOISE)
        lit = np.where(pixels < 1, np.clip(pixels * light + noise, 0, 1), 1)  # what is overexposed stays so
        photo = np.rint(lit * self._scale)
        return photo.astype(np.uint8) if self._dtype == np.uint8 else photo.astype(np.uint16)

    def _with_defect(self, random: np.random.Generator) -> _Pixels:
        height, width = self._pixels.shape[:2]
        row, column = divmod(int(random.choice(_MAP * _MAP, p=self._likely)), _MAP)
        at = column * width // _MAP, row * height // _MAP
        radius = max(2, round(self._side * random.uniform(*_RADIUS)))
        kind = _KINDS[random.integers(len(_KINDS))]
        mask = np.zeros((height, width), np.uint8)
        kind.draw(random, mask, at, radius)
        blurred = cv2.GaussianBlur(mask, (0, 0), max(0.8, radius * kind.softness))
        cover = blurred.astype(np.float32) * np.float32(kind.opacity / 255)
        cover = cover if self._pixels.ndim == 2 else cover[:, :, np.newaxis]
        here = self._pixels[at[1], at[0]]
        background_seen = np.abs(here - self._background).max() > _SEEN
        contrast = np.zeros_like(here) if here.mean() > 0.5 else np.ones_like(here)
        colour = self._background if kind.shows_background and background_seen else contrast
        changed: _Pixels = self._pixels * (1 - cover) + cover * colour
        return changed


def _border(pixels: _Pixels) -> _Pixels:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _likely_places(pixels: _Pixels) -> NDArray[np.float64]:
    """How likely a defect lies in each cell, [_MAP * _MAP]: the more, the more there is to see around it."""
    gray = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    detail = np.abs(gray - cv2.GaussianBlur(gray, (0, 0), 3))
    weights = cv2.GaussianBlur(cv2.resize(detail, (_MAP, _MAP), interpolation=cv2.INTER_AREA), (0, 0), 3)
    weights = weights.astype(np.float64).ravel() + 1e-9  # an image of one colour has detail nowhere
    likely: NDArray[np.float64] = weights / weights.sum()
    return likely


def _scratch(random: np.random.Generator, mask: NDArray[np.uint8], at: _Point, radius: int) -> None:
    """A bent line, from one side of the spot to the other."""
    turn = random.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)]) * 2 * radius
    bends = random.uniform(-0.3, 0.3, (5, 2)) * radius
    points = np.array(at) + np.linspace(-1, 1, 5)[:, np.newaxis] * along + bends
    cv2.polylines(mask, [np.rint(points).astype(np.int32)], False, 255, max(1, radius // 5), cv2.LINE_AA)


def _spot(random: np.random.Generator, mask: NDArray[np.uint8], at: _Point, radius: int) -> None:
    """A filled ellipse."""
    axes = radius, max(1, round(radius * random.uniform(0.6, 1)))
    cv2.ellipse(mask, at, axes, random.uniform(0, 180), 0, 360, 255, cv2.FILLED, cv2.LINE_AA)


def _patch(random: np.random.Generator, mask: NDArray[np.uint8], at: _Point, radius: int) -> None:
    """A filled rectangle."""
    size = 2 * radius, round(2 * radius * random.uniform(0.6, 1))
    corners = cv2.boxPoints((at, size, random.uniform(0, 90)))
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)


@dataclass(frozen=True)
class _Kind:
    """A kind of defect.

    Attributes:
        draw: where it is, as 255 in a mask.
        softness: of its edge, in radii.
        opacity: how much of the part it hides.
        shows_background: it has the background's colour, if that can be seen there; else black on what is bright and
            white on what is dark.
    """

    draw: Callable[[np.random.Generator, NDArray[np.uint8], _Point, int], None]
    softness: float
    opacity: float
    shows_background: bool = False


_SCRATCH = _Kind(_scratch, softness=0.03, opacity=0.9)
_STAIN = _Kind(_spot, softness=0.25, opacity=0.5)
_HOLE = _Kind(_spot, softness=0.05, opacity=1.0)
_MISSING = _Kind(_patch, softness=0.05, opacity=1.0, shows_background=True)
_KINDS = (_SCRATCH, _STAIN, _HOLE, _MISSING)
