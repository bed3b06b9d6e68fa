"""The stages from trigger to verdict, and who may hear that one has ended."""

from __future__ import annotations

import enum
from collections.abc import Callable


class Stage(str, enum.Enum):
    """A stage, in the order of the path."""

    DECODE = "decode"
    PREPROCESS = "preprocess"
    EMBEDDING = "embedding"
    SIMILARITY = "similarity"
    MAP = "map"
    VERDICT = "verdict"


StageEnded = Callable[[Stage], None]
"""Called on the path itself as a stage ends: it must be quick."""


def nobody(_stage: Stage) -> None:
    """Hears nothing."""
