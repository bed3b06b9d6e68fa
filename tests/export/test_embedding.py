from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lineward.export.backbones import Backbone
from lineward.export.embedding import EmbeddingGraph, EmbeddingHead, FeatureGraph
from lineward.export.onnx_graphs import export_embedding
from lineward.export.statistics import FeatureStatistics, Lift, Whitening
from lineward.export.synthetic import render_part
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.errors import TrainingError
from lineward.runtime.manifest import Grid, Split

Images = NDArray[np.uint8]
CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}


@dataclass(frozen=True)
class Fitted:
    """An embedding graph and what it was made of."""

    graph: EmbeddingGraph
    features: FeatureGraph
    whitening: Whitening
    lift: Lift
    size: int

    def embed(self, images: Images) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.graph(torch.from_numpy(images)).numpy()

    def whitened(self, images: Images) -> NDArray[np.float64]:
        """y before the lift, in float64 and without the graph's own arithmetic."""
        with torch.inference_mode():
            fused = self.features(torch.from_numpy(images)).numpy().astype(np.float64)
        return (fused - self.whitening.mean) @ self.whitening.matrix.astype(np.float64)

    def session(self) -> EmbeddingSession:
        return EmbeddingSession(export_embedding(self.graph, self.size), self.graph.grid)


def parts(size: int, count: int = 3, first: int = 100) -> Images:
    return np.stack([render_part(first + seed, size=size).image for seed in range(count)])


