"""The systems of the paper, and Lineward. Each learns from a material's training images and scores its test images."""

from __future__ import annotations

from typing import Protocol

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.measure import Scores
from lineward.export.training import Progress


class System(Protocol):
    """Learns from good images and scores others."""

    def __call__(self, material: Material, seed: int, progress: Progress) -> Scores:
        """Learn from `material.train`, never looking at its labels, and score every image of `material.test`."""
