"""Any model of timm as backbone, with random weights: no test needs a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lineward.export.backbones import load_backbone
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.errors import TrainingError
from lineward.runtime.golden import check_golden
from lineward.runtime.inspector import Inspector

timm = pytest.importorskip("timm", reason="timm is not installed: `make test-timm` runs these tests where it is")

MODELS = {
    "resnet18": {2: 64, 4: 64, 8: 128, 16: 256, 32: 512},
    "tf_efficientnet_lite0": {2: 16, 4: 24, 8: 40, 16: 112, 32: 320},
}


def saved(model: torch.nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def full(name: str) -> torch.nn.Module:
    """The whole model, head and all, with random weights."""
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights_give_the_features_of_the_whole_model(tmp_path: Path, name: str, full, suffix: str):
    backbone = load_backbone(f"timm/{name}", saved(full, tmp_path / f"weights{suffix}"))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        levels = backbone.network(images)
        last = full.forward_intermediates(images, intermediates_only=True)[-1]
    assert {stride: level.shape[1] for stride, level in levels.items()} == MODELS[name]
    assert all(level.shape[2:] == (64 // stride, 64 // stride) for stride, level in levels.items())
    torch.testing.assert_close(levels[32], last)


def test_the_model_s_own_normalisation_is_used_in_pixels(tmp_path: Path, name: str, full):
    backbone = load_backbone(f"timm/{name}", saved(full, tmp_path / "weights.pth"))
    assert backbone.mean == pytest.approx([255 * value for value in full.pretrained_cfg["mean"]])
    assert backbone.std == pytest.approx([255 * value for value in full.pretrained_cfg["std"]])


def test_the_hash_is_of_the_weights(tmp_path: Path, name: str, full):
    pth, safetensors = (saved(full, tmp_path / f"weights{suffix}") for suffix in (".pth", ".safetensors"))
    one, same = (load_backbone(f"timm/{name}", path).weights_sha256 for path in (pth, safetensors))
    with torch.no_grad():
        next(full.parameters()).add_(1)
    other = load_backbone(f"timm/{name}", saved(full, tmp_path / "changed.pth")).weights_sha256
    assert one == same != other


@pytest.mark.parametrize("unknown", ["no_such_model", "", "resnet18000.a1_in1k"])
def test_an_unknown_model_is_named(unknown: str):
    with pytest.raises(TrainingError, match="has no model"):
        load_backbone(f"timm/{unknown}")


def test_weights_of_another_model_are_refused(tmp_path: Path, full, name: str):
    path = saved(full, tmp_path / "weights.pth")
    other = next(model for model in MODELS if model != name)
    with pytest.raises(TrainingError, match=r"weights\.pth: not the weights of"):
        load_backbone(f"timm/{other}", path)


def test_a_model_trains_a_sound_bundle(tmp_path: Path, name: str, full, good_images: Sequence[Path], quiet: Progress):
    weights = saved(full, tmp_path / "weights.pth")
    recipe = Recipe(backbone=f"timm/{name}", weights=weights, size=64, rows=64, false_reject_rate=0.3)
    bundle = decode_bundle(train(good_images, "part", recipe=recipe, progress=quiet), "the bundle")
    assert bundle.manifest.origin.backbone == f"timm/{name}"
    check_golden(bundle, Inspector(bundle))


def test_a_level_that_the_model_has_not_lists_those_it_has(
    tmp_path: Path, name: str, full, good_images, quiet: Progress
):
    recipe = Recipe(backbone=f"timm/{name}", weights=saved(full, tmp_path / "w.pth"), size=64, false_reject_rate=0.3)
    with pytest.raises(TrainingError, match="no feature levels") as caught:
        train(good_images, "part", recipe=replace(recipe, levels=(64,)), progress=quiet)
    assert "[2, 4, 8, 16, 32]" in caught.value.do
