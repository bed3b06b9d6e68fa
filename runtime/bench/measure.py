"""A bench: real images through the path that inspects, cold and warm, back to back and at a cadence."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.bench.energy import Meter
from lineward.runtime.bench.machine import read_machine, read_state
from lineward.runtime.bench.record import EMBEDDING_AND_SIMILARITY, FORMAT, Cold, Images, Record, Run
from lineward.runtime.bench.triggers import Clock, StageTimes, SystemClock, run_triggers
from lineward.runtime.bundle import Bundle
from lineward.runtime.engines import open_engine
from lineward.runtime.errors import BenchError
from lineward.runtime.images import decode_image, find_images, read_file
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame, check_frame
from lineward.runtime.stages import Stage

MOST_IMAGES = 32
"""Different images that a bench holds in memory; of more, every n-th is taken."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        count: triggers of each run.
        warmup: triggers before each run that are not measured.
        rate: triggers a second of a second run; None: only back to back.
        deadline: seconds from trigger to verdict; None: none.
        engine: the engine's name.
        threads: threads of the CPU to use; None: one for each core.
        decoded: whether images are decoded beforehand, as a camera delivers them.
    """

    count: int = 500
    warmup: int = 20
    rate: float | None = None
    deadline: float | None = None
    engine: str = "cpu"
    threads: int | None = None
    decoded: bool = False


@dataclass(frozen=True)
class Material:
    """Images to inspect in turn.

    Attributes:
        source: where they came from.
        files: name and bytes of each.
    """

    source: str
    files: tuple[tuple[str, bytes], ...]


def read_material(bundle: Bundle, places: Sequence[str]) -> Material:
    """The images that the places name, else the bundle's golden ones.

    Raises:
        DataError: a place has no images.
        ImageError: an image cannot be read.
        BenchError: no place is named, and the bundle has no golden images.
    """
    if places:
        paths = find_images(places)
        chosen = paths[:: -(-len(paths) // MOST_IMAGES)]
        return Material(
            f"{len(chosen)} of {len(paths)} images given", tuple((str(p), read_file(Path(p))) for p in chosen)
        )
    golden = bundle.manifest.golden
    if not golden:
        raise BenchError("the bundle has no golden images", do="name your own: --images PATH")
    files = tuple((image.image, bundle.members[image.image]) for image in golden)
    return Material(f"the bundle's own {len(files)} golden images", files)


def run_bench(bundle: Bundle, material: Material, plan: Plan, say: Say, clock: Clock | None = None) -> Record:
    """Measure.

    Args:
        bundle: what to inspect with.
        material: what to inspect.
        plan: how.
        say: is told what begins.
        clock: time; the machine's by default.

    Raises:
        ImageError: an image cannot be decoded, or not be inspected.
        EngineError: the engine cannot be opened, or failed.
        KeyboardInterrupt: Ctrl-C came before the first measured trigger.
    """
    clock = clock or SystemClock()
    times = StageTimes(clock)
    machine = read_machine()
    inspect = (_from_frames if plan.decoded else _from_files)(material, times)
    say(f"cold: open the engine {plan.engine}, and the first inspection")
    begin = clock.now()
    inspector = Inspector(bundle, open_engine(bundle, plan.engine, plan.threads, times), times)
    cold = _first(lambda: inspect(inspector, 0), times, clock.now() - begin)
    for name, data in material.files:  # now, so that no image is found broken in the middle of a run
        check_frame(decode_image(data, name))
    runs: list[Run] = []
    for rate in (None, plan.rate) if plan.rate else (None,):
        run = _run(lambda index: inspect(inspector, index), tuple(cold.stages), times, clock, plan, rate, say)
        if run:
            runs.append(run)
        if run is None or run.interrupted:
            break
    if not runs:
        raise KeyboardInterrupt
    return Record(
        format=FORMAT,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        product=bundle.manifest.product,
        bundle=bundle.sha256,
        engine=plan.engine,
        threads=plan.threads,
        deadline=plan.deadline,
        images=Images(material.source, len(material.files), _sha256(material), plan.decoded),
        machine=machine,
        cold=cold,
        runs=tuple(runs),
    )


def _first(inspect: Callable[[], None], times: StageTimes, opened: float) -> Cold:
    """The first inspection; an engine that tells no end of its embedding has embedding and similarity in one stage."""
    times.begin()
    inspect()
    apart = Stage.EMBEDDING in times.seconds
    together = {Stage.SIMILARITY: EMBEDDING_AND_SIMILARITY}
    names = [stage.value if apart else together.get(stage, stage.value) for stage in times.seconds]
    return Cold(opened, dict(zip(names, times.seconds.values(), strict=True)))


def _run(
    inspect: Callable[[int], None],
    stages: tuple[str, ...],
    times: StageTimes,
    clock: Clock,
    plan: Plan,
    rate: float | None,
    say: Say,
) -> Run | None:
    """One run, after its warm-up; None where Ctrl-C came before its first sample."""
    count = plan.warmup + plan.count
    say(f"at {rate:g}/s: {count} triggers, {count / rate:.0f} s" if rate else f"back to back: {count} triggers")
    _, interrupted = run_triggers(inspect, times, clock, plan.warmup, rate)
    if interrupted:
        return None
    before = read_state()
    with Meter() as meter:
        begin = clock.now()
        samples, interrupted = run_triggers(inspect, times, clock, plan.count, rate)
        seconds = clock.now() - begin
    after = read_state()
    if not samples:
        return None
    return Run(rate, stages, tuple(samples), before, after, meter.energy(seconds), meter.tegra, interrupted)


def _from_files(material: Material, times: StageTimes) -> Callable[[Inspector, int], None]:
    """Decodes and inspects."""
    files = material.files

    def inspect(inspector: Inspector, index: int) -> None:
        name, data = files[index % len(files)]
        frame = decode_image(data, name)
        times(Stage.DECODE)
        inspector.inspect(frame)

    return inspect


def _from_frames(material: Material, _times: StageTimes) -> Callable[[Inspector, int], None]:
    """Inspects what was decoded beforehand."""
    frames: list[Frame] = [decode_image(data, name) for name, data in material.files]

    def inspect(inspector: Inspector, index: int) -> None:
        inspector.inspect(frames[index % len(frames)])

    return inspect


def _sha256(material: Material) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for _, data in material.files)).hexdigest()
