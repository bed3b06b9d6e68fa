from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lineward.export.synthetic import render_part
from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.images import read_image, write_png
from lineward.runtime.inspection import Reason
from lineward.runtime.inspector import Inspector
from lineward.runtime.station.journal import Journal
from tests.runtime.station.station_samples import part


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


def journal(folder: Path, bundle: Path, images: dict[int, Path]) -> Path:
    """A station that rejected images with a bundle, and kept them; part 99 was another bundle's."""
    made, written = read_bundle(bundle), Journal(folder, "press-3")
    for number, image in images.items():
        shutil.copy(image, folder / f"{number}.png")
        of = "ab" * 32 if number == 99 else made.sha256
        written.final(part(number, Reason.ABOVE_THRESHOLD, score=0.75, threshold=0.5, bundle=of))
        written.image(number, f"{number}.png", 1000)
    written.close()
    return folder


def test_past_verdicts_that_would_change_are_listed(bundle: Path, shade: Path, parts: Path, tmp_path: Path, capsys):
    """Parts of the new shade, once rejected, pass now that they are known to be good; a defect does not."""
    folder = tmp_path / "station"
    folder.mkdir()
    dark = dict(enumerate(sorted(shade.iterdir())[:6], 1))
    defect = next((parts / "test" / "scratch").iterdir())
    station = journal(folder, bundle, {**dark, 50: defect, 99: dark[1]})
    assert main(["adapt", str(bundle), str(shade), "--journal", str(station)]) == PASSED
    told = capsys.readouterr().out
    after = Inspector(read_bundle(bundle.with_name("parts-v2.lineward")))
    now = {number: after.inspect(read_image(path)).verdict.value for number, path in {**dark, 50: defect}.items()}
    assert "pass" in now.values()  # or this test tests nothing
    listed = {
        int(cells[0]): (cells[5], cells[8])
        for cells in ([cell.strip() for cell in line.split("\u2502")] for line in told.splitlines())
        if len(cells) == 10 and cells[0].isdigit()
    }
    assert listed == {number: ("reject", "pass") for number, verdict in now.items() if verdict == "pass"}
    assert f"past parts, 7 images: {len(listed)} verdicts would change" in told


def test_a_journal_without_images_of_the_bundle_says_so(bundle: Path, shade: Path, tmp_path: Path, capsys):
    Journal(tmp_path, "press-3").close()
    assert main(["adapt", str(bundle), str(shade), "--journal", str(tmp_path)]) == PASSED
    assert "no images of parts inspected with this bundle" in capsys.readouterr().out


def test_a_missing_journal_is_an_error_before_anything_is_done(bundle: Path, shade: Path, tmp_path: Path, capsys):
    assert main(["adapt", str(bundle), str(shade), "--journal", str(tmp_path / "none")]) == FAILED
    assert "no journal there" in capsys.readouterr().err
    assert not bundle.with_name("parts-v2.lineward").exists()
