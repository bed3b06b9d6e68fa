"""Frames cut into tiles, from training to the verdict: through every step of the workstation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lineward.export.adaptation import adapt
from lineward.export.datasets import Sample
from lineward.export.evaluation import evaluate
from lineward.export.synthetic import render_part
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.bundle import EMBEDDING, Bundle, decode_bundle, encode_bundle
from lineward.runtime.calibrating import calibrate_device
from lineward.runtime.drift import measure
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.errors import BundleError, ImageError, TrainingError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import read_image, write_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Score, Tiles
from lineward.runtime.preprocessing import Frame

RECIPE = Recipe(
    size=64, rows=128, position=0.0, false_reject_rate=0.2, threshold_method="split", tiles=(2, 3), overlap=0.25
)
HEIGHT, WIDTH = 112, 160  # what the tiles show of a frame this large is the frame itself
SIDE = 64


def tray(seed: int) -> Frame:
    """Six parts beside each other, as a camera with many pixels would see them."""
    images = [render_part(6 * seed + i, size=64).image for i in range(6)]
    rows = [np.concatenate(images[row * 3 : row * 3 + 3], axis=1) for row in range(2)]
    return np.ascontiguousarray(np.concatenate(rows)[:HEIGHT, :WIDTH])


def write(folder: Path, seeds: range) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{seed:03d}.png" for seed in seeds]
    for seed, path in zip(seeds, paths, strict=True):
        write_png(path, tray(seed))
    return paths


def spotted(frame: Frame, y: int, x: int) -> Frame:
    """A frame with a square of noise around a place."""
    planted = frame.copy()
    planted[y - 6 : y + 6, x - 6 : x + 6] = np.random.RandomState(0).randint(0, 256, (12, 12, 3))
    return planted


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(tmp_path_factory.mktemp("tiles") / "good", range(24))


@pytest.fixture(scope="module")
def bundle(good: list[Path], quiet: Progress) -> Bundle:
    return decode_bundle(train(good, "tray", recipe=RECIPE, progress=quiet), "tray.lineward")


@pytest.fixture(scope="module")
def inspector(bundle: Bundle) -> Inspector:
    return Inspector(bundle)


def test_the_manifest_tells_how_frames_are_cut(bundle: Bundle):
    manifest = bundle.manifest
    assert manifest.tiles == Tiles(rows=2, columns=3, overlap_rows=2, overlap_columns=2)
    assert (manifest.grid.rows, manifest.grid.columns) == (8, 8)
    assert (bundle.view.rows, bundle.view.columns) == (14, 20)
    assert (manifest.score.map_height, manifest.score.map_width) == (HEIGHT, WIDTH)
    assert manifest.origin.position == 0
    check_golden(bundle, Inspector(bundle))
    assert bundle.golden_scores("golden/good.safetensors").shape == (14, 20)


def test_the_bank_is_of_patches_of_all_tiles(bundle: Bundle, good: list[Path]):
    session = EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid)
    rows, nearest = bundle.bank[64:], []
    for tile in range(6):
        patches = session.embed(np.stack([bundle.view.pixels(read_image(path))[tile] for path in good]))
        nearest.append((rows @ patches.reshape(-1, patches.shape[2]).T).max(axis=1) > 1 - 1e-5)
    assert np.any(nearest, axis=0).all()
    assert np.any(nearest, axis=1).all()


def test_good_frames_pass_and_spots_are_found_where_they_are(inspector: Inspector):
    frames = [tray(seed) for seed in range(40, 52)]
    assert sum(inspector.inspect(frame).verdict is Verdict.PASS for frame in frames) >= 8
    places = [(20, 20), (56, 80), (90, 140), (50, 56), (30, 104), (100, 60)]
    for frame, (y, x) in zip(frames, places, strict=False):
        inspection = inspector.inspect(spotted(frame, y, x))
        assert inspection.verdict is Verdict.REJECT
        peak = np.unravel_index(inspection.anomaly_map.argmax(), inspection.anomaly_map.shape)
        assert np.abs(np.subtract(peak, (y, x))).max() <= 12


@pytest.mark.parametrize(("y", "x"), [(56, 56), (56, 104), (56, 80), (40, 56), (72, 104)])
def test_a_spot_across_a_border_is_weaker_than_in_the_middle_of_an_input_but_not_lost(y: int, x: int, bundle: Bundle):
    """Tiles meet at row 56 and at columns 56 and 104; the same pixels are cut out with the spot in the middle."""
    members = {name: data for name, data in bundle.members.items() if not name.startswith("golden/")}
    alone = msgspec.structs.replace(bundle.manifest, tiles=None, score=Score(SIDE, SIDE, 1.0), golden=())
    tiled, single = Inspector(bundle), Inspector(decode_bundle(encode_bundle(alone, members), "one input"))
    peaks = []
    for frame in (spotted(tray(seed), y, x) for seed in range(60, 68)):
        cut = frame[y - SIDE // 2 : y + SIDE // 2, x - SIDE // 2 : x + SIDE // 2]
        across, middle = tiled.inspect(frame).anomaly_map, single.inspect(cut).anomaly_map
        assert across is not None
        assert middle is not None
        peaks.append((across[y - 8 : y + 8, x - 8 : x + 8].max(), middle[24:40, 24:40].max()))
    seen, expected = np.mean(peaks, axis=0)
    assert 0.5 * expected < seen < 1.2 * expected


def test_calibrating_evaluating_and_adapting_go_by_it(tmp_path: Path, bundle: Bundle, quiet: Progress):
    others = write(tmp_path / "others", range(80, 100))
    assert calibrate_device(Inspector(bundle), others, 0.2).threshold.value > 0
    assert evaluate(Inspector(bundle), [Sample(path, "good") for path in others]).confusion.true_pass > 10
    adapted = adapt(bundle, others, progress=quiet)
    assert adapted.bundle.manifest.tiles == bundle.manifest.tiles
    check_golden(adapted.bundle, Inspector(adapted.bundle))
    judged = [Inspector(adapted.bundle).inspect(read_image(path)).score for path, _ in adapted.plan.held_out]
    assert adapted.own.value == pytest.approx(sorted(judged)[-1], abs=1e-5)


def test_drift_is_measured_on_what_is_seen(bundle: Bundle, inspector: Inspector, good: list[Path]):
    seen = [measure(inspector.inspect(read_image(path))) for path in good]
    expected = sorted(m.look.sharpness for m in seen if m is not None)
    assert bundle.manifest.drift is not None
    assert bundle.manifest.drift.sharpness == pytest.approx(expected, rel=1e-5)


def test_with_a_region_only_tiles_with_a_part_in_it_are_seen(good: list[Path], quiet: Progress):
    corner = replace(RECIPE, region="0,0 0.3,0 0.3,0.4 0,0.4", rows=64)
    bundle = decode_bundle(train(good, "tray", recipe=corner, progress=quiet), "corner.lineward")
    inspector, frame = Inspector(bundle), tray(50)
    assert len(bundle.view.pixels(frame)) == 1
    check_golden(bundle, inspector)
    usual = inspector.inspect(frame)
    assert usual.score > 0
    assert inspector.inspect(spotted(frame, 20, 20)).verdict is Verdict.REJECT
    assert inspector.inspect(spotted(frame, 80, 100)).score == usual.score


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"position": 1.0}, "position 0"),
        ({"tiles": (1, 1)}, "1x1 tiles"),
        ({"tiles": (0, 3)}, "0x3 tiles"),
        ({"tiles": (33, 1)}, "33x1 tiles"),
        ({"overlap": 0.6}, "overlap of 0.6"),
        ({"overlap": -0.1}, "overlap of -0.1"),
        ({"overlap": float("nan")}, "overlap of nan"),
        ({"tiles": (32, 32), "size": 1024}, "patches a side"),
    ],
)
def test_tiles_that_make_no_sense(choices, message, good: list[Path], quiet: Progress):
    with pytest.raises(TrainingError, match=message):
        train(good, "tray", recipe=replace(RECIPE, **choices), progress=quiet)


def test_frames_too_small_to_be_cut(tmp_path: Path, quiet: Progress):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        write_png(path, np.random.RandomState(i).randint(0, 256, (12, 40, 3)).astype(np.uint8))
    with pytest.raises(ImageError, match="40x12 pixels is too small to be cut into tiles"):
        train(paths, "tray", recipe=replace(RECIPE, rows=16), progress=quiet)


def test_a_runtime_refuses_what_it_cannot_have_written(bundle: Bundle):
    for tiles in (Tiles(2, 3, 5, 2), Tiles(32, 32, 0, 0)):
        grid = msgspec.structs.replace(bundle.manifest.grid, rows=8 if tiles.rows == 2 else 128)
        changed = msgspec.structs.replace(bundle.manifest, tiles=tiles, grid=grid)
        with pytest.raises(BundleError, match="tiles"):
            decode_bundle(encode_bundle(changed, bundle.members), "b")
