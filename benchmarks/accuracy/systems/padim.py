"""PaDiM: a Gaussian at each position of the feature map.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", ICPR 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.measure import Scores, anomaly_maps
from lineward.export.training import Progress

Features = NDArray[np.float32]

EPSILON = 0.01
"""Added to the covariance's diagonal, in squared units of the features (eq. 1). anomalib adds another 1e-5."""

_BLOCK = 32


@dataclass(frozen=True)
class PaDiM:
    """PaDiM on the shared features.

    They are those of all systems here: two levels, pooled over 3x3 patches and upsampled bilinearly, where the paper
    takes three levels, unpooled. An image's score is the greatest value of its map, smoothed by a Gaussian of standard
    deviation 4 at 256 pixels, as in anomalib.

    Attributes:
        channels: how many, drawn at random, are kept; the paper's 100 is that of its smaller backbone.
    """

    channels: int = 100

    def __call__(self, material: Material, seed: int, progress: Progress) -> Scores:
        """See `System`.

        Raises:
            ValueError: the features have fewer channels.
        """
        train, test = material.train.features, material.test.features
        kept = np.random.default_rng(seed).choice(train.shape[-1], self.channels, replace=False)
        with progress.step("score position by position", train.shape[1]) as advance:
            distances = mahalanobis(train, test, kept, advance)
        patches = distances.reshape(-1, material.setting.side, material.setting.side)
        images = [anomaly_map.max() for anomaly_map in anomaly_maps(patches, material.setting)]
        return Scores(np.array(images), patches)


def mahalanobis(
    train: Features, test: Features, kept: NDArray[np.intp], progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.float32]:
    """Mahalanobis distance (eq. 2) of each test patch to the Gaussian of the training patches at its position.

    With L L^T the covariance, it is the length of L^-1 (x - mu). Positions are taken a few at a time, so that
    no more than their covariances is in memory.

    Args:
        train: float32 [images, positions, channels], at least 2 images.
        test: float32 [N, positions, channels].
        kept: indices of the channels to look at.
        progress: called with the positions done so far.

    Returns:
        float32 [N, positions].
    """
    distances = np.empty(test.shape[:2], np.float32)
    for start in range(0, test.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        good, other = _positions(train[:, block], kept), _positions(test[:, block], kept)
        mean = good.mean(1, keepdim=True)
        centred = good - mean
        covariance = centred.mT @ centred / (len(train) - 1) + EPSILON * torch.eye(len(kept))
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (other - mean).mT, upper=False)
        distances[:, block] = whitened.norm(dim=1).T
        progress(min(start + _BLOCK, test.shape[1]))
    return distances


def _positions(features: Features, kept: NDArray[np.intp]) -> torch.Tensor:
    """Position by position, float64 [positions, images, channels]."""
    return torch.from_numpy(np.asarray(features[..., kept], np.float64).transpose(1, 0, 2))
