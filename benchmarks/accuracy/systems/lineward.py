"""Lineward itself: the bundle that a user would train, inspected through the runtime as a device would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.material import Material, Setting
from benchmarks.accuracy.measure import Scores
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.anomaly_map import MapMaker, image_score
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.errors import TrainingError
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector


@dataclass(frozen=True)
class Lineward:
    """The product, from image files to scores; only their paths are taken from the material.

    A tenth of the training images, or as many as the recipe's false-reject rate needs, is held out for the threshold,
    as always, and does not reach the memory bank.

    Attributes:
        recipe: of the training, but for its seed.
    """

    recipe: Recipe = field(default_factory=Recipe)

    def __call__(self, material: Material, seed: int, progress: Progress) -> Scores:
        """Train a bundle, and score with it.

        Raises:
            TrainingError: the recipe's backbone, weights, size or levels are not the material's.
            CalibrationError: too few training images for the recipe's false-reject rate.
        """
        self._check_setting(material.setting)
        recipe = replace(self.recipe, seed=seed)
        data = train(material.train.paths, material.name, recipe=recipe, progress=progress)
        bundle = decode_bundle(data, material.name)
        patches = np.stack(list(_patch_scores(Inspector(bundle), material.test.paths, progress)))
        maps = MapMaker(bundle.manifest.grid, bundle.manifest.score)
        images = np.array([image_score(maps.anomaly_map(scores)) for scores in patches])
        # Rounding can bring the score of a patch that is in the bank below 0.
        return Scores(images, np.maximum(patches, np.float32(0)))

    def _check_setting(self, setting: Setting) -> None:
        for name in ("backbone", "weights", "size", "levels"):
            ours, theirs = getattr(self.recipe, name), getattr(setting, name)
            if ours != theirs:
                raise TrainingError(
                    f"a recipe with {name} {ours!r} beside systems with {theirs!r}",
                    do="give the recipe what the setting says",
                )


def _patch_scores(inspector: Inspector, paths: list[Path], progress: Progress) -> Iterator[NDArray[np.float32]]:
    with progress.step("score test images", len(paths)) as advance:
        for done, scores in enumerate(inspector.patch_scores(map(read_image, paths)), 1):
            yield scores
            advance(done)
