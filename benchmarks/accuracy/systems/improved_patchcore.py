"""The improved PatchCore, to the letter: cluster sampling, and cosine instead of Euclidean distance.

"Unsupervised anomaly detection algorithm based on improved PatchCore". It is where Lineward starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.measure import Scores
from lineward.export.bank.farthest_point import greatest_similarity
from lineward.export.bank.spherical_kmeans import two_level_kmeans
from lineward.export.training import Progress

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class ImprovedPatchCore:
    """The improved PatchCore on the shared features, with a bank of a given number of rows.

    Its bank holds the centroids of a spherical k-means of the unit features, the one whose centroids are optimal for
    the cosine; a patch's score is 1 - cos to the nearest of them, an image's score the greatest of its patches. The
    unit features of all training patches are held in memory: 200 MB for 320 images of 1,024 patches and 152 channels.

    Attributes:
        rows: of the bank.
    """

    rows: int = 4096

    def __call__(self, material: Material, seed: int, progress: Progress) -> Scores:
        """See `System`.

        Raises:
            ValueError: there are fewer patches than rows.
        """
        train, test = material.train.features, material.test.features
        if self.rows > train.shape[0] * train.shape[1]:
            raise ValueError(f"{self.rows} centroids of {train.shape[0] * train.shape[1]} patches cannot be found")
        with progress.step("choose the bank", self.rows) as advance:
            points = unit(train.reshape(-1, train.shape[-1]))
            bank = two_level_kmeans(points, self.rows, np.random.default_rng(seed))
            advance(self.rows)
        patches = np.empty(test.shape[:2], np.float32)
        with progress.step("score test images", len(test)) as advance:
            for i, image in enumerate(test):
                patches[i] = 1 - greatest_similarity(unit(image), bank)
                advance(i + 1)
        patches = np.maximum(patches, 0)  # a cosine may round above 1
        return Scores(patches.max(1), patches.reshape(-1, material.setting.side, material.setting.side))


def unit(features: Rows) -> Rows:
    """Scale each row to unit length; a row of zeros, which has no direction, stays as it is."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(norms > 0, norms, 1))