def noise(size: int, count: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fit(backbone: Backbone) -> Callable[..., Fitted]:
    def fitted(
        size: int = 64,
        levels: tuple[int, ...] = (8, 16),
        tau: float = 3.0,
        position: float = 0.0,
        dimensions: int | None = None,
    ) -> Fitted:
        features = FeatureGraph(backbone, levels)
        statistics = FeatureStatistics()
        with torch.inference_mode():
            for image in features(torch.from_numpy(parts(size, 6, first=0))).numpy():
                statistics.update(image)
        whitening = statistics.whitening(1.0, dimensions)
        lift = statistics.lift(whitening, tau, position)
        head = EmbeddingHead(whitening, lift, size // min(levels))
        return Fitted(EmbeddingGraph(features, head).eval(), features, whitening, lift, size)

    return fitted


@pytest.mark.parametrize(
    ("size", "levels", "dimensions", "position"),
    [
        (64, (8, 16), None, 0.0),
        (96, (8, 16), None, 0.5),
        (128, (8, 16), 64, 2.0),
        (64, (16,), None, 0.5),
        (64, (4, 8, 16), None, 0.5),
        (96, (32, 8), 10, 0.0),
    ],
)
def test_torch_and_onnxruntime_agree(fit, size: int, levels: tuple[int, ...], dimensions: int | None, position: float):
    fitted = fit(size, levels, position=position, dimensions=dimensions)
    session = fitted.session()
    side, channels = size // min(levels), sum(CHANNELS[level] for level in levels)
    for images in (parts(size), noise(size), np.zeros((1, size, size, 3), np.uint8)):
        given = session.embed(images)
        assert given.shape == (len(images), side * side, (dimensions or channels) + (3 if position else 1))
        np.testing.assert_allclose(given, fitted.embed(images), rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(given, axis=2), 1, atol=1e-5)


def test_a_batch_is_what_its_images_are_one_by_one(fit):
    session = fit(96).session()
    images = np.concatenate([parts(96, 4), noise(96, 1)])
    alone = np.concatenate([session.embed(image[np.newaxis]) for image in images])
    np.testing.assert_allclose(session.embed(images), alone, rtol=0, atol=1e-6)


def test_without_lift_it_is_the_cosine_of_whitened_features(fit):
    fitted = fit(tau=0.0)
    images = np.concatenate([parts(64), noise(64)])
    embeddings, whitened = fitted.embed(images), fitted.whitened(images)
    assert not embeddings[:, :, -1].any()
    expected = whitened / np.linalg.norm(whitened, axis=2, keepdims=True)
    np.testing.assert_allclose(embeddings[:, :, :-1], expected, atol=1e-5)


@pytest.mark.parametrize("tau", [0.5, 3.0])
def test_the_lift_is_one_more_coordinate_before_normalising(fit, tau: float):
    fitted = fit(tau=tau)
    images = parts(64)
    whitened = fitted.whitened(images)
    lifted = np.pad(whitened, ((0, 0), (0, 0), (0, 1)), constant_values=fitted.lift.constant)
    expected = lifted / np.linalg.norm(lifted, axis=2, keepdims=True)
    np.testing.assert_allclose(fitted.embed(images), expected, atol=1e-5)


def test_the_place_of_a_patch_is_two_coordinates_before_the_others_from_its_column_and_row(fit):
    fitted = fit(position=0.5)
    images = parts(64)
    whitened = fitted.whitened(images)
    places = np.array([[column * 2 - 7, row * 2 - 7] for row in range(8) for column in range(8)]) / 8
    before = np.broadcast_to(fitted.lift.position * places, (3, 64, 2))
    lifted = np.concatenate([before, whitened, np.full((3, 64, 1), fitted.lift.constant)], axis=2)
    expected = lifted / np.linalg.norm(lifted, axis=2, keepdims=True)
    np.testing.assert_allclose(fitted.embed(images), expected, atol=1e-5)


def agreement_with_euclid(fitted: Fitted) -> float:
    """Share of clearly different pairs of distances that the embedding orders as Euclid does."""
    images = parts(64)
    pick = np.random.default_rng(0).integers(0, 3 * 64, (2, 2, 4000))
    whitened = fitted.whitened(images).reshape(3 * 64, -1)
    embeddings = fitted.embed(images).reshape(3 * 64, -1).astype(np.float64)
    euclid, lifted = (np.linalg.norm(rows[pick[0]] - rows[pick[1]], axis=2) for rows in (whitened, embeddings))
    clear = np.abs(euclid[0] - euclid[1]) > 0.05 * np.maximum(euclid[0], euclid[1])
    assert clear.sum() > 1000
    return float(np.mean((euclid[0] < euclid[1])[clear] == (lifted[0] < lifted[1])[clear]))


def test_a_great_lift_orders_pairs_as_euclidean_distance_does(fit):
    assert agreement_with_euclid(fit(tau=30.0)) == 1
    assert agreement_with_euclid(fit(tau=0.0)) < 0.95


class _Levels(nn.Module):
    """Gives feature maps that are set from outside, whatever the images; remembers what it was given."""

    def __init__(self, levels: dict[int, Tensor]) -> None:
        super().__init__()
        self.levels = levels
        self.given: Tensor | None = None

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        self.given = images
        return self.levels


def fused_and_levels(upsampling: str) -> tuple[Tensor, Tensor, Tensor]:
    """Fused features [8, 8, 5] of an image, and its levels: fine [1, 2, 8, 8], coarse [1, 3, 4, 4]."""
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.randn(1, 2, 8, 8, generator=generator), torch.randn(1, 3, 4, 4, generator=generator)
    network = _Levels({8: fine, 16: coarse, 32: torch.zeros(1, 1, 2, 2)})
    graph = FeatureGraph(Backbone("stub", network, (0, 0, 0), (1, 1, 1), ""), (16, 8), upsampling)
    assert graph.channels == (2, 3)
    return graph(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).reshape(8, 8, 5), fine, coarse


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_the_finest_level_is_pooled_and_comes_first(upsampling: str):
    fused, fine, _ = fused_and_levels(upsampling)
    # A neighbourhood reaches over the border, where there is nothing but zeros.
    padded = F.pad(fine, (1, 1, 1, 1))[0]
    around = torch.stack([padded[:, 2 + y, 4 + x] for y in range(3) for x in range(3)])
    torch.testing.assert_close(fused[2, 4, :2], around.mean(0))
    torch.testing.assert_close(fused[0, 0, :2], fine[0, :, :2, :2].sum((1, 2)) / 9)


def test_coarser_levels_are_pooled_and_repeated_over_the_patches_they_cover():
    fused, _, coarse = fused_and_levels("nearest")
    pooled = F.avg_pool2d(coarse, 3, 1, 1)[0].permute(1, 2, 0)
    for row in range(8):
        for column in range(8):
            torch.testing.assert_close(fused[row, column, 2:], pooled[row // 2, column // 2], rtol=0, atol=0)


def test_for_comparisons_coarser_levels_are_brought_bilinearly_to_the_finest_grid():
    fused, _, coarse = fused_and_levels("bilinear")
    # Between pixel centres: fine row 3 lies a quarter before coarse row 1.25.
    pooled = F.avg_pool2d(coarse, 3, 1, 1)[0]
    rows = pooled[:, 1] * 0.75 + pooled[:, 2] * 0.25
    torch.testing.assert_close(fused[3, 3, 2:], rows[:, 1] * 0.75 + rows[:, 2] * 0.25)
    torch.testing.assert_close(fused[0, 0, 2:], pooled[:, 0, 0])


@pytest.mark.parametrize(
    ("levels", "tau", "position", "dimensions", "split"),
    [
        ((8, 16), 3.0, 0.5, None, Split(42, 2)),
        ((8, 16), 3.0, 0.0, None, Split(40, 2)),
        ((8, 16), 3.0, 0.5, 64, Split(42, 2)),
        ((32, 8), 3.0, 0.0, None, Split(40, 4)),
        ((4, 8, 16), 3.0, 0.5, None, Split(26, 2)),
        ((8, 16), 3.0, 0.5, 40, None),  # each of so few dimensions depends on the finest level
        ((8,), 3.0, 0.5, None, None),
        ((8, 16), 0.0, 0.5, None, None),  # no constant to read the factor off
    ],
)
def test_what_patches_share_is_known_and_true(
    fit, levels: tuple[int, ...], tau: float, position: float, dimensions: int | None, split: Split | None
):
    fitted = fit(64, levels, tau, position, dimensions)
    side = 64 // min(levels)
    assert fitted.graph.grid == Grid(side, side, fitted.graph.head.dimensions, split)
    if split:
        embeddings = fitted.embed(np.concatenate([parts(64), noise(64)])).astype(np.float64)
        shared = (embeddings[..., split.own :] / embeddings[..., -1:]).reshape(6, side, side, -1)
        for row in range(split.block):
            for column in range(split.block):
                patch = shared[:, row :: split.block, column :: split.block]
                np.testing.assert_allclose(patch, shared[:, :: split.block, :: split.block], rtol=0, atol=2e-5)


def test_images_are_normalised_channel_by_channel():
    network = _Levels({8: torch.zeros(1, 1, 8, 8)})
    graph = FeatureGraph(Backbone("stub", network, (10, 20, 30), (2, 4, 8), ""), (8,))
    images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    images[0, 5, 7] = torch.tensor([210, 220, 230])
    graph(images)
    assert network.given.shape == (1, 3, 64, 64)
    assert network.given[0, :, 5, 7].tolist() == [100, 50, 25]
    assert network.given[0, :, 7, 5].tolist() == [-5, -5, -3.75]


def test_levels_that_the_backbone_has_not_are_refused(backbone: Backbone):
    with pytest.raises(TrainingError, match="no feature levels"):
        FeatureGraph(backbone, (8, 10))
