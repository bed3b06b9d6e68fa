"""What a bench has found, as plain frozen records in one JSON file: every sample, and the machine it was taken on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lineward.runtime.atomic_write import replace_file
from lineward.runtime.errors import BenchError
from lineward.runtime.stages import Stage

FORMAT = 1
"""The format of the records that this version reads and writes."""
EMBEDDING_AND_SIMILARITY = "embedding+similarity"
"""One stage, of an engine that cannot tell the two apart."""
FRAME, TRIGGER = "frame to verdict", "trigger to verdict"
STAGES = (
    Stage.DECODE.value,
    Stage.PREPROCESS.value,
    EMBEDDING_AND_SIMILARITY,
    Stage.EMBEDDING.value,
    Stage.SIMILARITY.value,
    Stage.MAP.value,
    Stage.VERDICT.value,
)
"""Every stage that a record may hold, in the order of the path."""

Seconds = Annotated[float, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record that is frozen, and strict about what it is read from."""


class Machine(Strict, frozen=True):
    """What must be equal for two records to be compared; empty where the system does not tell.

    Attributes:
        cpu: model of the processor.
        architecture: such as "x86_64" or "aarch64".
        cores: cores that this process may use.
        board: the board, of a device tree.
        gpu: NVIDIA GPUs with a driver of their own.
        governor: governors of the cores' clocks.
        power_mode: nvpmodel's on a Jetson, or the platform profile.
        system: kernel and release, with the Jetson's.
        versions: of Python and of the packages on the path.
    """

    cpu: str
    architecture: str
    cores: Annotated[int, Meta(ge=1)]
    board: str
    gpu: str
    governor: str
    power_mode: str
    system: str
    versions: dict[str, str]


class State(Strict, frozen=True):
    """The machine at one moment; what the system does not tell is missing.

    Attributes:
        load: load average of the last minute.
        clocks: MHz, by name of the clock.
        temperatures: degrees Celsius, by thermal zone.
        throttling: counters of throttling events, and the states of cooling devices that are above 0.
    """

    load: float
    clocks: dict[str, float]
    temperatures: dict[str, float]
    throttling: dict[str, int]


class Tegra(Strict, frozen=True):
    """What tegrastats said during a run.

    Attributes:
        lines: how often it spoke.
        watts: mean power by rail.
        temperatures: greatest, degrees Celsius, by sensor.
        cpu_mhz: least and greatest clock of a core that was on; None where it did not say.
        gpu_mhz: the same of the GPU; None where it does not say so (it needs root for that).
    """

    lines: Count
    watts: dict[str, float]
    temperatures: dict[str, float]
    cpu_mhz: tuple[int, int] | None
    gpu_mhz: tuple[int, int] | None


class Energy(Strict, frozen=True):
    """Energy of a run, idle gaps included.

    Attributes:
        joules: of all its inspections.
        source: the sensor, and what it covers.
    """

    joules: Seconds
    source: str


class Sample(Strict, frozen=True):
    """One trigger; times in seconds from the beginning of the run.

    Attributes:
        planned: when the trigger was due.
        start: when its inspection began.
        queued: how long it waited for the inspection before it; 0 when that was over by the time it was due.
        stages: seconds in each of the run's stages.
    """

    planned: float
    start: float
    queued: Seconds
    stages: tuple[Seconds, ...]


class Run(Strict, frozen=True):
    """Triggers back to back or at a cadence.

    Attributes:
        rate: triggers a second; None back to back.
        stages: names of what each sample holds.
        samples: one for each trigger, in order.
        before: the machine before the run.
        after: the machine right after it.
        energy: None where no sensor tells.
        tegra: None where there is no tegrastats.
        interrupted: whether it was ended early.
    """

    rate: Annotated[float, Meta(gt=0)] | None
    stages: tuple[str, ...]
    samples: Annotated[tuple[Sample, ...], Meta(min_length=1)]
    before: State
    after: State
    energy: Energy | None
    tegra: Tegra | None
    interrupted: bool

    @property
    def name(self) -> str:
        """How the run is called."""
        return "back to back" if self.rate is None else f"at {self.rate:g}/s"


class Cold(Strict, frozen=True):
    """The first inspection of the process.

    Attributes:
        open: seconds to open the engine.
        stages: seconds of the first inspection, by stage.
    """

    open: Seconds
    stages: dict[str, Seconds]


class Images(Strict, frozen=True):
    """What was inspected, in turn.

    Attributes:
        source: where the images came from.
        count: different images.
        sha256: of all their files.
        decoded: whether they were decoded beforehand, as a camera delivers them.
    """

    source: str
    count: Annotated[int, Meta(ge=1)]
    sha256: Sha256
    decoded: bool


class Record(Strict, frozen=True):
    """The whole of a bench.

    Attributes:
        format: version of this format.
        created: UTC time, ISO 8601.
        product: the bundle's product.
        bundle: the bundle's SHA-256.
        engine: the engine's name.
        threads: threads asked for; None: one for each core.
        deadline: seconds from trigger to verdict; None where none was given.
        images: what was inspected.
        machine: where.
        cold: the first inspection.
        runs: the others.
    """

    format: int
    created: str
    product: str
    bundle: Sha256
    engine: str
    threads: Annotated[int, Meta(ge=1)] | None
    deadline: Annotated[float, Meta(gt=0)] | None
    images: Images
    machine: Machine
    cold: Cold
    runs: tuple[Run, ...]


def latencies(run: Run) -> Mapping[str, NDArray[np.float64]]:
    """Seconds [triggers] of every stage, then of the whole path.

    That is `FRAME`, all stages but decoding, where there was decoding; and `TRIGGER`, all stages and the wait in the
    queue.
    """
    stages = np.array([sample.stages for sample in run.samples])
    columns = dict(zip(run.stages, stages.T, strict=True))
    trigger = stages.sum(1) + [sample.queued for sample in run.samples]
    decode = columns.get(Stage.DECODE.value)
    frame = {} if decode is None else {FRAME: stages.sum(1) - decode}
    return {**columns, **frame, TRIGGER: trigger}


def misses(run: Run, deadline: float) -> int:
    """Triggers whose verdict came more than `deadline` seconds after them."""
    return int(np.count_nonzero(latencies(run)[TRIGGER] > deadline))


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON.

    Raises:
        BenchError: the folder is missing, full or not writable.
    """
    try:
        replace_file(path, msgspec.json.encode(record, order="deterministic") + b"\n")
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror})", do="check the folder and its free space"
        ) from error


def read_record(path: Path) -> Record:
    """Read a record, and check that it is whole.

    Raises:
        BenchError: it cannot be read, is no record, of another format, or does not fit together.
    """
    again = "name a file that `lineward bench BUNDLE --json FILE` wrote"
    try:
        data = path.read_bytes()
        head = msgspec.json.decode(data)
        if isinstance(head, dict) and isinstance(head.get("format"), int) and head["format"] != FORMAT:
            raise BenchError(
                f"{path}: format {head['format']} is not known here (this version reads {FORMAT})",
                do="measure again with this version, or compare with the version that wrote it",
            )
        record = msgspec.json.decode(data, type=Record)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror})", do=again) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BenchError(f"{path}: not a record of a bench: {error}", do=again) from error
    for run in record.runs:
        if {len(sample.stages) for sample in run.samples} != {len(run.stages)} or not set(run.stages) <= set(STAGES):
            raise BenchError(f"{path}: the samples of {run.name} do not fit its stages", do=again)
    return record
