"""A drift in words, for the log, the status and the people at the line."""

from __future__ import annotations

import math

from lineward.runtime.drift.measurements import Statistic
from lineward.runtime.drift.monitor import Direction, DriftAlarm, DriftState

_LOOK_AT = {
    (Statistic.SCORE, Direction.ROSE): "parts that pass look less like the good ones: see the other statistics",
    (Statistic.SCORE, Direction.FELL): "parts look more alike than when it was trained: nothing is wrong by itself",
    (Statistic.DISTANCE, Direction.ROSE): "the whole view changed: product shade, position, dirt on the lens",
    (Statistic.DISTANCE, Direction.FELL): "the whole view is more uniform: is the part in the picture?",
    (Statistic.BRIGHTNESS, Direction.ROSE): "the lamp, the exposure, light from outside",
    (Statistic.BRIGHTNESS, Direction.FELL): "the lamp, the exposure, dirt on lamp or lens",
    (Statistic.CONTRAST, Direction.ROSE): "the angle of the light, glare, product shade",
    (Statistic.CONTRAST, Direction.FELL): "haze or dirt on the lens, light from outside, product shade",
    (Statistic.COLOUR, Direction.ROSE): "redder: the lamp's colour, white balance, product shade",
    (Statistic.COLOUR, Direction.FELL): "bluer: the lamp's colour, white balance, product shade",
    (Statistic.SHARPNESS, Direction.ROSE): "noise (gain, heat of the camera), vibration gone, product texture",
    (Statistic.SHARPNESS, Direction.FELL): "focus, a knocked lens, vibration, dirt or oil on the lens",
}
"""Where to look first, in the words of docs/drift.md."""


def describe(alarm: DriftAlarm, state: DriftState) -> str:
    """An alarm in words: what, which way, since when, how strong, and where to look."""
    usual = ""
    if math.isfinite(state.deviation):
        usual = f", where {state.usual:.4g} ± {state.deviation:.2g} was usual"
    look_at = _LOOK_AT[alarm.statistic, alarm.direction]
    return (
        f"{alarm.statistic.value} {alarm.direction.value} at about part {alarm.since}: {alarm.mean:.4g}{usual}; "
        f"look at: {look_at}"
    )
