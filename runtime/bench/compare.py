"""Two benches side by side: what is faster, and how sure that is; refused where the machines differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lineward.runtime.bench.record import Record, Run, latencies
from lineward.runtime.bench.statistics import Ratio, percentile, ratio
from lineward.runtime.errors import BenchError

SHARES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True)
class Change:
    """A percentile of one stage in two benches, in seconds.

    Attributes:
        run: the run it is of.
        stage: the stage it is of.
        percentile: its name.
        first: in the first bench.
        second: in the second.
        ratio: the second to the first.
    """

    run: str
    stage: str
    percentile: str
    first: float
    second: float
    ratio: Ratio

    @property
    def finding(self) -> str:
        """What the interval says of the second bench."""
        return "slower" if self.ratio.low > 1 else "faster" if self.ratio.high < 1 else "no difference shown"


def machine_differences(first: Record, second: Record) -> list[str]:
    """What makes two benches benches of different machines, one difference a line."""
    a, b = first.machine, second.machine
    packages = ("onnxruntime", "onnxruntime-gpu", "tensorrt")
    facts = {
        **{name.replace("_", " "): (getattr(a, name), getattr(b, name)) for name in _FACTS},
        **{name: (a.versions.get(name, ""), b.versions.get(name, "")) for name in packages},
        "engine": (first.engine, second.engine),
        "threads": (first.threads or "one a core", second.threads or "one a core"),
    }
    return [f"{name}: {x or 'not told'} and {y or 'not told'}" for name, (x, y) in facts.items() if x != y]


_FACTS = ("cpu", "architecture", "cores", "board", "gpu", "governor", "power_mode")


def work_differences(first: Record, second: Record) -> list[str]:
    """What the two benches did differently on purpose: a comparison may be about it, and the reader must know it."""
    facts = {
        "bundle": (f"{first.product} {first.bundle[:12]}", f"{second.product} {second.bundle[:12]}"),
        "images": (f"{first.images.source}", f"{second.images.source}"),
        "images' bytes": (first.images.sha256[:12], second.images.sha256[:12]),
        "versions": (_versions(first), _versions(second)),
        "system": (first.machine.system, second.machine.system),
    }
    return [f"{name}: {x} and {y}" for name, (x, y) in facts.items() if x != y]


def compare(first: Record, second: Record, different_machines: bool = False) -> list[Change]:
    """Compare the runs that both have.

    Args:
        first: what is compared with.
        second: what is compared.
        different_machines: compare although the machines differ.

    Raises:
        BenchError: the machines differ, one decoded its images and the other did not, no run is in both, or the runs
            are too short.
    """
    differences = machine_differences(first, second)
    if differences and not different_machines:
        raise BenchError(
            "the two were not measured on the same machine:\n     " + "\n     ".join(differences),
            do="measure both on one machine, or say --different-machines",
        )
    if first.images.decoded != second.images.decoded:
        raise BenchError(
            "one of the two left out decoding (--decoded), the other did not", do="measure one of them again"
        )
    pairs = list(_pairs(first, second))
    if not pairs:
        names = [", ".join(run.name for run in record.runs) or "none" for record in (first, second)]
        raise BenchError(f"the two have no run in common ({names[0]}; {names[1]})", do="measure with the same --rate")
    changes = [change for pair in pairs for change in _changes(*pair)]
    if not changes:
        raise BenchError("the runs are too short to be compared", do="measure at least 10 triggers, 500 for p99")
    return changes


def _pairs(first: Record, second: Record) -> Iterator[tuple[Run, Run]]:
    others = {run.rate: run for run in second.runs}
    yield from ((run, others[run.rate]) for run in first.runs if run.rate in others)


def _changes(first: Run, second: Run) -> Iterator[Change]:
    ours, theirs = latencies(second), latencies(first)
    for stage in theirs:
        for name, share in SHARES.items():
            if stage not in ours:
                continue
            found = ratio(ours[stage], theirs[stage], share)
            values = percentile(theirs[stage], share), percentile(ours[stage], share)
            if found and values[0] is not None and values[1] is not None:
                yield Change(first.name, stage, name, values[0], values[1], found)


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.machine.versions.items())
