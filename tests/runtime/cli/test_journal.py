from __future__ import annotations

import argparse
import csv
import io
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lineward.runtime.bundle import Bundle
from lineward.runtime.cli import journal as command
from lineward.runtime.errors import DataError, JournalError, LinewardError, MissingExtraError, StationError
from lineward.runtime.images import encode_png
from lineward.runtime.inspection import Reason
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station import journal as journal_module
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.journal_reader import COLUMNS, FILE_NAME
from lineward.runtime.station.records import Event
from tests.runtime.station.station_samples import UTC_NS, part

SECOND = 1_000_000_000
REASONS = [Reason.WITHIN_THRESHOLD, Reason.ABOVE_THRESHOLD, Reason.WITHIN_THRESHOLD, Reason.DEADLINE_MISSED]
STATION = """
name = "press-3"
folder = "memory"
deadline = "100ms"
camera = {kind = "folder", path = "in"}
jobs = {1 = "part.lineward"}
"""


def lineward(*argv: str | Path) -> int:
    """`lineward journal ...`."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in argv]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty parts, a second apart, of the four reasons in turn, and an event every ten."""
    folder = tmp_path_factory.mktemp("station") / "memory"
    journal = Journal(folder, "press-3")
    for number in range(1, 41):
        journal.final(part(number, REASONS[number % 4]))
        if number % 10 == 0:
            journal.event(Event("tick", f"after part {number}", UTC_NS + number * SECOND))
    journal.close()
    folder.with_name("station.toml").write_text(STATION)
    return folder


@pytest.mark.parametrize("where", ["folder", "journal", "station file"])
@pytest.mark.parametrize("action", [(), ("summary",)])
def test_the_summary(folder: Path, capsys: pytest.CaptureFixture[str], where: str, action: tuple[str, ...]) -> None:
    place = {"folder": folder, "journal": folder / FILE_NAME, "station file": folder.with_name("station.toml")}[where]
    assert lineward(place, *action) == 0
    out, error = capsys.readouterr()
    assert "press-3" in out
    for line in ("passed 20", "rejected 10", "rejected without verdict 10", "deadline missed 10"):
        assert line in [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    assert "40 ids = 40 parts + 0 never given + 0 not accounted for" in out
    assert error == ""


def test_the_summary_says_what_is_not_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path, "press-3")
    journal.final(part(1))
    journal.final(part(4))
    journal.close()
    assert lineward(tmp_path) == 0
    assert "2 ids are not accounted for" in capsys.readouterr().err


FILTERS = [
    ((), range(1, 41)),
    (("--outcome", "rejected"), range(1, 41, 4)),
    (("--reason", "deadline_missed", "--last", "2"), (35, 39)),
    (("--since", "2026-09-21T14:13:50", "--until", "2026-09-21T14:13:52Z"), (30, 31)),
    (("--since", "2026-09-21T16:13:50+02:00", "--last", "1"), (40,)),
    (("--since", "2026-09-22"), ()),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
def test_parts_as_csv_and_jsonl(
    folder: Path, capsys: pytest.CaptureFixture[str], filters: tuple[str, ...], expected: Any
) -> None:
    assert lineward(folder, "parts", "--format", "csv", *filters) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["id"]) for row in rows] == list(expected)
    assert lineward(folder, "parts", "--format", "jsonl", *filters) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["id"] for item in objects] == list(expected)
    for row, item in zip(rows, objects, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in item.items()}


def test_a_row_in_full(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lineward(folder, "parts", "--format", "jsonl", "--reason", "deadline_missed", "--last", "1")
    row = json.loads(capsys.readouterr().out)
    assert tuple(row) == command.PART_COLUMNS
    assert len(row) == len(COLUMNS)
    assert (row["utc"], row["score"], row["decided_us"]) == ("2026-09-21T14:13:59.000Z", None, 16000)


def test_a_table_shows_the_last_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lineward(folder, "parts") == 0
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if "2026-09-21" in line]) == 20
    assert "deadline_missed" in out


