"""Candidates timed on another device: the bundles to take there, and the records that its `lineward bench` wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from lineward.export.tuning.search import bundles_of, rows_of
from lineward.export.tuning.store import Store
from lineward.export.tuning.table import Candidate, Row, Timing, file_stem
from lineward.runtime.bench.compare import machine_differences
from lineward.runtime.bench.record import TRIGGER, Record, latencies, read_record
from lineward.runtime.bench.statistics import percentile
from lineward.runtime.bundle import encode_bundle, write_bundle
from lineward.runtime.errors import BenchError


def write_bundles(
    wanted: Sequence[Candidate], store: Store, folder: Path, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Write the bundle of each candidate that was judged, to be timed on another device.

    Args:
        wanted: candidates.
        store: holds their drafts and banks.
        folder: where to.
        progress: told of the bundles written.

    Returns:
        How many they are.

    Raises:
        BundleError: the folder is missing, full or not writable.
    """
    bundles = bundles_of(wanted, store)
    for number, (candidate, make) in enumerate(bundles.items(), 1):
        bundle = make()
        write_bundle(folder / f"{file_stem(candidate)}.lineward", encode_bundle(bundle.manifest, bundle.members))
        progress(number)
    return len(bundles)


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Records of one device, used in one way.

    Raises:
        BenchError: one cannot be read, was ended early or is too short; or they are of different machines, or one
            decoded its images and another did not.
    """
    records = [read_record(path) for path in paths]
    for path, record in zip(paths, records, strict=True):
        run = record.runs[0]
        if run.rate is not None or run.interrupted or percentile(latencies(run)[TRIGGER], 0.99) is None:
            raise BenchError(
                f"{path}: not a whole run back to back, long enough for a p99",
                do="measure it again: lineward bench BUNDLE --json FILE",
            )
        differences = machine_differences(records[0], record)
        if record.images.decoded != records[0].images.decoded:
            differences.append("one left out decoding (--decoded), the other did not")
        if differences:
            raise BenchError(
                f"{paths[0]} and {path} were not measured alike:\n     " + "\n     ".join(differences),
                do="measure all on one device, in one way",
            )
    return records


def timed_elsewhere(wanted: Sequence[Candidate], store: Store, records: Sequence[Record]) -> list[Row]:
    """The table of the candidates that another device has timed.

    Args:
        wanted: candidates.
        store: holds their drafts and banks.
        records: see `read_records`; several of a bundle are so many windows of its `Timing`.

    Raises:
        BenchError: a record is of none of the candidates' bundles.
    """
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.bundle].append(record)
    timings = {}
    for candidate, make in bundles_of(wanted, store).items():
        if of_it := found.pop(make().sha256, None):
            medians, p99 = ([_percentile(record, share) for record in of_it] for share in (0.5, 0.99))
            timings[candidate] = Timing(min(medians), tuple(p99))
    for bundle, of_none in found.items():
        raise BenchError(
            f"the record of {of_none[0].product} from {of_none[0].created} is of none of the candidates' bundles "
            f"({bundle[:12]})",
            do="search in the folder and with the options with which the bundles were written (--bundles), or write "
            "and measure them again",
        )
    return rows_of(timings, store, timings)


def _percentile(record: Record, share: float) -> float:
    value = percentile(latencies(record.runs[0])[TRIGGER], share)
    assert value is not None, "checked when it was read"
    return value
