from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.accuracy.material import Images, Material, Setting
from benchmarks.accuracy.systems import cutpaste
from benchmarks.accuracy.systems.cutpaste import (
    CutPaste,
    Embedder,
    Pixels,
    colour_jitter,
    cut_paste,
    cut_paste_scar,
    fine_tune,
    late_convolutions,
    mahalanobis,
    three_ways,
)
from lineward.calibration.metrics import image_auroc
from lineward.export.backbones import load_backbone
from lineward.export.datasets import Sample
from lineward.export.synthetic import render_part

PASTES = pytest.mark.parametrize("paste", [cut_paste, cut_paste_scar])
SEEDS = st.integers(0, 2**32 - 1)
SIZE = 64
QUICK = CutPaste(size=SIZE, steps=8, batch=8, rate=3e-4)

Paste = Callable[[Pixels, np.random.Generator], Pixels]


class Recorder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def step(self, name: str, total: int):
        told = self.told.setdefault(name, [])
        yield told.append
        assert told[-1] == total


def noise(side: int, seed: int = 0) -> Pixels:
    """An image of which no two pixels are likely to be the same."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def changed(paste: Paste, image: Pixels, seed: int) -> np.ndarray:
    return (paste(image, np.random.default_rng(seed)) != image).any(axis=2)


def extent(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest rectangle that holds all that is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


# ---- Pasting --------------------------------------------------------------------------------------------


@given(SEEDS)
def test_a_patch_is_a_rectangle_of_the_given_areas_and_shapes(seed: int):
    patch = changed(cut_paste, noise(256), seed)
    patch = patch[extent(patch)]
    assert patch.mean() > 0.95  # here and there a pixel is pasted on its like
    # Sides are whole pixels: each is up to half of one off.
    assert 0.0193 < patch.size / 256**2 < 0.1519
    assert min(patch.shape) / max(patch.shape) > 0.29


@given(SEEDS, st.sampled_from([256, 512, 128]))
def test_a_scar_is_small_and_scales_with_the_image(seed: int, side: int):
    scar = changed(cut_paste_scar, noise(side), seed)
    scale = side / 256
    rows, columns = (s.stop - s.start for s in extent(scar))
    # Its box is that of a rectangle of 2 to 16 by 10 to 25, turned by 45 degrees at most.
    assert rows <= (25 * 0.71 + 16 * 0.71) * scale + 2
    assert 10 * 0.70 * scale - 2 <= rows
    assert columns <= (25 * 0.71 + 16 * 0.71) * scale + 2
    assert (10 * scale - 1) * (2 * scale - 1) * 0.6 - 4 <= scar.sum() <= 25 * 16 * scale**2 * 1.1 + 4


def test_patches_and_scars_use_their_whole_ranges():
    areas = [changed(cut_paste, noise(256), seed).mean() for seed in range(300)]
    assert min(areas) < 0.03
    assert max(areas) > 0.14
    boxes = [changed(cut_paste, noise(256), seed) for seed in range(100)]
    shapes = [boxes[i][extent(boxes[i])].shape for i in range(100)]
    assert 30 < sum(height > width for height, width in shapes) < 70
    pixels = [changed(cut_paste_scar, noise(256), seed).sum() for seed in range(300)]
    assert min(pixels) < 45
    assert max(pixels) > 330


@PASTES
@given(seed=SEEDS)
def test_what_is_pasted_comes_from_the_image(paste: Paste, seed: int):
    """A paste from an image of one grey is of a grey that jitter can make of it."""
    image = np.full((256, 256, 3), 100, np.uint8)
    pasted = paste(image, np.random.default_rng(seed))
    assert pasted.dtype == np.uint8
    assert pasted.shape == image.shape
    assert pasted.min() >= 88
    assert pasted.max() <= 112
    assert not image[image != 100].size  # the image itself is left alone


@PASTES
def test_a_seed_gives_the_same_paste_and_another_seed_another(paste: Paste):
    image = noise(64)
    one, same, other = (paste(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("degrees", [-45, -20, 0, 30, 45])
@pytest.mark.parametrize(("height", "width"), [(10, 2), (25, 16), (10, 16), (1, 1)])
def test_a_turned_patch_keeps_its_pixels_and_its_area(degrees: float, height: int, width: int):
    turned, mask = cutpaste._turn(np.full((height, width, 3), 200, np.uint8), degrees)
    assert turned.shape[:2] == mask.shape
    assert (turned[mask] == 200).all()
    assert abs(int(mask.sum()) - height * width) <= 0.1 * height * width + 2


@given(SEEDS)
def test_colours_change_little_and_greys_stay_grey(seed: int):
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    jittered = colour_jitter(grey, np.random.default_rng(seed)).astype(int)
    assert (jittered.max(2) - jittered.min(2)).max() <= 1
    assert np.abs(jittered - grey).max() <= 0.1 * 255 + 0.1 * 255 / 2 + 4
    assert (np.diff(jittered[..., 0].ravel()) >= 0).all()


def test_all_four_of_brightness_contrast_saturation_and_hue_change():
    image = noise(16) // 2 + 40
    jittered = [colour_jitter(image, np.random.default_rng(seed)).astype(float) for seed in range(50)]
    brightness = np.array([j.mean() for j in jittered]) / image.mean()
    contrast = np.array([j.mean(2).std() for j in jittered]) / image.mean(2).std()
    assert 0.88 < brightness.min() < 0.95
    assert 1.05 < brightness.max() < 1.14  # saturation and hue move it, too
    assert contrast.min() < 0.9 < 1.1 < contrast.max()
    red = np.full((4, 4, 3), (200, 60, 60), np.uint8)
    turned = [colour_jitter(red, np.random.default_rng(seed)).astype(int)[0, 0] for seed in range(50)]
    assert min(g - b for _, g, b in turned) < -20  # towards magenta
    assert max(g - b for _, g, b in turned) > 20  # towards yellow
    assert all(r == max(r, g, b) for r, g, b in turned)


def test_the_three_ways_share_their_colours():
    normal, patched, scarred = three_ways(noise(256), np.random.default_rng(0))
    assert 0.01 < (patched != normal).any(2).mean() < 0.16
    assert 0 < (scarred != normal).any(2).mean() < 0.01


# ---- Learning -------------------------------------------------------------------------------------------


def parts(seeds: range) -> Pixels:
    return np.stack([render_part(seed, size=SIZE).image for seed in seeds])


def striped(images: Pixels) -> Pixels:
    """Each with a stripe of its own turned a quarter and pasted across the middle."""
    pasted = images.copy()
    pasted[:, 20:44, 28:36] = images[:, 28:36, 20:44].transpose(0, 2, 1, 3)[:, :, ::-1]
    return pasted


@pytest.fixture(scope="module")
def good() -> Pixels:
    return parts(range(40))


@pytest.fixture(scope="module")
def material(good: Pixels) -> Material:
    """Forty good parts to learn from, eight to score, and the same eight with a stripe pasted."""
    clean = parts(range(100, 108))
    return Material(
        "parts", Setting(size=SIZE), _images(good, "good"), _images(clean, "good") + _images(striped(clean), "stripe")
    )


def _images(pixels: Pixels, kind: str) -> Images:
    samples = tuple(Sample(Path(f"{kind}/{i}.png"), kind) for i in range(len(pixels)))
    return Images(samples, pixels, np.empty((len(pixels), 0, 0), np.float32))


def test_pasted_stripes_score_above_clean_parts(material: Material):
    recorder = Recorder()
    scores = QUICK(material, 0, recorder)
    assert scores.patches is None
    assert scores.images.shape == (16,)
    assert image_auroc(scores.images, material.test.defective) > 0.9
    assert recorder.told == {
        "tell pasted from normal": [*range(1, 9)],
        "embed training images": [32, 40],
        "embed test images": [16],
    }


def test_a_seed_fixes_the_scores_and_the_callers_random_state_stays(material: Material):
    brief = CutPaste(size=SIZE, steps=2, batch=2, rate=3e-4)
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    one = brief(material, 1, Recorder()).images
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
    torch.rand(7)
    np.testing.assert_array_equal(brief(material, 1, Recorder()).images, one)
    assert not np.allclose(brief(material, 2, Recorder()).images, one, rtol=1e-3)


def test_without_steps_nothing_is_learned(material: Material):
    recorder = Recorder()
    one, other = (CutPaste(size=SIZE, steps=0)(material, seed, recorder).images for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert "tell pasted from normal" not in recorder.told
    network = load_backbone().network
    with torch.inference_mode():
        x = [torch.from_numpy(i.pixels.copy()).permute(0, 3, 1, 2) / 127.5 - 1 for i in (material.train, material.test)]
        plain = [network(images)[32].mean((2, 3)).numpy() for images in x]
    np.testing.assert_allclose(one, mahalanobis(*plain), rtol=1e-3)


def test_the_pretext_is_learned_and_only_late_convolutions_move(good: Pixels):
    backbone = load_backbone()
    before = copy.deepcopy(backbone.network.state_dict())
    embedder = Embedder(backbone, SIZE)
    head = fine_tune(embedder, good, CutPaste(size=SIZE, steps=30, batch=8, rate=3e-4), 0)
    rng = np.random.default_rng(9)
    fresh = np.concatenate([three_ways(image, rng) for image in parts(range(200, 240))])
    with torch.inference_mode():
        told = head(embedder(fresh)).argmax(1).reshape(-1, 3)
    # At this size a scar is hardly a pixel wide, so only the patches are asked for.
    assert (told[:, 1] == 1).float().mean() > 0.5
    assert (told[:, [0, 2]] == 1).float().mean() < 0.2
    after = backbone.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    blocks = ["stages.5.0.layers.2", *(f"stages.5.{b}.layers.{i}" for b in (1, 2, 3) for i in range(3))]
    assert moved == {f"{block}.conv.weight" for block in blocks + [f"stages.6.0.layers.{i}" for i in range(3)]}


@pytest.mark.parametrize(
    ("strides", "late"), [((2, 1, 2, 1, 1), 2), ((1, 1), 2), ((1, 2), 0)], ids=["some", "all", "none"]
)
def test_late_convolutions_follow_the_last_strided_one(strides: tuple[int, ...], late: int):
    layers = [layer for s in strides for layer in (nn.Conv2d(3, 3, 3, s), nn.BatchNorm2d(3))]
    convolutions = layers[::2]
    assert late_convolutions(nn.Sequential(*layers)) == convolutions[len(convolutions) - late :]


def test_distances_are_those_of_the_shrunk_gaussian():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2000, 3)) * (1, 2, 5) + 4, rng.normal(size=(5, 3)) * 9
    expected = np.sqrt((((test - 4) / (1, 2, 5)) ** 2).sum(1))
    np.testing.assert_allclose(mahalanobis(train, test), expected, rtol=0.1)
    assert np.isfinite(mahalanobis(train[:2], test)).all()  # fewer images than dimensions