def test_events(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lineward(folder, "events", "--last", "2", "--format", "jsonl") == 0
    assert [json.loads(line)["detail"] for line in capsys.readouterr().out.splitlines()] == [
        "after part 30",
        "after part 40",
    ]
    assert lineward(folder, "events") == 0
    assert "after part 10" in capsys.readouterr().out


def test_export_as_csv(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "parts.csv"
    assert lineward(folder, "export", target, "--outcome", "rejected") == 0
    with target.open(newline="") as file:
        assert [int(row["id"]) for row in csv.DictReader(file)] == list(range(1, 41, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["parts.csv"]
    assert "10 parts" in capsys.readouterr().err


def test_export_as_parquet(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr(command, "_BATCH", 7)
    target = tmp_path / "parts.parquet"
    assert lineward(folder, "export", target) == 0
    table = parquet.read_table(target)
    assert tuple(table.column_names) == command.PART_COLUMNS
    assert table["id"].to_pylist() == list(range(1, 41))
    assert str(table.schema.field("utc").type) == "timestamp[ns, tz=UTC]"
    assert table["utc"].cast("int64").to_pylist() == [UTC_NS + number * SECOND for number in range(1, 41)]
    assert table["score"].to_pylist()[:4] == [0.75, 0.25, None, 0.25]
    assert [path.name for path in tmp_path.iterdir()] == ["parts.parquet"]


def test_an_empty_journal_exports_as_well(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    Journal(tmp_path, "press-3").close()
    assert lineward(tmp_path, "export", tmp_path / "parts.parquet") == 0
    assert parquet.read_table(tmp_path / "parts.parquet").num_rows == 0


def test_parquet_without_pyarrow_names_the_extra(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"lineward\[parquet\]"):
        lineward(folder, "export", tmp_path / "parts.parquet")
    assert list(tmp_path.iterdir()) == []


# Another bundle.


@pytest.fixture
def inspected(tmp_path: Path, tiny: Bundle, golden_frames: list[Frame]) -> Path:
    """A good and a bad part with their images, and a good one that came too late, as the tiny bundle saw them."""
    folder = tmp_path / "station"
    journal = Journal(folder, "press-3")
    (folder / "images").mkdir()
    inspector = Inspector(tiny)
    threshold = tiny.manifest.threshold.value
    good = golden_frames[0]
    bad = np.random.default_rng(0).integers(0, 256, good.shape, dtype=np.uint8)
    for number, frame in enumerate((good, bad, good), 1):
        result = inspector.inspect(frame)
        reason = Reason.DEADLINE_MISSED if number == 3 else result.reason
        journal.final(part(number, reason, score=result.score, threshold=threshold))
        data = encode_png(frame)
        (folder / "images" / f"{number}.png").write_bytes(data)
        journal.image(number, f"images/{number}.png", len(data))
    journal.image(9, "images/9.png", 5)  # of a part that is still in flight
    journal.close()
    return folder


def test_the_same_bundle_changes_nothing(inspected: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lineward(inspected, "rescore", tiny_path, "--threads", "1", "--format", "jsonl") == 0
    out, error = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["verdict"], row["verdict_now"]) for row in rows] == [
        ("pass", "pass"),
        ("reject", "reject"),
        ("pass", "pass"),
    ]
    assert all(row["score"] == pytest.approx(row["score_now"], abs=1e-4) for row in rows)
    assert "3 images: 0 verdicts would change" in error


def test_a_stricter_bundle_changes_verdicts(
    inspected: Path, tiny: Bundle, rebundle: Callable[..., bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = tmp_path / "strict.lineward"
    strict.write_bytes(rebundle(threshold=msgspec.structs.replace(tiny.manifest.threshold, value=1e-6)))
    assert lineward(inspected, "rescore", strict, "--threads", "1") == 1
    out, error = capsys.readouterr()
    assert len([line for line in out.splitlines() if "images/" in line]) == 2
    assert "3 images: 2 verdicts would change, 2 from pass to reject" in error


def test_an_image_that_cannot_be_read_makes_the_exit_code_2(
    inspected: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inspected / "images" / "1.png").write_bytes(b"half")
    (inspected / "images" / "2.png").unlink()
    assert lineward(inspected, "rescore", tiny_path, "--threads", "1") == 2
    error = capsys.readouterr().err
    assert "1.png: not an image" in error
    assert "2.png: cannot be read" in error


# Less, and what goes wrong.


def test_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path, "press-3")
    for number in range(1, 11):
        journal.final(part(number))
    (tmp_path / "2.png").write_bytes(b"png")
    journal.image(2, "2.png", 3)
    journal.close()
    assert lineward(tmp_path, "prune", "--before", "2026-09-21T14:13:26") == 0
    assert capsys.readouterr().err == "5 parts and 1 images deleted\n"
    assert not (tmp_path / "2.png").exists()
    assert lineward(tmp_path) == 0
    assert "5 ids = 5 parts + 0 never given + 0 not accounted for" in capsys.readouterr().out


def test_prune_of_a_journal_that_is_locked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path, "press-3").close()
    monkeypatch.setattr(journal_module, "_BUSY", 0.1)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalError, match="cannot be pruned"):
            lineward(tmp_path, "prune", "--before", "2026-09-21")


@pytest.mark.parametrize(
    ("argv", "kind", "complaint"),
    [
        (["{empty}"], JournalError, "no journal there"),
        (["{empty}/nowhere"], JournalError, "no journal there"),
        (["{empty}/station.toml"], StationError, "cannot be read"),
        (["{empty}", "prune", "--before", "2026-01-01"], JournalError, "no journal there"),
        (["{folder}", "export", "parts.xlsx"], DataError, "neither .csv nor .parquet"),
        (["{folder}", "export", "{empty}/nowhere/parts.csv"], DataError, "cannot be written"),
        (["{folder}", "export", "{empty}/nowhere/parts.parquet"], DataError, "cannot be written"),
        (["{folder}", "rescore", "{empty}/no.lineward"], LinewardError, "no.lineward"),
    ],
)
def test_errors(folder: Path, tmp_path: Path, argv: list[str], kind: type[LinewardError], complaint: str) -> None:
    if "parquet" in argv[-1]:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with pytest.raises(kind, match=complaint):
        lineward(*(argument.format(folder=folder, empty=tmp_path) for argument in argv))


@pytest.mark.parametrize(
    "argv",
    [["parts", "--since", "yesterday"], ["parts", "--last", "0"], ["parts", "--reason", "bad"], ["prune"], ["x"]],
)
def test_wrong_words_are_refused_by_the_parser(folder: Path, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        lineward(folder, *argv)
    assert ended.value.code == 2
