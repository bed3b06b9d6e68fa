"""Good parts scored now, as evidence beside a bundle's promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.distinct import fingerprint, pixels_sha256
from lineward.runtime.errors import DataError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector


@dataclass(frozen=True)
class GoodPart:
    """A good part and what was said of it; the score is NaN where there is none."""

    path: Path
    score: float
    verdict: Verdict


@dataclass(frozen=True)
class GoodParts:
    """Good parts, each different image once.

    Attributes:
        parts: in the order given.
        copies: images left out because another showed the same pixels.
        data_sha256: fingerprint of the images.
    """

    parts: tuple[GoodPart, ...]
    copies: int
    data_sha256: str

    @property
    def rejected(self) -> int:
        """How many were rejected."""
        return sum(part.verdict is Verdict.REJECT for part in self.parts)


def score_parts(
    inspector: Inspector, paths: Sequence[Path], progress: Callable[[int], None] = lambda _: None
) -> GoodParts:
    """Inspect good parts.

    Args:
        inspector: what to inspect with.
        paths: their images.
        progress: called with the images read so far.

    Raises:
        DataError: there are none.
        ImageError: an image cannot be read.
        EngineError: the engine failed.
    """
    if not paths:
        raise DataError("no good parts to show", do="name images of good parts, or leave --images out")
    parts: dict[str, GoodPart] = {}
    for done, path in enumerate(paths, 1):
        frame = read_image(path)
        digest = pixels_sha256(frame)
        if digest not in parts:
            inspection = inspector.inspect(frame)
            parts[digest] = GoodPart(path, inspection.score, inspection.verdict)
        progress(done)
    return GoodParts(tuple(parts.values()), len(paths) - len(parts), fingerprint(parts))
