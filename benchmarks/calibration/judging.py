"""Good parts, banks learned from some of them, and the scores of all others: each part is scored once a bank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.material import Images, Setting, load_material
from benchmarks.accuracy.measure import anomaly_maps
from lineward.export.bank import build_bank
from lineward.export.bank.farthest_point import greatest_similarity
from lineward.export.datasets import open_dataset
from lineward.export.embedding import EmbeddingHead
from lineward.export.statistics import FeatureStatistics
from lineward.export.training import Progress, Recipe

Values = NDArray[np.float64]
Indices = NDArray[np.intp]


def good_parts(folder: Path, recipe: Recipe, progress: Progress) -> Images:
    """All good parts of a data set laid out as MVTec AD, those to train and those to test with, embedded once."""
    setting = Setting(recipe.backbone, recipe.size, recipe.levels, recipe.weights)
    material = load_material(open_dataset(folder), setting, progress)
    return material.train + material.test.take(np.flatnonzero(~material.test.defective).tolist())


def judge(parts: Images, learn_from: Sequence[int], score: Sequence[int], recipe: Recipe) -> Values:
    """The image scores of some parts, with all that was learned from others; as the product learns and scores.

    Returns:
        float64 [len(score)].
    """
    setting = Setting(recipe.backbone, recipe.size, recipe.levels, recipe.weights)
    head = _head(parts, learn_from, recipe, setting)
    patches = setting.side**2

    def embed(index: int) -> NDArray[np.float32]:
        with torch.inference_mode():
            embeddings: NDArray[np.float32] = head(torch.from_numpy(np.array(parts.features[index]))[None]).numpy()[0]
        return embeddings

    bank = build_bank(
        lambda: map(embed, learn_from), len(learn_from), patches, recipe.rows, recipe.bank_method, recipe.seed
    )
    scores = np.stack([1 - greatest_similarity(embed(index), bank) for index in score])
    maps = anomaly_maps(scores.reshape(-1, setting.side, setting.side), setting)
    return np.array([float(anomaly_map.max()) for anomaly_map in maps])


def _head(parts: Images, learn_from: Sequence[int], recipe: Recipe, setting: Setting) -> EmbeddingHead:
    gathered = FeatureStatistics()
    for index in learn_from:
        gathered.update(np.array(parts.features[index]))
    whitening = gathered.whitening(recipe.shrinkage, recipe.dimensions)
    return EmbeddingHead(whitening, gathered.lift(whitening, recipe.tau, recipe.position), setting.side)
