"""Any model of timm as a backbone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from lineward.runtime.errors import TrainingError, first_line


class TimmFeatures(nn.Module):
    """A timm model that gives its feature maps by stride.

    Args:
        name: as timm knows it, such as "resnet18.a1_in1k".
        weights: a local safetensors or pth file; by default the weights of timm's hub, which need a network.

    Raises:
        TrainingError: timm has no such model, it gives no feature maps, or its weights cannot be had.
    """

    def __init__(self, name: str, weights: Path | None) -> None:
        super().__init__()
        from lineward.export.backbones import read_weights

        if not timm.is_model(name.partition(".")[0]):
            raise TrainingError(f"timm {timm.__version__} has no model {name}", do="see timm.list_models()")
        try:
            self.model = timm.create_model(name, pretrained=weights is None, features_only=True)
            if weights is not None:
                self._load(name, read_weights(weights), weights)
        except TrainingError:
            raise
        except Exception as error:  # hub, network and model errors share no base class
            raise TrainingError(
                f"timm/{name} cannot be loaded: {first_line(error)}",
                do="check the name and the network, or pass a local file with --weights",
            ) from error
        self.reductions: list[int] = self.model.feature_info.reduction()
        config = self.model.pretrained_cfg
        self.mean = _by_255(config.get("mean", (0.5, 0.5, 0.5)))
        self.std = _by_255(config.get("std", (0.5, 0.5, 0.5)))
        self.weights_sha256 = _sha256_of_state(self.model)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Feature maps by stride, of normalised images, float32 [N, 3, H, W]."""
        return dict(zip(self.reductions, self.model(images), strict=True))

    def _load(self, name: str, weights: dict[str, Tensor], path: Path) -> None:
        # A model of features alone may rename layers; the full model takes the published names and passes them on.
        full = timm.create_model(name, pretrained=False)
        try:
            full.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise TrainingError(f"{path}: not the weights of {name}: {reason}", do="pass the model's own") from error
        features = self.model.state_dict()
        renamed = {key.replace(".", "_", 1) if key.replace(".", "_", 1) in features else key: key for key in weights}
        shared = {new: weights[old] for new, old in renamed.items() if new in features}
        if len(shared) != len(features):
            missing = sorted(set(features) - set(shared))[:3]
            raise TrainingError(f"{path}: lacks {', '.join(missing)} of {name}", do="pass the model's own weights")
        self.model.load_state_dict(shared)


def _by_255(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (255.0 * v for v in values)
    return red, green, blue


def _sha256_of_state(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(torch.Tensor.numpy(tensor.contiguous()).tobytes())
    return digest.hexdigest()
