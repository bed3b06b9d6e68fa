"""A job: the bundle of one product, proven on this device and warm, ready to inspect with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.calibrating import check_still_rejects
from lineward.runtime.calibration_file import Calibration, path_for, read_calibration
from lineward.runtime.cuda.similarity import GREATEST_LOSS
from lineward.runtime.delivery.slot_state import Slot, SlotState
from lineward.runtime.delivery.slots import Slots, is_slots
from lineward.runtime.engines import TENSORRT, open_engine
from lineward.runtime.errors import BundleError, DeliveryError, SignatureError
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
        calibration: this device's own threshold; None: the bundle's applies.
    """

    number: int
    bundle: Bundle = field(repr=False)
    inspector: Inspector = field(repr=False)
    warm_frame: Frame = field(repr=False)
    calibration: Calibration | None = None

    @property
    def threshold(self) -> float:
        """The image score that still passes."""
        return (self.calibration or self.bundle.manifest).threshold.value

    @cached_property
    def calibration_sha256(self) -> str:
        """Names the calibration; empty where the bundle's own threshold applies."""
        return self.calibration.sha256 if self.calibration else ""


def load_job(number: int, path: Path, engine: Engine, trust: Trust, calibration: Path | None = None) -> Job:
    """Read a job's bundle, open its engine, and prove on its golden images that this device gives its results.

    Args:
        number: of the job.
        path: of the bundle.
        engine: what to open.
        trust: whose bundles to accept.
        calibration: file or folder of the device's own threshold; None: the bundle's applies.

    Raises:
        BundleError: the bundle is damaged or not trusted, or gives other results here.
        CalibrationError: the calibration is not this bundle's.
        KeyFileError: this machine's keys, or the calibration's file, cannot be relied upon.
        EngineError: the engine cannot be opened.
    """
    return open_job(number, read_bundle(path, trust), engine, calibration)


def open_job(number: int, bundle: Bundle, engine: Engine, calibration: Path | None = None) -> Job:
    """Open the engine of a job's bundle, and prove on its golden images that this device gives its results.

    A calibration that is named and is not there, or is another bundle's, is an error, never a reason to fall back on
    the bundle's threshold: that may be higher, and nobody decided that parts between the two shall pass.

    Raises:
        BundleError: it gives other results here.
        CalibrationError: the calibration is not this bundle's, or would pass a golden image that is known to be bad.
        KeyFileError: the calibration is not there, or others could have changed it.
        EngineError: the engine cannot be opened.
    """
    own = None
    if calibration is not None:
        own = read_calibration(path_for(calibration, bundle.sha256), bundle)
        check_still_rejects(bundle, own.threshold)
    inspector = Inspector(bundle, open_engine(bundle, engine.name, engine.threads), calibration=own)
    check_golden(bundle, inspector, GREATEST_LOSS if engine.name == TENSORRT else 0.0)
    golden = bundle.manifest.golden[0].image
    frame = decode_image(bundle.members[golden], golden)
    inspector.inspect(frame)
    return Job(number, bundle, inspector, frame, own)


def active_bundle(number: int, path: Path) -> Path:
    """The file of a job's bundle: what the station file names, or what is active in the slots that it names.

    Raises:
        DeliveryError: nothing is active in the slots, or they are damaged.
    """
    if not is_slots(path):
        return path
    slots = Slots(path)
    return slots.path(_active(number, slots, slots.read()))


def load_from_slots(
    number: int,
    slots: Slots,
    engine: Engine,
    trust: Trust,
    taken_back: Callable[[str], object],
    calibration: Path | None = None,
) -> Job:
    """Load what is active; where its file is damaged, the latest before it that is whole, and tell the slots.

    Args:
        number: of the job.
        slots: of the job.
        engine: what to open.
        trust: whose bundles to accept.
        taken_back: told why the active bundle is not taken.
        calibration: see `load_job`.

    Raises:
        CalibrationError: the calibration is not that of the bundle that would be taken.
        BundleError: none is whole, or the active one is not trusted.
        DeliveryError: nothing is active in the slots, or they are damaged.
        EngineError: the engine cannot be opened.
    """
    state = slots.read()
    _active(number, slots, state)
    if slots.damage is not None:
        taken_back(slots.damage)
    damage: list[tuple[str, BundleError]] = []
    for slot in state.kept:
        try:
            job = open_job(number, slots.bundle(slot, trust), engine, calibration)
        except SignatureError:
            if slot == state.active:
                raise  # a clock, or keys, to be set right: no reason to go back
        except BundleError as error:
            damage.append((slot.sha256, error))
        else:
            for sha256, why in damage:
                taken_back(f"{why.what}; going back to version {slot.version}")
                with suppress(DeliveryError):  # a disk that cannot be written must not stop the line
                    slots.refuse(sha256, why.what)
            return job
    raise damage[0][1]


def _active(number: int, slots: Slots, state: SlotState) -> Slot:
    if state.active is None:
        raise DeliveryError(
            f"{slots.folder}: no bundle is active for job {number}",
            do=f"`lineward deploy STATION_FILE BUNDLE --job {number}`",
        )
    return state.active
