from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest

from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.calibration_file import (
    FORMAT,
    Calibration,
    default_path,
    former_path,
    path_for,
    read_calibration,
    remove_calibration,
    restore_calibration,
    write_calibration,
)
from lineward.runtime.errors import CalibrationError, KeyFileError
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Bound, Threshold


@pytest.fixture
def calibration(tiny: Bundle) -> Calibration:
    return Calibration(
        format=FORMAT,
        product=tiny.manifest.product,
        bundle_version=1,
        bundle_sha256=tiny.sha256,
        created="2026-01-01T00:00:00Z",
        copies=0,
        threshold=Threshold(0.125, 0.05, "split-conformal", 40, 0, bound=Bound(0.1, 0.95), data_sha256="ab" * 32),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.calibration.json"


def test_it_is_read_as_it_was_written(tiny: Bundle, calibration: Calibration, path: Path):
    write_calibration(path, calibration)
    assert read_calibration(path, tiny) == calibration
    assert json.loads(path.read_text())["threshold"]["value"] == 0.125
    assert list(path.parent.iterdir()) == [path]


def test_the_former_one_is_kept(tiny: Bundle, calibration: Calibration, path: Path):
    other = msgspec.structs.replace(calibration, created="2026-02-02T00:00:00Z")
    write_calibration(path, calibration)
    write_calibration(path, other)
    assert read_calibration(path, tiny) == other
    assert read_calibration(former_path(path), tiny) == calibration
    assert remove_calibration(path) == former_path(path)
    assert not path.exists()
    assert read_calibration(former_path(path), tiny) == other


def test_what_is_not_there_cannot_be_removed(path: Path):
    with pytest.raises(CalibrationError, match="cannot be removed"):
        remove_calibration(path)


def test_a_full_disk_leaves_the_old_one(tiny, calibration, path: Path, monkeypatch: pytest.MonkeyPatch):
    write_calibration(path, calibration)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CalibrationError, match="No space left"):
        write_calibration(path, msgspec.structs.replace(calibration, created="2026-02-02T00:00:00Z"))
    assert read_calibration(path, tiny) == calibration


def test_another_bundle_is_refused(rebundle, calibration: Calibration, path: Path):
    write_calibration(path, calibration)
    newer = decode_bundle(rebundle(version=2), "newer")
    with pytest.raises(CalibrationError, match=rf"{path}: a calibration of tiny part, version 1 .* not of this bundle"):
        read_calibration(path, newer)
    with pytest.raises(CalibrationError, match="not of this bundle"):
        Inspector(newer, calibration=calibration)


def test_it_decides_and_the_bundle_stays_the_fallback(tiny: Bundle, calibration: Calibration, golden_frames):
    score = tiny.manifest.golden[0].image_score
    for value, verdict in ((score / 2, "reject"), (score + 0.01, "pass")):
        threshold = msgspec.structs.replace(calibration.threshold, value=value)
        inspector = Inspector(tiny, calibration=msgspec.structs.replace(calibration, threshold=threshold))
        inspection = inspector.inspect(golden_frames[0])
        assert (inspection.verdict.value, inspection.threshold) == (verdict, value)
    assert Inspector(tiny).inspect(golden_frames[0]).threshold == tiny.manifest.threshold.value


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-0.1", "2.1", "null", '"0.1"', "1e999"])
def test_a_threshold_that_is_none_is_refused(tiny: Bundle, calibration: Calibration, path: Path, number: str):
    write_calibration(path, calibration)
    path.write_text(path.read_text().replace("0.125", number))
    with pytest.raises(CalibrationError, match="not a calibration file"):
        read_calibration(path, tiny)


@pytest.mark.parametrize("field", Calibration.__struct_fields__)
def test_every_field_is_required(tiny: Bundle, calibration: Calibration, path: Path, field: str):
    document = msgspec.to_builtins(calibration)
    del document[field]
    path.write_text(json.dumps(document))
    path.chmod(0o644)
    with pytest.raises(CalibrationError):
        read_calibration(path, tiny)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 60_000, b'{"format": 1, "extra": 1}'])
def test_what_is_no_calibration_is_refused(tiny: Bundle, path: Path, data: bytes):
    path.write_bytes(data)
    path.chmod(0o644)
    with pytest.raises(CalibrationError, match="not a calibration file"):
        read_calibration(path, tiny)


def test_another_format_is_refused(tiny: Bundle, calibration: Calibration, path: Path):
    write_calibration(path, msgspec.structs.replace(calibration, format=2))
    with pytest.raises(CalibrationError, match="calibration format 2 is not known"):
        read_calibration(path, tiny)


def test_one_that_others_can_change_is_refused(tiny: Bundle, calibration: Calibration, path: Path):
    write_calibration(path, calibration)
    path.chmod(0o666)
    with pytest.raises(KeyFileError, match="others than its owner may write it"):
        read_calibration(path, tiny)


def test_a_missing_one_is_an_error(tiny: Bundle, path: Path):
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_calibration(path, tiny)


def test_it_lies_beside_the_bundle():
    assert default_path(Path("line/bottle.lineward")) == Path("line/bottle.calibration.json")


def test_its_hash_is_that_of_the_file(tiny: Bundle, calibration: Calibration, path: Path):
    write_calibration(path, calibration)
    assert read_calibration(path, tiny).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_in_a_folder_each_bundle_has_its_own(tiny: Bundle, tmp_path: Path):
    assert path_for(tmp_path, tiny.sha256) == tmp_path / f"{tiny.sha256[:16]}.calibration.json"
    assert path_for(tmp_path / "one.json", tiny.sha256) == tmp_path / "one.json"


def test_the_one_before_is_brought_back_and_back_again(tiny: Bundle, calibration: Calibration, path: Path):
    other = msgspec.structs.replace(calibration, created="2026-02-02T00:00:00Z")
    write_calibration(path, calibration)
    write_calibration(path, other)
    for expected in (calibration, other):
        assert restore_calibration(path, tiny) == read_calibration(path, tiny) == expected
    remove_calibration(path)
    assert restore_calibration(path, tiny) == read_calibration(path, tiny) == other


def test_what_is_of_another_bundle_or_not_there_is_not_brought_back(rebundle, tiny, calibration, path: Path):
    write_calibration(path, calibration)
    with pytest.raises(CalibrationError, match="there is no former calibration"):
        restore_calibration(path, tiny)
    write_calibration(path, msgspec.structs.replace(calibration, created="2026-02-02T00:00:00Z"))
    before = path.read_bytes()
    with pytest.raises(CalibrationError, match="not of this bundle"):
        restore_calibration(path, decode_bundle(rebundle(version=2), "newer"))
    assert path.read_bytes() == before
