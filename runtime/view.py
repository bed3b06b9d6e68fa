"""What a bundle looks at: from a frame to the inputs of its graph, and from their scores to those of the frame.

Every part of Lineward that looks at frames does so through here, so that what is learned and what is inspected are the
same pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.anomaly_map import MapMaker, Patches
from lineward.runtime.errors import ImageError
from lineward.runtime.manifest import Score, Tiles
from lineward.runtime.preprocessing import SMALLEST_SIDE, Frame, Preprocessing, check_frame, preprocess
from lineward.runtime.region import Region, patches_within

_OUTSIDE = np.uint8(127)
"""Grey of what does not count: the mean that the backbone takes off, as beyond the edge of the image."""
_WHOLE = Tiles(1, 1, 0, 0)


@dataclass(frozen=True)
class _Tile:
    """One input of the graph.

    Attributes:
        top: its first row in the frame, in patches.
        left: its first column.
        counts: which of its patches count, bool [rows, columns].
        weights: of its patch scores among those of the tiles that it overlaps, float32 [rows, columns].
        shown: the pixels of the input that are left as they are, bool [height, width, 1]; None: all.
    """

    top: int
    left: int
    counts: NDArray[np.bool_]
    weights: NDArray[np.float32]
    shown: NDArray[np.bool_] | None

    @property
    def place(self) -> tuple[slice, slice]:
        """Its patches among those of the frame."""
        rows, columns = self.counts.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


class View:
    """What is seen of a frame: one input of the graph, or several that overlap; those in which nothing counts, not.

    Args:
        spec: from an image to the graph's input.
        patches: patches of an input.
        score: gives the size of the anomaly map.
        region: which of its pixels count; None: all.
        tiles: how the frame is cut; None: it is one input.

    Attributes:
        rows: patches of a frame from top to bottom.
        columns: patches of a frame from left to right.
        region: as given.
        counts: which patches of each input count, bool [inputs, patches of an input].
    """

    def __init__(
        self,
        spec: Preprocessing,
        patches: Patches,
        score: Score,
        region: Region | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        self._spec, self._score, self._patches, self.region = spec, score, patches, region
        cut = tiles or _WHOLE
        self.rows, self.columns = cut.patches(patches.rows, patches.columns)
        within = np.ones((self.rows, self.columns), np.bool_)
        if region is not None:
            within = patches_within(region, self.rows, self.columns)
        down = _weights(cut.rows, patches.rows, cut.overlap_rows)
        across = _weights(cut.columns, patches.columns, cut.overlap_columns)
        cells = [(row, column) for row in range(cut.rows) for column in range(cut.columns)]
        self._tiles = []
        for row, column in cells:
            top, left = row * (patches.rows - cut.overlap_rows), column * (patches.columns - cut.overlap_columns)
            counts = within[top : top + patches.rows, left : left + patches.columns]
            if counts.any():
                weights = np.outer(down[row], across[column])
                shown = None if counts.all() else _shown(counts, spec)
                self._tiles.append(_Tile(top, left, counts, weights, shown))
        self.counts = np.stack([tile.counts.ravel() for tile in self._tiles])

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
            ImageError: the frame has another shape or type than can be inspected, or is too small to be cut.
        """
        check_frame(frame)
        inputs = [self._input(frame, tile) for tile in self._tiles]
        return inputs[0][np.newaxis] if len(inputs) == 1 else np.stack(inputs)

    def sha256(self, frame: Frame) -> str:
        """SHA-256 of a frame's inputs, in hexadecimal: equal on every device, or the device is not fit."""
        return hashlib.sha256(self.pixels(frame).tobytes()).hexdigest()

    def merge(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Patch scores of a frame, float32 [rows, columns], of those of its inputs, float32 [inputs, rows, columns].

        Where tiles overlap, each weighs the less the nearer its own edge is: the network sees less beyond it. 0 where
        no tile is looked at.
        """
        if (self.rows, self.columns) == scores.shape[1:]:
            return np.asarray(scores[0])
        merged = np.zeros((self.rows, self.columns), np.float32)
        for tile, own in zip(self._tiles, scores, strict=True):
            merged[tile.place] += own * tile.weights
        return merged

    def _input(self, frame: Frame, tile: _Tile) -> NDArray[np.uint8]:
        top, bottom = self._span(tile.top, self._patches.rows, self.rows, frame.shape[0])
        left, right = self._span(tile.left, self._patches.columns, self.columns, frame.shape[1])
        if min(bottom - top, right - left) < SMALLEST_SIDE:
            raise ImageError(
                f"a frame of {frame.shape[1]}x{frame.shape[0]} pixels is too small to be cut into tiles",
                do=f"pass frames with at least {SMALLEST_SIDE} pixels a side of each tile",
            )
        pixels = preprocess(frame[top:bottom, left:right], self._spec)
        return pixels if tile.shown is None else np.where(tile.shown, pixels, _OUTSIDE)

    @staticmethod
    def _span(first: int, count: int, of: int, pixels: int) -> tuple[int, int]:
        """The pixels of some patches; of equally many patches they are equally many."""
        length = -(-count * pixels // of)
        start = min(first * pixels // of, pixels - length)
        return start, start + length


def _weights(tiles: int, patches: int, overlap: int) -> NDArray[np.float32]:
    """Along one axis, float32 [tiles, patches]: 1 but for overlaps, over which one tile fades into the next."""
    weights = np.ones((tiles, patches), np.float32)
    fade = np.arange(1, overlap + 1, dtype=np.float32) / np.float32(overlap + 1)
    weights[1:, :overlap] = fade
    weights[:-1, patches - overlap :] = fade[::-1]
    return weights


def _shown(counts: NDArray[np.bool_], spec: Preprocessing) -> NDArray[np.bool_]:
    """The pixels of patches that count, bool [height, width, 1]: what counts only in part is shown whole."""
    shown = cv2.resize(counts.astype(np.uint8), (spec.width, spec.height), interpolation=cv2.INTER_NEAREST)
    return shown.astype(np.bool_)[:, :, np.newaxis]
