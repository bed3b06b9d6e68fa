"""Golden images: does this device give the results the bundle was packed with?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import BundleError
from lineward.runtime.images import decode_image
from lineward.runtime.inspector import Inspector


@dataclass(frozen=True)
class GoldenResult:
    """One golden image on this device.

    Attributes:
        image: its member name.
        deviation: greatest absolute difference between its patch scores here and those packed.
        tolerance: the greatest difference allowed.
    """

    image: str
    deviation: float
    tolerance: float


def check_golden(bundle: Bundle, inspector: Inspector, slack: float = 0.0) -> tuple[GoldenResult, ...]:
    """Score every golden image and compare.

    Args:
        bundle: holds the golden images.
        inspector: scores them.
        slack: allowed beyond the bundle's own tolerance, for an engine that is known to round.

    Raises:
        BundleError: preprocessing differs in a single bit, or a patch score by more than the tolerance.
    """
    results = []
    for golden in bundle.manifest.golden:
        frame = decode_image(bundle.members[golden.image], golden.image)
        if bundle.view.sha256(frame) != golden.preprocessed_sha256:
            raise BundleError(
                f"{golden.image}: preprocessing on this device gives other pixels than where the bundle was made",
                do="check the OpenCV version; do not inspect with this bundle here",
            )
        scores = next(inspector.patch_scores([frame]))
        deviation = float(np.abs(scores - bundle.golden_scores(golden.scores)).max())
        tolerance = bundle.manifest.golden_tolerance + slack
        if not deviation <= tolerance:  # true for NaN too
            raise BundleError(
                f"{golden.image}: patch scores differ by {deviation:.2g} on this device, allowed are {tolerance:.2g}",
                do="check the onnxruntime version; do not inspect with this bundle here",
            )
        results.append(GoldenResult(golden.image, deviation, tolerance))
    return tuple(results)
