"""Frames in flight: memory that is taken once, so that a part never waits for it and the station never grows."""

from __future__ import annotations

from collections import deque

import numpy as np

from lineward.runtime.preprocessing import Frame


class FrameRing:
    """A fixed number of frames of one shape and type.

    Args:
        frames: how many.
        shape: of each.
        dtype: of their pixels.
    """

    def __init__(self, frames: int, shape: tuple[int, ...], dtype: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        # Filled, so that the system gives the memory now and not in the middle of a part.
        self._free: deque[Frame] = deque(np.full(shape, 1, self.dtype) for _ in range(frames))

    @property
    def has_room(self) -> bool:
        """Whether a frame is free."""
        return bool(self._free)

    def fits(self, pixels: Frame) -> bool:
        """Whether pixels have the shape and type of this ring's frames."""
        return pixels.shape == self.shape and pixels.dtype == self.dtype

    def take(self, pixels: Frame) -> Frame | None:
        """Copy pixels that fit into a free frame, or None if there is none."""
        try:
            frame = self._free.popleft()
        except IndexError:
            return None
        np.copyto(frame, pixels)
        return frame

    def give(self, frame: Frame) -> None:
        """Give a frame back."""
        self._free.append(frame)
