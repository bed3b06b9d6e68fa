"""EfficientNet-Lite 0 to 2 as a small torch module, up to stride 32.

Architecture: Tan and Le, "EfficientNet", ICML 2019, table 1, in the Lite form (ReLU6, no squeeze-and-excitation, stem
and head not scaled). Parameters are declared in the order of the published PyTorch weights, and loaded in that order.
The weights were converted from TensorFlow: batch normalisation has eps 1e-3, and strided convolutions pad as
TensorFlow's SAME does, which for an even input is one column less before than after.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_BN_EPS = 1e-3


@dataclass(frozen=True)
class Stage:
    """A stage of inverted residual blocks, as in table 1 of the paper."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


_STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
WIDTH_AND_DEPTH = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
"""The scaling factors of each variant."""


class EfficientNetLite(nn.Module):
    """The backbone: gives the last feature map at each stride from 4 to 32.

    Args:
        name: a key of `WIDTH_AND_DEPTH`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        width, depth = WIDTH_AND_DEPTH[name]
        self.stem = _Conv(3, 32, 3, 2)
        self.stages = nn.ModuleList()
        channels = 32
        for index, stage in enumerate(_STAGES):
            # Lite scales neither the first nor the last stage in depth.
            repeats = stage.repeats if index in (0, len(_STAGES) - 1) else math.ceil(stage.repeats * depth)
            out = _round_channels(stage.channels * width)
            blocks = []
            for repeat in range(repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(_InvertedResidual(channels, out, stage.kernel, stride, stage.expansion))
                channels = out
            self.stages.append(nn.Sequential(*blocks))
        self.head = _Conv(channels, 1280, 1, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Feature maps by stride: float32 [N, C, H / stride, W / stride], of images in [-1, 1]."""
        stride, levels = 2, {}
        features = self.stem(images)
        for stage, spec in zip(self.stages, _STAGES, strict=True):
            stride *= spec.stride
            features = stage(features)
            levels[stride] = features
        return levels

    def classify(self, images: Tensor) -> Tensor:
        """ImageNet logits [N, 1000]: shows that the weights are the right ones, in the right places."""
        features = self.head(self.forward(images)[32])
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits

    def load_published(self, weights: dict[str, Tensor]) -> None:
        """Load published weights: the same tensors under other names, in definition order but for safetensors files.

        Raises:
            ValueError: the number of tensors or a shape differs.
        """
        with contextlib.suppress(ValueError, IndexError):  # another converter's names: the order they come in counts
            weights = {name: weights[name] for name in sorted(weights, key=_published_order)}
        own = self.state_dict()
        if [tuple(t.shape) for t in own.values()] != [tuple(t.shape) for t in weights.values()]:
            raise ValueError(f"{len(weights)} tensors that do not match the {len(own)} of this backbone")
        self.load_state_dict(dict(zip(own, weights.values(), strict=True)))


_OUTER = ("_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1", "_fc")
_INNER = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
_FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _published_order(name: str) -> tuple[int, int, int, int]:
    """Where a published tensor, such as "_blocks.3._bn1.bias", stands in definition order."""
    outer, *block, field = name.split(".")
    number, layer = (int(block[0]), _INNER.index(block[1])) if block else (0, 0)
    return _OUTER.index(outer), number, layer, _FIELDS.index(field)


class _SameConvolution(torch.autograd.Function):
    """A strided convolution with TensorFlow's SAME padding, which torch cannot say in one operator but ONNX can."""

    @staticmethod
    def forward(_context: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        before, after = _same_padding(weight.shape[2])
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=2, groups=groups)

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, groups: int) -> Any:
        kernel = weight.type().sizes()[2]
        before, after = _same_padding(kernel)
        return graph.op(
            "Conv",
            x,
            weight,
            kernel_shape_i=[kernel, kernel],
            strides_i=[2, 2],
            pads_i=[before, before, after, after],
            group_i=groups,
        )


def _same_padding(kernel: int) -> tuple[int, int]:
    """Columns before and after an even input, at stride 2."""
    before = (kernel - 2) // 2
    return before, kernel - 2 - before


class _Conv(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, act: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=_BN_EPS)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        strided = self.conv.stride[0] == 2
        x = _SameConvolution.apply(x, self.conv.weight, self.conv.groups) if strided else self.conv(x)  # type: ignore[no-untyped-call]
        x = self.norm(x)
        return torch.clamp(x, 0.0, 6.0) if self.act else x


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        layers = [_Conv(inputs, hidden, 1, 1)] if expansion > 1 else []
        layers.append(_Conv(hidden, hidden, kernel, stride, groups=hidden))
        layers.append(_Conv(hidden, outputs, 1, 1, act=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _round_channels(channels: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
