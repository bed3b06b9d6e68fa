"""What frames that resemble their neighbours do to the false-alarm rate, which is stated for frames that do not.

python -m benchmarks.drift.dependence
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.results_file import write_results
from lineward.runtime.drift import FRAMES_BETWEEN_FALSE_ALARMS, STATISTICS
from lineward.runtime.drift.sequential_test import ChangeTest, RankHistory

CORRELATIONS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
FRAMES, RUNS, REFERENCE = 10_000, 20, 200
_SPAN = 8.0  # of the history, in standard deviations


def main() -> None:
    """Count alarms of one statistic in runs whose frames follow one another with a correlation."""
    figures: dict[str, Any] = {"frames": FRAMES, "runs": RUNS, "reference": REFERENCE}
    figures["runs_with_alarm"] = {
        str(correlation): sum(_alarms(correlation, seed) for seed in range(RUNS)) for correlation in CORRELATIONS
    }
    write_results("drift_dependence", "python -m benchmarks.drift.dependence", figures)


def _alarms(correlation: float, seed: int) -> bool:
    random = np.random.default_rng((4, seed))
    history = RankHistory(-_SPAN, _SPAN, seed)
    test = ChangeTest(FRAMES_BETWEEN_FALSE_ALARMS * len(STATISTICS))
    for value in random.standard_normal(REFERENCE):
        history.add(value)
    for part, value in enumerate(_wandering(correlation, random)):
        if test.update(history.p_value(value), part, value):
            return True
        history.add(value)
    return False


def _wandering(correlation: float, random: np.random.Generator) -> Iterator[float]:
    """An autoregression of order one: normal, mean 0, variance 1, that correlation between one frame and the next."""
    value = random.standard_normal()
    for step in random.standard_normal(FRAMES):
        value = correlation * value + math.sqrt(1 - correlation**2) * step
        yield value


if __name__ == "__main__":
    main()
