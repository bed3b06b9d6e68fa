"""The embedding graph: backbone, feature levels, pooling, fuse, whitening, lift, unit length; one torch module.

It takes uint8 frames as a camera delivers them, [N, H, W, 3], and gives unit patch embeddings, so that the greatest
inner product with a unit row of the bank is all that is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lineward.export.backbones import Backbone
from lineward.export.statistics import Lift, Whitening
from lineward.runtime.manifest import Grid, Split


class FeatureGraph(nn.Module):
    """From images to fused features of patches, before whitening.

    Every level is averaged over 3x3 neighbours (Roth et al., "Towards Total Recall in Industrial Anomaly Detection",
    CVPR 2022, eq. 2), brought to the grid of the finest one, and concatenated, the finest first.

    Args:
        backbone: gives the levels.
        levels: strides to use; the finest sets the grid.
        upsampling: how the others are brought to it. Repeating the nearest patch lets neighbours share the work of
            comparing with the bank; "bilinear" is PatchCore's, for comparisons.
    """

    def __init__(
        self, backbone: Backbone, levels: Sequence[int], upsampling: Literal["nearest", "bilinear"] = "nearest"
    ) -> None:
        super().__init__()
        self.channels = backbone.channels(levels)
        self.network = backbone.network
        self.levels = tuple(sorted(levels))
        self.upsampling = upsampling
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
        fused = torch.cat([self._upsample(_pool(maps[s]), s // finest) for s in self.levels], dim=1)
        return fused.flatten(2).transpose(1, 2)

    def _upsample(self, features: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return features
        corners = None if self.upsampling == "nearest" else False
        return F.interpolate(features, scale_factor=float(factor), mode=self.upsampling, align_corners=corners)


class EmbeddingHead(nn.Module):
    """From fused features to unit patch embeddings: the place of the patch, the whitened features, the constant.

    What patches share when coarser levels are repeated, the trailing features and the constant, comes last.

    Args:
        whitening: folded in as one linear layer.
        lift: the place of the patch and the constant, which join the whitened features before normalising.
        side: patches from side to side of an image.
    """

    def __init__(self, whitening: Whitening, lift: Lift, side: int) -> None:
        super().__init__()
        self.side, self.lift, self.places = side, lift, 2 if lift.position else 0
        # What the lift adds are more columns of the whitening: no weights, and the values as their bias.
        matrix = np.pad(whitening.matrix, ((0, 0), (self.places, 1)))
        whitened = np.tile(-whitening.mean @ whitening.matrix, (side * side, 1))
        constant = np.full((side * side, 1), lift.constant, np.float32)
        bias = np.concatenate([_places(lift, side)[:, : self.places], whitened, constant], axis=1)
        self.register_buffer("matrix", torch.from_numpy(matrix))
        self.register_buffer("bias", torch.from_numpy(bias))

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

    @property
    def grid(self) -> Grid:
        """The patches it gives of an image."""
        return Grid(self.head.side, self.head.side, self.head.dimensions, self._split())

    def _split(self) -> Split | None:
        """What the patches of a block share: the coordinates in which the finest level has no weight.

        None without coarser levels, without a constant to read the factor off, or where the whitening keeps so few
        dimensions that each depends on the finest level.
        """
        levels, finest = self.features.levels, self.features.channels[0]
        own = self.head.places + finest
        shared = self.head.matrix[:finest, own:]
        if len(levels) == 1 or self.features.upsampling != "nearest" or self.head.lift.constant == 0:
            return None
        if shared.shape[1] < 2 or shared.any():
            return None
        return Split(own, levels[1] // levels[0])


def _places(lift: Lift, side: int) -> NDArray[np.float32]:
    """The place of each patch as the lift weighs it, its column and row, float32 [side * side, 2]."""
    places = (np.arange(side) + 0.5) / side * 2 - 1
    columns, rows = (lift.position * axis.ravel() for axis in np.meshgrid(places, places))
    return np.stack([columns, rows], axis=1).astype(np.float32)


def _pool(features: Tensor) -> Tensor:
    return F.avg_pool2d(features, kernel_size=3, stride=1, padding=1)
