"""Candidates that another device times: their bundles as written, and records as `lineward bench` writes them there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from lineward.export.datasets import open_dataset
from lineward.export.training import Recipe
from lineward.export.tuning.elsewhere import read_records, timed_elsewhere, write_bundles
from lineward.export.tuning.judges import seat
from lineward.export.tuning.search import candidates, judge
from lineward.export.tuning.store import Store, open_store
from lineward.export.tuning.table import Candidate, Graph
from lineward.runtime.bench.measure import Plan, read_material, run_bench
from lineward.runtime.bench.record import Record, Run, Sample, read_record, write_record
from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.errors import BenchError

RECIPE = Recipe(size=64, rows=64, false_reject_rate=0.2)
GRAPH = Graph(64)


@dataclass(frozen=True)
class Journey:
    """A search whose bundles were taken to a device, and a record of the first that came back.

    Attributes:
        wanted: the candidates.
        store: what was found of them.
        folder: their bundles.
        record: of the first.
    """

    wanted: list[Candidate]
    store: Store
    folder: Path
    record: Record


@pytest.fixture(scope="session")
def journey(parts: Path, quiet, tmp_path_factory) -> Journey:
    folder = tmp_path_factory.mktemp("elsewhere")
    dataset = open_dataset(parts)
    panel = seat(dataset, dataset.train, RECIPE.promise)
    wanted = candidates([GRAPH], [64, 128], len(panel.bank), RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINEWARD_CACHE", str(folder / "cache"))
        store = open_store(panel, RECIPE)
    judge(wanted, panel, "parts", RECIPE, store, quiet)
    bundles = folder / "bundles"
    bundles.mkdir()
    assert write_bundles(wanted, store, bundles) == 2
    bundle = read_bundle(bundles / "64-pixels-64-rows.lineward")
    record = run_bench(bundle, read_material(bundle, []), Plan(count=50, warmup=1, threads=1), lambda _: None)
    return Journey(wanted, store, bundles, record)


def taking(
    record: Record, milliseconds: float, late: float = 0.0, rate: float | None = None, count: int = 100
) -> Record:
    """The record with other times: the last two triggers take `late` more."""
    stages = len(record.runs[0].stages)
    times = [milliseconds / 1e3 + (late / 1e3 if number >= count - 2 else 0) for number in range(count)]
    samples = tuple(Sample(t, t, 0.0, (t, *[0.0] * (stages - 1))) for t in times)
    run: Run = msgspec.structs.replace(record.runs[0], samples=samples, rate=rate)
    return msgspec.structs.replace(record, runs=(run,))


def kept(folder: Path, *records: Record) -> list[Path]:
    paths = [folder / f"{number}.json" for number in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        write_record(path, record)
    return paths


def test_a_bundle_is_written_for_each_candidate(journey: Journey):
    written = {path.name: read_bundle(path).manifest for path in journey.folder.iterdir()}
    assert {name: (m.rows, m.preprocessing.width) for name, m in written.items()} == {
        "64-pixels-64-rows.lineward": (64, 64),
        "64-pixels-128-rows.lineward": (128, 64),
    }


def test_the_times_are_those_of_the_device_and_the_accuracy_is_that_of_the_search(journey: Journey, tmp_path: Path):
    slow, slower = taking(journey.record, 80, late=20), taking(journey.record, 90)
    (row,) = timed_elsewhere(journey.wanted, journey.store, read_records(kept(tmp_path, slow, slower)))
    assert row.candidate == Candidate(GRAPH, 64)  # of the other there is no record
    assert row.accuracy == journey.store.accuracy(row.candidate)
    assert row.timing.p50 == pytest.approx(0.08)
    assert row.timing.p99 == (pytest.approx(0.1), pytest.approx(0.09))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: taking(r, 1, rate=5.0), "1.json: not a whole run back to back"),
        (lambda r: taking(r, 1, count=20), "1.json: not a whole run back to back"),
        (lambda r: _interrupted(taking(r, 1)), "1.json: not a whole run back to back"),
        (lambda r: msgspec.structs.replace(r, engine="tensorrt"), "not measured alike(.|\n)*engine: cpu and tensorrt"),
        (lambda r: _decoded(r), "not measured alike(.|\n)*one left out decoding"),
    ],
    ids=["at a cadence", "too short", "ended early", "another engine", "decoded"],
)
def test_records_of_different_measurements_are_refused(change, error, journey: Journey, tmp_path: Path):
    with pytest.raises(BenchError, match=error):
        read_records(kept(tmp_path, taking(journey.record, 1), change(journey.record)))


def _interrupted(record: Record) -> Record:
    return msgspec.structs.replace(record, runs=(msgspec.structs.replace(record.runs[0], interrupted=True),))


def _decoded(record: Record) -> Record:
    return msgspec.structs.replace(record, images=msgspec.structs.replace(record.images, decoded=True))


def test_a_record_of_another_bundle_is_refused(journey: Journey):
    other = msgspec.structs.replace(journey.record, bundle="ab" * 32)
    with pytest.raises(BenchError, match="is of none of the candidates' bundles \\(abababababab\\)"):
        timed_elsewhere(journey.wanted, journey.store, [journey.record, other])


def test_from_the_bundles_to_the_choice_on_the_command_line(parts: Path, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setenv("LINEWARD_CACHE", str(tmp_path / "cache"))
    device, output = tmp_path / "device", tmp_path / "a.lineward"
    search = ["tune", str(parts), "--false-reject-rate", "0.2", "--sizes", "64", "--banks", "64", "128"]
    search += ["--kept", "all", "16", "-o", str(output)]
    assert main([*search, "--bundles", str(device)]) == FAILED
    assert f"{device}: no such folder" in capsys.readouterr().err
    device.mkdir()
    assert main([*search, "--bundles", str(device), "--on", "a.json"]) == FAILED
    assert "say one of them" in capsys.readouterr().err
    assert main([*search, "--bundles", str(device)]) == PASSED
    assert "wrote 4 bundles" in capsys.readouterr().out
    assert not output.exists()
    records = []
    for rows, milliseconds in ((128, 9.0), (64, 3.0)):
        bundle = device / f"64-pixels-16-dimensions-{rows}-rows.lineward"
        record = device / f"{rows}.json"
        assert main(["bench", str(bundle), "--count", "50", "--threads", "1", "--json", str(record)]) == PASSED
        write_record(record, taking(read_record(record), milliseconds))
        records.append(str(record))
    assert main([*search, "--budget", "5ms", "--on", *records]) == PASSED
    said = capsys.readouterr().out
    assert "chosen for 5 ms: 64 pixels, 16 dimensions, 64 rows; p99 at most 3.0 ms" in said
    assert "the greatest of the device's records of it (1)" in said
    manifest = read_bundle(output).manifest
    assert (manifest.rows, manifest.grid.dimensions) == (64, 16 + 3)  # and the place of a patch, and the lift
