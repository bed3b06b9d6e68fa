"""Is a bundle fast enough on this device for the station's deadline?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineward.runtime.bench.statistics import percentile
from lineward.runtime.errors import DeliveryError
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame

MARGIN = 0.2
"""The share of the deadline that is left to camera, queue and wire."""

_WARM_UP = 5
_INSPECTIONS = 100


@dataclass(frozen=True)
class Latency:
    """Inspections of the golden image, one after the other, in seconds.

    Attributes:
        p50: median.
        p99: percentile 99.
        allowed: the most that p99 may be.
    """

    p50: float
    p99: float
    allowed: float


def check_latency(inspector: Inspector, frame: Frame, deadline: float) -> Latency:
    """Measure inspections of one frame against a station's deadline, in seconds.

    Raises:
        DeliveryError: p99 is more than the deadline less `MARGIN`.
    """
    for _ in range(_WARM_UP):
        inspector.inspect(frame)
    seconds = np.array([inspector.inspect(frame).seconds for _ in range(_INSPECTIONS)])
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    assert p50 is not None
    assert p99 is not None
    latency = Latency(p50, p99, deadline * (1 - MARGIN))
    if not p99 <= latency.allowed:
        raise DeliveryError(
            f"too slow for this station: p99 of {_INSPECTIONS} inspections is {p99 * 1e3:.1f} ms (p50 {p50 * 1e3:.1f}"
            f" ms), allowed {latency.allowed * 1e3:.1f} ms, the deadline of {deadline * 1e3:g} ms less {MARGIN:.0%}",
            do="train with a faster preset, choose a faster engine, or a longer deadline; a busy device measures slow",
        )
    return latency
