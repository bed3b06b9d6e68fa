from __future__ import annotations

import sys

import msgspec
import pytest

from lineward.runtime.bench import measure
from lineward.runtime.bench.record import TRIGGER, latencies, read_record, write_record
from lineward.runtime.cli import main
from lineward.runtime.images import read_image

PASSED, MISSED, FAILED, INTERRUPTED = 0, 1, 2, 130
FEW = ["--count", "4", "--warmup", "1"]


@pytest.fixture
def lineward(capsys):
    def run(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def record(lineward, tiny_path, tmp_path):
    path = tmp_path / "a.json"
    assert lineward("bench", tiny_path, "--count", "12", "--warmup", "0", "--json", path)[0] == PASSED
    return path


def test_table_json_and_picture(lineward, tiny, tiny_path, tmp_path):
    code, out, err = lineward(
        "bench", tiny_path, *FEW, "--rate", "1000/s", "--json", tmp_path / "a.json", "--png", tmp_path / "a.png"
    )
    assert code == PASSED
    for text in (
        "the bundle's own 2 golden images",
        "back to back, 4 triggers",
        "at 1000/s, 4 triggers",
        TRIGGER,
        "cold",
    ):
        assert text in out
    assert "back to back: 5 triggers" in err
    found = read_record(tmp_path / "a.json")
    assert found.bundle == tiny.sha256
    assert [len(run.samples) for run in found.runs] == [4, 4]
    assert found.runs[0].stages == ("decode", "preprocess", "embedding", "similarity", "map", "verdict")
    assert all(latencies(run)[TRIGGER].min() > 0 for run in found.runs)
    assert read_image(tmp_path / "a.png").ndim == 3


def test_images_of_the_user(lineward, tiny_path, tmp_path, tiny):
    (tmp_path / "part.png").write_bytes(tiny.members[tiny.manifest.golden[0].image])
    code, out, _ = lineward("bench", tiny_path, *FEW, "--images", tmp_path)
    assert (code, "1 of 1 images given" in out) == (PASSED, True)


@pytest.mark.parametrize(("deadline", "code"), [("0.001us", MISSED), ("600s", PASSED)])
def test_a_deadline_decides_the_exit_code(lineward, tiny_path, deadline, code):
    told = lineward("bench", tiny_path, *FEW, "--deadline", deadline)
    assert told[0] == code
    assert f"missed by {4 if code else 0} of 4" in told[1]


def test_an_interrupt_reports_what_there_is(lineward, tiny_path, tmp_path, monkeypatch):
    whole = measure.run_triggers

    def stopped(inspect, times, clock, count, rate):
        samples, _ = whole(inspect, times, clock, min(count, 2), rate)
        return samples, count > 2

    monkeypatch.setattr(measure, "run_triggers", stopped)
    code, out, _ = lineward("bench", tiny_path, *FEW, "--rate", "5", "--json", tmp_path / "a.json")
    assert code == INTERRUPTED
    assert "ended early, after 2 triggers" in out
    assert len(read_record(tmp_path / "a.json").runs) == 1


# Comparing


def test_a_record_compares_with_itself(lineward, record):
    code, out, _ = lineward("bench", "--compare", record, record)
    assert code == PASSED
    assert "no difference shown" in out
    assert "DIFFERENT" not in out


def test_other_machines_need_to_be_asked_for(lineward, record, tmp_path):
    other, found = tmp_path / "b.json", read_record(record)
    machine = msgspec.structs.replace(found.machine, cores=1000, power_mode="MAXN")
    write_record(other, msgspec.structs.replace(found, machine=machine))
    code, out, err = lineward("bench", "--compare", record, other)
    assert (code, out) == (FAILED, "")
    assert " and 1000\n" in err
    code, out, _ = lineward("bench", "--compare", record, other, "--different-machines")
    assert code == PASSED
    assert "DIFFERENT MACHINES: cores: " in out
    assert "DIFFERENT MACHINES: power mode: " in out


# Everything that ends with exit code 2


@pytest.mark.parametrize("words", [[], ["{bundle}", "--compare", "a", "b"]])
def test_a_bundle_or_a_comparison(lineward, tiny_path, words):
    code, _, err = lineward("bench", *(word.format(bundle=tiny_path) for word in words))
    assert code == FAILED
    assert "\n  -> lineward bench BUNDLE, or lineward bench --compare A.json B.json" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "missing.png"], "missing.png"),
        (["--json", "nowhere/a.json"], "nowhere/a.json: no such folder"),
        (["--png", "nowhere/a.png"], "nowhere/a.png: no such folder"),
        (["--engine", "tensorrt"], "TensorRT cannot be imported"),
    ],
)
def test_what_cannot_be_measured(lineward, tiny_path, words, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, out, err = lineward("bench", tiny_path, *FEW, *words)
    assert (code, out) == (FAILED, "")
    assert message in err
    assert "\n  -> " in err


def test_a_bundle_that_is_missing(lineward, tmp_path):
    code, _, err = lineward("bench", tmp_path / "b.lineward")
    assert (code, str(tmp_path / "b.lineward") in err) == (FAILED, True)


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "fast"],
        ["--rate", "0"],
        ["--deadline", "12"],
        ["--count", "0"],
        ["--warmup", "-1"],
        ["--compare", "a"],
    ],
)
def test_words_that_make_no_sense(tiny_path, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(tiny_path), *words])
    assert stop.value.code == FAILED
    assert capsys.readouterr().err.startswith("usage: lineward bench")
