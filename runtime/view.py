"""What a bundle looks at: from a frame to the inputs of its graph, and from their scores to those of the frame.

Every part of Lineward that looks at frames does so through here, so that what is learned and what is inspected are the
same pixels.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.anomaly_map import MapMaker, Patches
from lineward.runtime.manifest import Score
from lineward.runtime.preprocessing import Frame, Preprocessing, preprocess
from lineward.runtime.region import Region, patches_within

_OUTSIDE = np.uint8(127)
"""Grey of what does not count: the mean that the backbone takes off, as beyond the edge of the image."""


class View:
    """What is seen of a frame.

    Args:
        spec: from an image to the graph's input.
        patches: patches of an input.
        score: gives the size of the anomaly map.
        region: which of its pixels count; None: all.

    Attributes:
        rows: patches of a frame from top to bottom.
        columns: patches of a frame from left to right.
        region: as given.
        counts: which patches of each input count, bool [inputs, patches of an input].
    """

    def __init__(self, spec: Preprocessing, patches: Patches, score: Score, region: Region | None = None) -> None:
        self._spec, self._score = spec, score
        self.rows, self.columns, self.region = patches.rows, patches.columns, region
        within = np.ones((self.rows, self.columns), np.bool_)
        if region is not None:
            within = patches_within(region, self.rows, self.columns)
        self.counts = within.reshape(1, -1)
        # What counts only in part is shown whole: a patch sees all of its pixels.
        shown = cv2.resize(within.astype(np.uint8), (spec.width, spec.height), interpolation=cv2.INTER_NEAREST)
        self._shown = None if region is None else shown.astype(np.bool_)[:, :, np.newaxis]

    @property
    def share(self) -> float:
        """How much of the image counts, from 0 to 1."""
        return 1.0 if self.region is None else float(self.region.mean())

    @cached_property
    def maps(self) -> MapMaker:
        """Makes the anomaly map of a frame's patch scores."""
        return MapMaker(self, self._score, self.region)

    def pixels(self, frame: Frame) -> NDArray[np.uint8]:
        """The inputs of a frame, uint8 [inputs, height, width, 3], RGB; gray where it does not count.

        Raises:
            ImageError: the frame has another shape or type than can be inspected.
        """
        pixels = preprocess(frame, self._spec)
        if self._shown is not None:
            pixels = np.where(self._shown, pixels, _OUTSIDE)
        return pixels[np.newaxis]

    def sha256(self, frame: Frame) -> str:
        """SHA-256 of a frame's inputs, in hexadecimal: equal on every device, or the device is not fit."""
        return hashlib.sha256(self.pixels(frame).tobytes()).hexdigest()

    def merge(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Patch scores of a frame, float32 [rows, columns], of those of its inputs, float32 [inputs, rows, columns]."""
        return np.asarray(scores[0])
