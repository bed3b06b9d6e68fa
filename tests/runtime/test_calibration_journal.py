from __future__ import annotations

import os
from pathlib import Path

import pytest

from lineward.runtime.calibration_journal import Change, Entry, append, file_sha256, journal_path, read_journal
from lineward.runtime.errors import CalibrationError

ENTRY = Entry("2026-01-01T00:00:00Z", Change.CALIBRATED, "aa" * 32, "", "bb" * 32, 0.25, 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part.calibration.json"


def test_entries_come_back_in_order(path: Path):
    removed = Entry("2026-01-02T00:00:00Z", Change.REMOVED, "", "aa" * 32, "", None, 0)
    append(path, ENTRY)
    append(path, removed)
    assert read_journal(path) == [ENTRY, removed]
    assert file_sha256(path) == ""


def test_a_full_disk_is_told_and_leaves_what_was(path: Path, monkeypatch: pytest.MonkeyPatch):
    append(path, ENTRY)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CalibrationError, match="No space left"):
        append(path, ENTRY)
    assert read_journal(path) == [ENTRY]


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b'{"time": "now"}'])
def test_what_is_no_journal_is_refused(path: Path, data: bytes):
    journal_path(path).write_bytes(data)
    with pytest.raises(CalibrationError, match="not the journal of a calibration"):
        read_journal(path)


def test_none_is_an_error(path: Path):
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_journal(path)
