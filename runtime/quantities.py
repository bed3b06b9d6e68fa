"""Quantities as people write them: "12ms", "5/s", "20GB"."""

from __future__ import annotations

import math
import re

_PER = {"": 1.0, "/s": 1.0, "/min": 60.0, "/h": 3600.0}
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_rate(text: str) -> float:
    """Triggers a second of "5/s", "300/min", "1200/h" or "5".

    Raises:
        ValueError: it is no rate.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|/s|/min|/h)", text.strip())
    rate = float(found[1]) / _PER[found[2]] if found else 0.0
    if not 0 < rate < math.inf:
        raise ValueError(f"{text!r} is no rate: say 5/s, 300/min or 5 (a second)")
    return rate


def parse_duration(text: str) -> float:
    """Seconds of "12ms", "0.5s" or "800us"; a bare number would leave the unit to guess.

    Raises:
        ValueError: it is no time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is no time: say 12ms, 0.5s or 800us")
    return seconds


def parse_size(text: str) -> int:
    """Bytes of "500MB" or "20GB".

    Raises:
        ValueError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|MB|GB|TB)", text.strip())
    size = int(float(found[1]) * _SIZES[found[2]]) if found else 0
    if size < 1:
        raise ValueError(f"{text!r} is no size: say 500MB or 20GB")
    return size
