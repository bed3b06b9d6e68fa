"""Streams of measurements, in control and drifting, resampled from inspections of real good images.

Each image is inspected as it is, under fresh camera noise, and at each of a few levels of each planted drift. A frame
of a stream is one of the images at random, its measurement interpolated between levels, plus the effect of one of its
noises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.drift import STATISTICS, measure
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame, as_rgb8

NOISES = 6
_NOISE = 1.0  # standard deviation of the camera's noise, in grey levels
_GAINS = (1.0, 0.98, 0.95, 0.92, 0.88, 0.84, 0.8)
_SIGMAS = (0.0, 0.3, 0.45, 0.6, 0.8, 1.0, 1.4, 2.0)
_SHADE = (1.06, 1.0, 0.92)  # gains of red, green and blue

Vectors = NDArray[np.float64]


def darken(frame: Frame, gain: float) -> Frame:
    """Less light: every grey level times the gain."""
    return np.clip(as_rgb8(frame) * gain + 0.5, 0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def blur(frame: Frame, sigma: float) -> Frame:
    """Out of focus: a Gaussian, in pixels of the frame."""
    pixels = as_rgb8(frame)
    return pixels if sigma == 0 else cv2.GaussianBlur(pixels, (0, 0), sigma).astype(np.uint8)


def recolour(frame: Frame, amount: float) -> Frame:
    """A part of another shade: its pixels, the darker ones by Otsu's threshold, times a gain of each colour."""
    pixels = as_rgb8(frame)
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 2)
    _, part = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    gains = 1 + amount * (np.array(_SHADE) - 1) * part[:, :, np.newaxis]
    return np.clip(pixels * gains + 0.5, 0, 255).astype(np.uint8)


_LEVELS: dict[str, tuple[Callable[[Frame, float], Frame], tuple[float, ...]]] = {
    "gain": (darken, _GAINS),
    "blur": (blur, _SIGMAS),
    "shade": (recolour, (0.0, 1.0)),
}


@dataclass(frozen=True)
class Plan:
    """A planted drift.

    Attributes:
        name: in words.
        kind: "gain", "blur" or "shade".
        level: at so many frames since its beginning.
        share: of the frames that it meets.
    """

    name: str
    kind: str
    level: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    share: float = 1.0


PLANS = (
    Plan("darkening by 0.02 % a frame", "gain", lambda t: np.maximum(1 - 0.0002 * (t + 1), _GAINS[-1])),
    Plan("5 % darker at once", "gain", lambda t: np.full_like(t, 0.95)),
    Plan("blur, sigma growing by 0.002 pixels a frame", "blur", lambda t: np.minimum(0.002 * (t + 1), _SIGMAS[-1])),
    Plan("a new shade", "shade", np.ones_like),
    Plan("a new shade, 5 % of the parts", "shade", np.ones_like, 0.05),
)


@dataclass(frozen=True, eq=False)
class Pool:
    """Measurements of good images, each vector in the order of `STATISTICS`.

    Attributes:
        noises: float64 [images, NOISES, 6], with fresh noise.
        levels: float64 [images, levels, 6], by drift, without.
    """

    noises: Vectors
    levels: dict[str, Vectors]

    def in_control(self, count: int, random: np.random.Generator) -> Vectors:
        """Frames without drift, float64 [count, 6]."""
        return self.noises[random.integers(len(self.noises), size=count), random.integers(NOISES, size=count)]

    def drifting(self, plan: Plan, count: int, random: np.random.Generator) -> Vectors:
        """Frames from the beginning of a drift on, float64 [count, 6]."""
        _, levels = _LEVELS[plan.kind]
        position = np.interp(
            plan.level(np.arange(count, dtype=np.float64)), *_rising(levels), left=np.nan, right=np.nan
        )
        position[random.random(count) >= plan.share] = 0
        low = np.minimum(position.astype(int), len(levels) - 2)
        weight = (position - low)[:, np.newaxis]
        images = random.integers(len(self.noises), size=count)
        table = self.levels[plan.kind]
        drifted = (1 - weight) * table[images, low] + weight * table[images, low + 1]
        noise = self.noises[images, random.integers(NOISES, size=count)] - table[images, 0]
        return np.asarray(drifted + noise, np.float64)


def build_pool(inspector: Inspector, frames: Sequence[Frame], seed: int = 0) -> Pool:
    """Inspect each frame as it is, noisy and drifted."""
    random = np.random.default_rng(seed)
    noises: list[list[Vectors]] = []
    levels: dict[str, list[list[Vectors]]] = {kind: [] for kind in _LEVELS}
    for frame in frames:
        noises.append([measured(inspector, _noisy(frame, random)) for _ in range(NOISES)])
        for kind, (change, amounts) in _LEVELS.items():
            levels[kind].append([measured(inspector, change(frame, amount)) for amount in amounts])
    return Pool(np.array(noises), {kind: np.array(values) for kind, values in levels.items()})


def measured(inspector: Inspector, frame: Frame) -> Vectors:
    """What an inspector sees of a frame, float64 [6]."""
    measurement = measure(inspector.inspect(frame))
    assert measurement is not None
    return np.array([measurement.of(statistic) for statistic in STATISTICS])


def _noisy(frame: Frame, random: np.random.Generator) -> Frame:
    noise = random.standard_normal(frame.shape, np.float32) * _NOISE
    return np.clip(np.round(frame + noise), 0, 255).astype(np.uint8)


def _rising(levels: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """Levels and their positions, in rising order of levels, as np.interp takes them."""
    pairs = sorted((level, float(position)) for position, level in enumerate(levels))
    return [level for level, _ in pairs], [position for _, position in pairs]
