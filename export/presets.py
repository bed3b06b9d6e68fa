"""Three recipes with names: more time on the device for more accuracy.

`docs/accuracy.md` has the accuracy and the latency of each, and what else was tried.
"""

from __future__ import annotations

from lineward.export.training import Recipe

DEFAULT_PRESET = "balanced"
PRESETS = {
    "fast": Recipe(size=256, rows=2048),
    DEFAULT_PRESET: Recipe(),
    "accurate": Recipe(rows=16384),
}
