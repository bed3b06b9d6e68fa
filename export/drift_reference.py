"""The drift reference of a bundle: what its good images look like to the runtime's own measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lineward.runtime.drift import Measurement
from lineward.runtime.drift.measurements import Look
from lineward.runtime.manifest import DriftReference

GREATEST = 256
"""Values kept of a statistic, by chance where there are more: the station adds its own frames to them."""


def drift_reference(held_out: Sequence[Measurement], bank: Sequence[Look], seed: int) -> DriftReference:
    """Build the reference.

    Light and focus are what they are whether an image built the bank or not, so all good images count for them. Scores
    and distances are of held-out images alone: the bank knows its own.

    Args:
        held_out: of the good images that did not build the bank.
        bank: of those that did.
        seed: of the choice where there are too many.
    """
    looks = [*(m.look for m in held_out), *bank]
    random = np.random.default_rng(seed)

    def kept(values: Sequence[float]) -> tuple[float, ...]:
        chosen = random.permutation(len(values))[:GREATEST]
        return tuple(sorted(float(f"{values[i]:.6g}") for i in chosen))

    return DriftReference(
        score=kept([m.score for m in held_out]),
        distance=kept([m.distance for m in held_out]),
        brightness=kept([look.brightness for look in looks]),
        contrast=kept([look.contrast for look in looks]),
        colour=kept([look.colour for look in looks]),
        sharpness=kept([look.sharpness for look in looks]),
    )
