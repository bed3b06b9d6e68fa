"""The embedding graph: backbone, feature levels, pooling, fuse, whitening, lift, unit length; one torch module.

It takes uint8 frames as a camera delivers them, [N, H, W, 3], and gives unit patch embeddings, so that the greatest
inner product with a unit row of the bank is all that is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lineward.export.backbones import Backbone
from lineward.export.statistics import Lift, Whitening
from lineward.runtime.manifest import Grid


class FeatureGraph(nn.Module):
    """From images to fused features of patches, before whitening.

    Every level is averaged over 3x3 neighbours (Roth et al., "Towards Total Recall in Industrial Anomaly Detection",
    CVPR 2022, eq. 2), brought bilinearly to the grid of the finest one, and concatenated.

    Args:
        backbone: gives the levels.
        levels: strides to use; the finest sets the grid.
    """

    def __init__(self, backbone: Backbone, levels: Sequence[int]) -> None:
        super().__init__()
        backbone.check_levels(levels)
        self.network = backbone.network
        self.levels = tuple(sorted(levels))
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(backbone.std).view(1, 3, 1, 1))

    mean: Tensor
    scale: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Fused features, float32 [N, patches, channels], of images, uint8 [N, H, W, 3]."""
        # Cast first: TensorRT transposes no uint8.
        x = (images.float().permute(0, 3, 1, 2) - self.mean) * self.scale
        maps = self.network(x)
        finest = self.levels[0]
        fused = torch.cat([_upsample(_pool(maps[s]), s // finest) for s in self.levels], dim=1)
        return fused.flatten(2).transpose(1, 2)


class EmbeddingGraph(nn.Module):
    """From images to unit patch embeddings.

    Args:
        features: the graph up to the fused features.
        whitening: `Whitening`, folded in as one linear layer.
        lift: `Lift`, the constant appended before normalising.
    """

    def __init__(self, features: FeatureGraph, whitening: Whitening, lift: Lift) -> None:
        super().__init__()
        self.features = features
        # The lift is one more column of the whitening: no weights, and the constant as its bias.
        matrix = np.pad(whitening.matrix, ((0, 0), (0, 1)))
        bias = np.append(-whitening.mean @ whitening.matrix, np.float32(lift.constant))
        self.register_buffer("matrix", torch.from_numpy(matrix))
        self.register_buffer("bias", torch.from_numpy(bias))

    matrix: Tensor
    bias: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Unit patch embeddings, float32 [N, patches, dimensions + 1], of images, uint8 [N, H, W, 3]."""
        lifted = torch.matmul(self.features(images), self.matrix) + self.bias
        return lifted / lifted.square().sum(2, keepdim=True).sqrt()


def grid_of(size: int, levels: Sequence[int], dimensions: int) -> Grid:
    """The patches of a square image of `size` pixels."""
    patches = size // min(levels)
    return Grid(patches, patches, dimensions)


def _pool(features: Tensor) -> Tensor:
    return F.avg_pool2d(features, kernel_size=3, stride=1, padding=1)


def _upsample(features: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
