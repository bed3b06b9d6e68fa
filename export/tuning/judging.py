"""Candidates of one embedding graph, judged: statistics and embeddings once, every bank from the same embeddings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.calibration.metrics import PixelHistograms, image_auroc
from lineward.export.bank import build_bank
from lineward.export.bank.farthest_point import greatest_similarity
from lineward.export.paged import paged
from lineward.export.training import Progress, Recipe, train
from lineward.export.tuning.judges import Judge, Panel
from lineward.export.tuning.table import Accuracy
from lineward.runtime.anomaly_map import image_score
from lineward.runtime.bundle import EMBEDDING, Bundle, decode_bundle
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.images import read_image
from lineward.runtime.preprocessing import Frame

Rows = NDArray[np.float32]

_BATCH = 8
_SIDE = 256
"""Side at which maps of every input size are compared with the masks, in pixels."""
_ANY_RATE = 0.5
"""False-reject rate of the drafts, whose thresholds nobody asks: one good image is enough for it."""


@dataclass(frozen=True)
class Judged:
    """A candidate's bank, and how well it does."""

    bank: Rows
    accuracy: Accuracy


def draft(panel: Panel, product: str, recipe: Recipe, progress: Progress) -> Bundle:
    """A bundle with an embedding graph that serves every bank; its own bank is a small one.

    What a lower precision costs shows in the table, by the same judges: no draft is refused for it.
    """
    drafted = replace(recipe, false_reject_rate=_ANY_RATE, confidence=None, threshold_method="split", max_drop=1.0)
    data = train(panel.bank, product, held_out=panel.good, recipe=drafted, progress=progress)
    return decode_bundle(data, "a draft")


def judge_banks(
    bundle: Bundle, panel: Panel, recipe: Recipe, banks: Sequence[int], progress: Progress
) -> Iterator[tuple[int, Judged]]:
    """Judge banks of several sizes, each the one that the training would build.

    A small bank is no prefix of a large one: k-means chooses all of its rows together. It is built anew from the same
    embeddings instead, all the smaller ones in less time than the largest.

    Args:
        bundle: gives the embeddings.
        panel: who builds the banks, and who judges them.
        recipe: every other choice.
        banks: rows of each.
        progress: shows each step.

    Yields:
        Rows, and what was found; nothing for a bank that the patches that count cannot fill.

    Raises:
        TrainingError: the disk for temporary files is full.
    """
    patches = int(np.count_nonzero(bundle.view.counts))
    with tempfile.TemporaryDirectory(prefix="lineward-") as folder:
        learned, seen = (
            paged(Path(folder) / name, np.float32, (count, patches, bundle.manifest.grid.dimensions))
            for name, count in (("learned", len(panel.bank)), ("seen", len(panel.judges)))
        )
        _embed(bundle, (read_image(path) for path in panel.bank), learned, "embed good images", progress)
        masks = _Masks()
        _embed(bundle, masks.noted(panel.judges), seen, "embed the images that judge", progress)
        for rows in (rows for rows in banks if rows <= patches * len(learned)):  # a region leaves fewer patches
            with progress.step(f"bank of {rows} rows", rows) as advance:
                bank = build_bank(
                    lambda: learned, len(learned), learned.shape[1], rows, recipe.bank_method, recipe.seed, advance
                )
            with progress.step("judge it", len(seen)) as advance:
                yield rows, Judged(bank, _accuracy(bundle, bank, seen, panel.judges, masks.masks, advance))


class _Masks:
    """Keeps the masks of the images that go by, brought to one size."""

    def __init__(self) -> None:
        self.masks: list[NDArray[np.bool_] | None] = []

    def noted(self, judges: Iterable[Judge]) -> Iterator[Frame]:
        """The frames of the judges."""
        for judge in judges:
            frame, mask = judge.read()
            self.masks.append(None if mask is None else _resized(mask.astype(np.float32)) > 0)
            yield frame


def _embed(bundle: Bundle, frames: Iterator[Frame], into: Rows, step: str, progress: Progress) -> None:
    """Embeddings of the patches that count, image by image."""
    view = bundle.view
    session = EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid)
    images = max(1, _BATCH // len(view.counts))
    with progress.step(step, len(into)) as advance:
        for start in range(0, len(into), images):
            chunk = into[start : start + images]
            inputs = np.concatenate([view.pixels(next(frames)) for _ in chunk])
            embeddings = [session.embed(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)]
            chunk[...] = np.concatenate(embeddings).reshape(len(chunk), *view.counts.shape, -1)[:, view.counts]
            advance(start + len(chunk))


def _accuracy(
    bundle: Bundle,
    bank: Rows,
    seen: Rows,
    judges: Sequence[Judge],
    masks: Sequence[NDArray[np.bool_] | None],
    advance: Callable[[int], None],
) -> Accuracy:
    view, grid = bundle.view, bundle.manifest.grid
    scores, pixels = np.empty(len(seen)), PixelHistograms()
    patches = np.zeros(view.counts.shape, np.float32)
    for index, (embeddings, mask) in enumerate(zip(seen, masks, strict=True)):
        patches[view.counts] = 1 - greatest_similarity(embeddings, bank)
        anomaly_map = view.maps.anomaly_map(view.merge(patches.reshape(-1, grid.rows, grid.columns)))
        scores[index] = image_score(anomaly_map, bundle.manifest.score.area)
        if mask is not None:
            pixels.update(_resized(anomaly_map), mask)
        advance(index + 1)
    labels = np.array([judge.defective for judge in judges])
    return Accuracy(image_auroc(scores, labels), pixels.auroc() if pixels.regions else None)


def _resized(image: NDArray[np.float32]) -> NDArray[np.float32]:
    smaller = min(image.shape) > _SIDE
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=method), np.float32)
