"""Recorded images as a camera: at a cadence, as if parts crossed its trigger line, or one each time it is fired."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from lineward.runtime.errors import CameraError, ImageError
from lineward.runtime.images import find_images, read_image
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.configuration import ReplayCamera
from lineward.runtime.station.records import Capture

BACKLOG = 64  # frames that wait for `capture`, as in a camera's driver; those that find it full are lost
MOST_BYTES = 10**9  # of decoded images


def open_replay(table: ReplayCamera) -> Replay:
    """Decode the images of a station file's replay; see `open_camera`."""
    return Replay(_read_alike(table.images), table.rate, table.jitter, table.seed)


class Replay:
    """A camera that delivers images over and over: capture `n` shows image `n` modulo their number.

    Args:
        images: of one shape and dtype.
        rate: captures a second; None: one for each `fire`.
        jitter: greatest deviation from the cadence, as a share of its period.
        seed: of the jitter.
    """

    def __init__(self, images: Sequence[Frame], rate: float | None = None, jitter: float = 0.0, seed: int = 0) -> None:
        self._images = images
        self._rate = rate
        self._jitter = jitter
        self._seed = seed
        self._changed = threading.Condition()
        self._closed = False
        self._started_ns: int | None = None
        self._exposures = 0
        self._next_ns = 0
        self._waiting: deque[tuple[int, int]] = deque()  # number and time of exposures that nobody took yet
        self.name = f"replay of {len(images)} images"
        self.shape: tuple[int, ...] = images[0].shape
        self.dtype = str(images[0].dtype)

    def start(self) -> None:
        """Begin anew: number, cadence and jitter as at the first start."""
        with self._changed:
            self._check_open()
            self._random = random.Random(self._seed)
            self._started_ns = self._next_ns = time.monotonic_ns()
            self._exposures = 0
            self._waiting.clear()
            self._schedule()
            self._changed.notify_all()

    def fire(self) -> None:
        """Deliver the next image.

        Raises:
            CameraError: it delivers by itself, or is closed.
        """
        with self._changed:
            self._check_open()
            if self._rate is not None:
                raise CameraError(f"{self.name}: cannot be fired, for it has a rate", do="leave camera.rate out")
            if self._started_ns is not None:
                self._expose(time.monotonic_ns())
                self._changed.notify_all()

    def capture(self, seconds: float) -> Capture | None:
        """The next image, with the time when it was due, however late it is asked for."""
        end_ns = time.monotonic_ns() + round(seconds * 1e9)
        with self._changed:
            while True:
                self._check_open()
                now = time.monotonic_ns()
                self._expose_what_is_due(now)
                if self._waiting:
                    number, exposed_ns = self._waiting.popleft()
                    return Capture(number, exposed_ns, self._images[number % len(self._images)])
                if now >= end_ns:
                    return None
                cadence = self._rate is not None and self._started_ns is not None
                self._changed.wait((min(end_ns, self._next_ns) if cadence else end_ns) / 1e9 - now / 1e9)

    def close(self) -> None:
        """Forget the images."""
        with self._changed:
            self._closed = True
            self._images = ()
            self._waiting.clear()
            self._changed.notify_all()

    def _expose_what_is_due(self, now: int) -> None:
        if self._rate is None or self._started_ns is None:
            return
        while self._next_ns <= now:
            self._expose(self._next_ns)
            self._schedule()

    def _expose(self, exposed_ns: int) -> None:
        if len(self._waiting) < BACKLOG:
            self._waiting.append((self._exposures, exposed_ns))
        self._exposures += 1

    def _schedule(self) -> None:
        """When the next exposure is due: never before the last, so that a great jitter swaps no parts."""
        if self._rate is not None and self._started_ns is not None:
            place = self._exposures + 1 + self._random.uniform(-self._jitter, self._jitter)
            self._next_ns = max(self._next_ns, self._started_ns + round(place * 1e9 / self._rate))

    def _check_open(self) -> None:
        if self._closed:
            raise CameraError(f"{self.name}: closed", do="open it again")


def _read_alike(places: Sequence[str]) -> list[Frame]:
    """Decode images now, so that `capture` costs nothing.

    Raises:
        ImageError: one is unreadable, has another shape or dtype than the first, or is one too many for the memory.
    """
    images: list[Frame] = []
    size = 0
    for path in find_images(places):
        image: Frame = read_image(path)
        image.setflags(write=False)
        images.append(image)
        size += image.nbytes
        if (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise ImageError(
                f"{path}: {_describe(image)}, unlike the first image to replay ({_describe(images[0])})",
                do="replay images of one camera",
            )
        if size > MOST_BYTES:
            raise ImageError(
                f"{path}: the images to replay take more than {MOST_BYTES / 1e9:g} GB of memory from here on",
                do=f"name at most {len(images) - 1} of them",
            )
    return images


def _describe(image: Frame) -> str:
    height, width = image.shape[:2]
    return f"{width} x {height}, {'gray' if image.ndim == 2 else 'colour'}, {8 * np.dtype(image.dtype).itemsize} bits"
