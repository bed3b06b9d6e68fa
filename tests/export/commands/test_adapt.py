from __future__ import annotations

from pathlib import Path

import pytest

from lineward.export.synthetic import render_part
from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.images import write_png


@pytest.fixture
def bundle(tmp_path: Path, trained_bytes: bytes) -> Path:
    (tmp_path / "parts.lineward").write_bytes(trained_bytes)
    return tmp_path / "parts.lineward"


@pytest.fixture
def shade(tmp_path: Path) -> Path:
    folder = tmp_path / "shade"
    folder.mkdir()
    for seed in range(500, 518):
        write_png(folder / f"{seed}.png", (render_part(seed, size=128).image * 0.8).astype("uint8"))
    return folder


def test_the_next_version_is_written_and_the_difference_shown(bundle: Path, shade: Path, capsys):
    before = bundle.read_bytes()
    assert main(["adapt", str(bundle), str(shade)]) == PASSED
    told = capsys.readouterr().out
    after = bundle.with_name("parts-v2.lineward")
    was, now = read_bundle(bundle).manifest, read_bundle(after).manifest
    assert bundle.read_bytes() == before
    assert (was.version, now.version) == (1, 2)
    for words in (f"{was.threshold.value:.4f}", f"{now.threshold.value:.4f}", f"{now.rows} (+{now.rows - was.rows})"):
        assert words in told
    for words in ("golden/defect.png", "new images, rejected", f"wrote {after}, unsigned"):
        assert words in told
    assert main(["info", str(after)]) == PASSED
    assert "images, " in capsys.readouterr().out
    assert main(["verify", str(after)]) == PASSED


def test_nothing_is_overwritten(bundle: Path, shade: Path, capsys):
    assert main(["adapt", str(bundle), str(shade), "-o", str(bundle)]) == FAILED
    assert "is there already" in capsys.readouterr().err
