"""A job: the bundle of one product, proven on this device and warm, ready to inspect with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.cuda.similarity import GREATEST_LOSS
from lineward.runtime.engines import TENSORRT, open_engine
from lineward.runtime.golden import check_golden
from lineward.runtime.images import decode_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.configuration import Engine
from lineward.runtime.trust import Trust


@dataclass(frozen=True)
class Job:
    """What parts are inspected with.

    Attributes:
        number: as the PLC names it.
        bundle: the product's bundle.
        inspector: made of it.
        warm_frame: a frame that keeps the device warm.
    """

    number: int
    bundle: Bundle = field(repr=False)
    inspector: Inspector = field(repr=False)
    warm_frame: Frame = field(repr=False)

    @property
    def threshold(self) -> float:
        """The image score that still passes."""
        return self.bundle.manifest.threshold.value


def load_job(number: int, path: Path, engine: Engine, trust: Trust) -> Job:
    """Read a job's bundle, open its engine, and prove on its golden images that this device gives its results.

    Raises:
        BundleError: the bundle is damaged or not trusted, or gives other results here.
        KeyFileError: this machine's keys cannot be relied upon.
        EngineError: the engine cannot be opened.
    """
    bundle = read_bundle(path, trust)
    inspector = Inspector(bundle, open_engine(bundle, engine.name, engine.threads))
    check_golden(bundle, inspector, GREATEST_LOSS if engine.name == TENSORRT else 0.0)
    golden = bundle.manifest.golden[0].image
    frame = decode_image(bundle.members[golden], golden)
    inspector.inspect(frame)
    return Job(number, bundle, inspector, frame)
