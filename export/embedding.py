"""The embedding graph: backbone, feature levels, pooling, fuse, whitening, lift, unit length; one torch module.

It takes uint8 frames as a camera delivers them, [N, H, W, 3], and gives unit patch embeddings, so that the greatest
inner product with a unit row of the bank is all that is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lineward.export.backbones import Backbone
from lineward.export.statistics import Lift, Whitening


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


class EmbeddingHead(nn.Module):
    """From fused features to unit patch embeddings.

    Args:
        whitening: folded in as one linear layer.
        lift: the place of the patch and the constant, appended before normalising.
        side: patches from side to side of an image.
    """

    def __init__(self, whitening: Whitening, lift: Lift, side: int) -> None:
        super().__init__()
        # What the lift appends are more columns of the whitening: no weights, and the values as their bias.
        appended = _appended(lift, side)
        matrix = np.pad(whitening.matrix, ((0, 0), (0, appended.shape[1])))
        whitened = np.broadcast_to(-whitening.mean @ whitening.matrix, (len(appended), whitening.matrix.shape[1]))
        self.register_buffer("matrix", torch.from_numpy(matrix))
        self.register_buffer("bias", torch.from_numpy(np.concatenate([whitened, appended], axis=1)))

    matrix: Tensor
    bias: Tensor

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.matrix.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        """Unit patch embeddings, float32 [N, patches, dimensions], of fused features, float32 [N, patches, C]."""
        lifted = torch.matmul(features, self.matrix) + self.bias
        return lifted / lifted.square().sum(2, keepdim=True).sqrt()


class EmbeddingGraph(nn.Module):
    """From images to unit patch embeddings.

    Args:
        features: the graph up to the fused features.
        head: the rest.
    """

    def __init__(self, features: FeatureGraph, head: EmbeddingHead) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Unit patch embeddings, float32 [N, patches, dimensions], of images, uint8 [N, H, W, 3]."""
        embeddings: Tensor = self.head(self.features(images))
        return embeddings


def _appended(lift: Lift, side: int) -> NDArray[np.float32]:
    """What the lift appends to each patch, float32 [side * side, 1 or 3]: its column and row, unless left out; one."""
    constant = np.full((side * side, 1), lift.constant)
    if lift.position == 0:
        return constant.astype(np.float32)
    places = (np.arange(side) + 0.5) / side * 2 - 1
    columns, rows = (lift.position * axis.reshape(-1, 1) for axis in np.meshgrid(places, places))
    return np.concatenate([columns, rows, constant], axis=1).astype(np.float32)


def _pool(features: Tensor) -> Tensor:
    return F.avg_pool2d(features, kernel_size=3, stride=1, padding=1)


def _upsample(features: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
