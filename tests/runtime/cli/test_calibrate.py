from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import FAILED, PASSED, REJECTED, main
from lineward.runtime.images import write_png
from lineward.runtime.preprocessing import Frame

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lineward(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def bundle(tmp_path: Path, tiny_path: Path) -> Path:
    return Path(shutil.copy(tiny_path, tmp_path / "tiny.lineward"))


@pytest.fixture
def good(tmp_path: Path, golden_frames: list[Frame]) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(12):
        write_png(folder / f"{i:02d}.png", np.clip(golden_frames[0].astype(int) + i, 0, 255).astype(np.uint8))
    return folder


def test_calibrate_inspect_remove(lineward: Run, bundle: Path, good: Path, tmp_path: Path):
    path = tmp_path / "tiny.calibration.json"
    before = bundle.read_bytes()
    code, out, _ = lineward("calibrate", bundle, good)
    assert code == PASSED
    assert f"wrote {path}" in out
    own = json.loads(path.read_text())["threshold"]
    assert (own["false_reject_rate"], own["sample_size"]) == (0.2, 12)  # the bundle's promise
    for words in ("at most 20 % of good parts rejected", f"{own['value']:.4f}", "bundle's own", own["data_sha256"]):
        assert words in out
    assert bundle.read_bytes() == before

    code, out, err = lineward("inspect", bundle, good, "--calibration", path, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["threshold"] for row in rows} == {own["value"]}
    assert sum(row["verdict"] == "pass" for row in rows) == 11  # of 12 and the next one, at most 0.2 are above
    assert code == REJECTED
    assert f"threshold {own['value']:.4f} by {path} (the bundle's own: " in err
    assert str(path) not in lineward("inspect", bundle, good)[2]

    code, out, _ = lineward("info", bundle, "--calibration", path)
    assert code == PASSED
    assert "on this device" in out

    code, out, _ = lineward("calibrate", bundle, "--remove")
    assert code == PASSED
    assert "the bundle's own threshold applies" in out
    assert not path.exists()
    assert lineward("inspect", bundle, good, "--calibration", path)[0] == FAILED


def test_a_promise_of_its_own(lineward: Run, bundle: Path, good: Path, tmp_path: Path):
    path = tmp_path / "own.json"
    words = ("--false-reject-rate", 0.5, "--confidence", 0.9, "-o", path)
    assert lineward("calibrate", bundle, good, *words)[0] == PASSED
    own = json.loads(path.read_text())["threshold"]
    assert (own["false_reject_rate"], own["confidence"]) == (0.5, 0.9)
    _, out, _ = lineward("calibrate", bundle, good, *words)
    assert f"the former one: {path}.former" in out


def test_an_unreadable_image_is_a_rejected_part_at_this_threshold(
    lineward: Run, bundle: Path, good: Path, tmp_path: Path
):
    assert lineward("calibrate", bundle, good)[0] == PASSED
    (good / "cut.png").write_bytes(b"cut")
    path = tmp_path / "tiny.calibration.json"
    code, out, _ = lineward("inspect", bundle, good / "cut.png", "--calibration", path, "--format", "jsonl")
    assert code == FAILED
    row = json.loads(out)
    assert (row["verdict"], row["reason"]) == ("reject", "image_unreadable")
    assert (
        row["threshold"]
        == json.loads(path.read_text())["threshold"]["value"]
        != read_bundle(bundle).manifest.threshold.value
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--false-reject-rate", 0.01], "12 held-out good images cannot support a false-reject rate of 0.01"),
        (["--false-reject-rate", "nan"], "a false-reject rate of nan makes no sense"),
        (["--confidence", 1.5], "a confidence of 1.5 makes no sense"),
        (["-o", "nowhere/c.json"], "nowhere/c.json: cannot be written"),
    ],
)
def test_what_cannot_be_promised_leaves_no_file(
    lineward: Run, bundle: Path, good: Path, words: list[object], message: str
):
    code, _, err = lineward("calibrate", bundle, good, *words)
    assert code == FAILED
    assert message in err
    assert {p.name for p in bundle.parent.iterdir()} == {"tiny.lineward", "good"}


def test_no_images_and_nothing_to_remove_are_errors(lineward: Run, bundle: Path):
    assert "no images to calibrate with" in lineward("calibrate", bundle)[2]
    assert "cannot be removed" in lineward("calibrate", bundle, "--remove")[2]


def test_every_change_is_journalled_and_can_be_taken_back(lineward: Run, bundle: Path, good: Path, tmp_path: Path):
    path = tmp_path / "tiny.calibration.json"
    lineward("calibrate", bundle, good)
    first = path.read_bytes()
    lineward("calibrate", bundle, good, "--false-reject-rate", 0.5)
    second = path.read_bytes()
    code, out, _ = lineward("calibrate", bundle, "--restore")
    assert (code, path.read_bytes()) == (PASSED, first)
    assert f"restored {path}" in out
    lineward("calibrate", bundle, "--remove")
    assert lineward("calibrate", bundle, "--restore")[0] == PASSED
    assert path.read_bytes() == first

    code, out, _ = lineward("calibrate", bundle, "--journal")
    assert code == PASSED
    a, b = (hashlib.sha256(data).hexdigest()[:12] for data in (first, second))
    rows = [line.split("|" if "|" in line else "\u2502") for line in out.splitlines() if "Z" in line]
    told = [[cell.strip() for cell in row[1:4]] for row in rows]
    assert told == [
        ["calibrated", a, "-"],
        ["calibrated", b, a],
        ["restored", a, b],
        ["removed", "the bundle's own", a],
        ["restored", a, "-"],
    ]


def test_in_a_folder_it_is_named_after_the_bundle(lineward: Run, bundle: Path, good: Path, tmp_path: Path):
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / f"{read_bundle(bundle).sha256[:16]}.calibration.json"
    assert f"wrote {path}" in lineward("calibrate", bundle, good, "-o", path.parent)[1]
    assert lineward("calibrate", bundle, "-o", path.parent, "--remove")[0] == PASSED
    assert not path.exists()


def test_nothing_to_bring_back_is_an_error(lineward: Run, bundle: Path, good: Path):
    assert "there is no former calibration" in lineward("calibrate", bundle, "--restore")[2]
    lineward("calibrate", bundle, good)
    assert "there is no former calibration" in lineward("calibrate", bundle, "--restore")[2]
