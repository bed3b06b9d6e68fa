"""What the whitening and the lift are made of: mean and covariance of good patches, in one streaming pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import TrainingError

SAMPLED_PATCHES = 16
"""Patches of each image kept for the median norm."""
SAMPLE_ROWS = 1 << 16
"""Patches kept in all: those of the first 4,096 images, a fair sample of images in the order of their hashes."""


@dataclass(frozen=True)
class Whitening:
    """y = (x - mean) @ matrix.

    Attributes:
        mean: float32 [channels].
        matrix: float32 [channels, dimensions].
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whitened features, float32 [n, dimensions], of features, float32 [n, channels]."""
        return np.asarray((features - self.mean) @ self.matrix, dtype=np.float32)


@dataclass(frozen=True)
class Lift:
    """u = [y, position * p, constant] / |[y, position * p, constant]|, with p the place of the patch, in [-1, 1]^2.

    Constant 0 is the cosine of y; a large one is the Euclidean distance, since then 1 - cos is |y - b|^2 / 2 c^2. A
    position of 0 leaves the place out; the larger it is, the nearer to its own place must a patch be found in the bank.
    """

    constant: float
    position: float


class FeatureStatistics:
    """Mean, covariance and a sample of patch features, gathered image by image in constant memory.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))
        # Allocated once: thousands of small pieces between torch's large ones would keep those from being given back.
        self._sample: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._sampled = 0

    def update(self, features: NDArray[np.float32]) -> None:
        """Add the patches of one image, float32 [patches, channels]."""
        patches, channels = features.shape
        if self._count == 0:
            self._mean, self._scatter = np.zeros(channels), np.zeros((channels, channels))
            self._sample = np.empty((SAMPLE_ROWS, channels), np.float32)
        mean = features.mean(0, dtype=np.float64)
        centred = (features - mean.astype(np.float32)).astype(np.float32)
        shift, total = mean - self._mean, self._count + patches
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self._count * patches / total)
        self._mean += shift * (patches / total)
        self._count = total
        chosen = features[:: max(1, patches // SAMPLED_PATCHES)][: SAMPLE_ROWS - self._sampled]
        self._sample[self._sampled : self._sampled + len(chosen)] = chosen
        self._sampled += len(chosen)

    def whitening(self, shrinkage: float, dimensions: int | None = None) -> Whitening:
        """Whitening of the covariance's eigenvectors by 1 / sqrt(eigenvalue + shrinkage * mean eigenvalue), rotated.

        A rotation changes no distance and no inner product. This one makes the matrix lower triangular, with a diagonal
        of 0 or more: a coordinate depends on no channel before it, so the trailing coordinates on the trailing channels
        alone.

        Args:
            shrinkage: in mean eigenvalues; the larger, the closer to a plain rotation.
            dimensions: leading eigenvectors to keep; all by default.

        Raises:
            TrainingError: there are no features, they do not vary, or more dimensions are asked for than there are.
        """
        if self._count == 0:
            raise TrainingError("no image was read", do="pass at least one good image")
        channels = len(self._mean)
        kept = channels if dimensions is None else dimensions
        if not 1 <= kept <= channels:
            raise TrainingError(f"{kept} dimensions cannot be kept of {channels}", do=f"choose from 1 to {channels}")
        values, vectors = np.linalg.eigh(self._scatter / self._count)
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        if not values[0] > 0:
            raise TrainingError("the features of all patches are equal", do="pass images that show the part")
        matrix = vectors[:, :kept] / np.sqrt(values[:kept] + shrinkage * values.mean())
        return Whitening(self._mean.astype(np.float32), np.ascontiguousarray(_triangular(matrix), dtype=np.float32))

    def lift(self, whitening: Whitening, tau: float, position: float) -> Lift:
        """A lift whose constant is tau, and whose position is `position`, median norms of whitened patches."""
        median = np.median(np.linalg.norm(whitening.apply(self._sample[: self._sampled]), axis=1))
        return Lift(float(tau * median), float(position * median))


def _triangular(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix times the rotation or reflection that makes it lower triangular with a diagonal of 0 or more."""
    _, upper = np.linalg.qr(matrix.T)
    return np.asarray(upper.T * np.where(np.diagonal(upper) < 0, -1, 1), dtype=np.float64)
