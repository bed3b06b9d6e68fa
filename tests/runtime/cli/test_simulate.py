from __future__ import annotations

import pytest

pytest.importorskip("pymodbus", reason="pymodbus is not installed (lineward[station])")

from lineward.runtime.cli import FAILED, PASSED, main

STATION = """\
name = "desk"
folder = "state"
deadline = "2s"
jobs = {{ 1 = "{bundle}" }}
plc = {{ kind = "modbus-server", acknowledge_within = "5s" }}
camera = {{ kind = "genicam" }}
"""


def test_a_bundle_alone_is_enough(tiny_path, capsys):
    assert main(["simulate", str(tiny_path), "--parts", "30", "--rate", "50/s"]) == PASSED
    out = capsys.readouterr().out
    assert "the books reconcile" in out
    assert "50.0 parts/s" in out


def test_a_station_file_whose_journal_is_kept(tiny_path, tmp_path, capsys):
    file = tmp_path / "station.toml"
    file.write_text(STATION.format(bundle=tiny_path))
    keep = tmp_path / "kept"
    words = ["simulate", str(file), "--parts", "20", "--rate", "50/s", "--keep", str(keep)]
    assert main(words) == PASSED
    assert (keep / "station" / "plc.json").exists()
    assert not (tmp_path / "state").exists()  # the real station's state is let alone
    capsys.readouterr()
    assert main(["journal", str(keep / "station")]) == PASSED
    assert "20" in capsys.readouterr().out
    assert main(words) == FAILED
    assert "holds an earlier simulation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rate", "fast"], "'fast' is no rate"),
        (["--parts", "0"], "out of range"),
        (["--defects", "2"], "out of range"),
        (["--jitter", "1"], "out of range"),
    ],
)
def test_what_makes_no_sense(tiny_path, capsys, words, complaint):
    assert main(["simulate", str(tiny_path), *words]) == FAILED
    assert complaint in capsys.readouterr().err


def test_a_bundle_that_is_none(tmp_path, capsys):
    (tmp_path / "no.lineward").write_bytes(b"no")
    assert main(["simulate", str(tmp_path / "no.lineward")]) == FAILED
    assert "no.lineward" in capsys.readouterr().err
