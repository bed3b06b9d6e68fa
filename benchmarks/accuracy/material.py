"""What every system is given: the same images, preprocessed pixels and backbone features, kept on disk between runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.mobilenet import MOBILENET, load_mobilenet
from lineward.export.backbones import DEFAULT, Backbone, load_backbone
from lineward.export.datasets import Dataset, Sample
from lineward.export.embedding import FeatureGraph
from lineward.export.training import Progress
from lineward.runtime.images import read_file, read_image
from lineward.runtime.preprocessing import Preprocessing, preprocess

CACHE = Path(os.environ.get("LINEWARD_CACHE", "build/accuracy"))
"""Where pixels and features are kept between runs; about 1.3 MB an image of 320 pixels. `make clean` removes it."""

_BATCH = 8


@dataclass(frozen=True)
class Setting:
    """What all systems of a comparison share.

    Attributes:
        backbone: see `load_backbone`; or "mobilenet_v2", which needs weights.
        size: side of the square input in pixels.
        levels: strides of the feature levels.
        weights: file of the backbone's weights; by default its published ones.
    """

    backbone: str = DEFAULT
    size: int = 320
    levels: tuple[int, ...] = (8, 16)
    weights: Path | None = None

    @property
    def side(self) -> int:
        """Patches from side to side of an image."""
        return self.size // min(self.levels)


@dataclass(frozen=True)
class Images:
    """Some images, each with its label, pixels and features.

    Attributes:
        samples: file and label of each.
        pixels: as the runtime preprocesses them, uint8 [N, size, size, 3].
        features: fused features of the backbone, before any whitening or normalising, float32 [N, side * side, C].
    """

    samples: tuple[Sample, ...]
    pixels: NDArray[np.uint8]
    features: NDArray[np.float32]

    @property
    def paths(self) -> list[Path]:
        """Their files."""
        return [sample.path for sample in self.samples]

    @property
    def defective(self) -> NDArray[np.bool_]:
        """Their labels, bool [N]."""
        return np.array([sample.defective for sample in self.samples])

    def take(self, chosen: Sequence[int]) -> Images:
        """Only the chosen ones, in the order given."""
        index = np.asarray(chosen, dtype=np.intp)
        return Images(tuple(self.samples[i] for i in index), self.pixels[index], self.features[index])

    def __add__(self, other: Images) -> Images:
        return Images(
            self.samples + other.samples,
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.features, other.features]),
        )


@dataclass(frozen=True)
class Material:
    """A category, ready for any system.

    Attributes:
        name: of the category.
        setting: what all systems share.
        train: images to learn from, taken to be good.
        test: labelled images to score.
    """

    name: str
    setting: Setting
    train: Images
    test: Images

    def slip_in(self, share: float, seed: int) -> Material:
        """Slip defective test images into the training set, and score the others.

        Args:
            share: of the enlarged training set that is defective. Half of the defective test images may be slipped in.
            seed: chooses them; a smaller share slips in some of a larger one's. Whatever the share, the same half of
                the defective images is left to be scored, so that results of all shares can be compared.
        """
        defective = np.random.default_rng(seed).permutation(np.flatnonzero(self.test.defective))
        may_slip, scored = defective[: len(defective) // 2], defective[len(defective) // 2 :]
        count = min(len(may_slip), round(share / (1 - share) * len(self.train.samples)))
        test = np.sort(np.concatenate([scored, np.flatnonzero(~self.test.defective)]))
        train = self.train if count == 0 else self.train + self.test.take(may_slip[:count].tolist())
        return replace(self, train=train, test=self.test.take(test.tolist()))


def load_material(dataset: Dataset, setting: Setting, progress: Progress) -> Material:
    """Preprocess and embed a category, or take both from the cache.

    Raises:
        ImageError: an image cannot be read.
        TrainingError: the setting makes no sense.
    """
    if setting.backbone == MOBILENET and setting.weights:
        backbone = load_mobilenet(setting.weights)
    else:
        backbone = load_backbone(setting.backbone, setting.weights)
    train = tuple(Sample(path, "good") for path in dataset.train)
    return Material(
        dataset.name,
        setting,
        _load(train, backbone, setting, f"{dataset.name}: train", progress),
        _load(dataset.test, backbone, setting, f"{dataset.name}: test", progress),
    )


def _load(samples: tuple[Sample, ...], backbone: Backbone, setting: Setting, name: str, progress: Progress) -> Images:
    spec = Preprocessing(width=setting.size, height=setting.size)
    key = [backbone.name, backbone.weights_sha256, str(setting.levels), str(spec), torch.__version__]
    key += [hashlib.sha256(read_file(sample.path)).hexdigest() for sample in samples]
    folder = CACHE / hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _embed(samples, FeatureGraph(backbone, setting.levels, "bilinear"), spec, folder, name, progress)
        (folder / "complete").touch()
    return Images(samples, np.load(folder / "pixels.npy", "r"), np.load(folder / "features.npy", "r"))


def _embed(
    samples: Sequence[Sample], graph: FeatureGraph, spec: Preprocessing, folder: Path, name: str, progress: Progress
) -> None:
    pixels = _create(folder / "pixels.npy", np.uint8, (len(samples), spec.height, spec.width, 3))
    features: NDArray[Any] | None = None
    with progress.step(name, len(samples)) as advance, torch.inference_mode():
        for start in range(0, len(samples), _BATCH):
            batch = np.stack([preprocess(read_image(s.path), spec) for s in samples[start : start + _BATCH]])
            fused = graph(torch.from_numpy(batch)).numpy()
            if features is None:
                features = _create(folder / "features.npy", np.float32, (len(samples), *fused.shape[1:]))
            pixels[start : start + len(batch)] = batch
            features[start : start + len(batch)] = fused
            advance(start + len(batch))


def _create(path: Path, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, "w+", dtype, shape)
