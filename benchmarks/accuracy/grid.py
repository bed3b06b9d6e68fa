"""One choice of the recipe at a time, changed from the default: what it gives, and how flat it is around its optimum.

    python -m benchmarks.accuracy.grid DATA [--lite1 WEIGHTS] [--lite2 WEIGHTS] [--mobilenet WEIGHTS]

Runs on cached backbone features with all training images in the bank, so its figures are a little above the product's,
which holds images out for its threshold. Finished points are kept in the cache; writes grid.json and grid.md under
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import material as materials
from benchmarks.accuracy.categories import open_category
from benchmarks.accuracy.material import Images, Material, Setting, load_material
from benchmarks.accuracy.measure import Scores, anomaly_maps, measure
from benchmarks.accuracy.mobilenet import MOBILENET
from benchmarks.results_file import RESULTS, write_results
from lineward.calibration.metrics import image_auroc
from lineward.export.bank import build_bank
from lineward.export.bank.farthest_point import farthest_points, greatest_similarity
from lineward.export.bank.spherical_kmeans import two_level_kmeans
from lineward.export.datasets import Dataset
from lineward.export.embedding import EmbeddingHead
from lineward.export.statistics import FeatureStatistics
from lineward.export.training import Recipe
from lineward.runtime.cli.console import ConsoleProgress, NoProgress, print_error
from lineward.runtime.errors import DataError, LinewardError

CATEGORIES = ("screw", "transistor")
"""Nothing is to be learned from bottle: almost every choice reaches an image AUROC of 1."""
SEEDS = (0, 1)
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Point(Recipe):
    """A recipe, and two choices that the product does not offer.

    Attributes:
        upsampling: of the deeper levels, to the grid of the finest: "bilinear" or "nearest".
        centroids: share of k-means in a bank of two halves; the rest are farthest points.
    """

    upsampling: str = "bilinear"
    centroids: float = 0.5


DEFAULT = Point()


def axes(further: Mapping[str, Path]) -> dict[str, list[Point]]:
    """The choices of each axis; further backbones join by name and weights."""
    choices: dict[str, Sequence[Any]] = {
        "size": (224, 256, 288, 320, 384),
        "levels": ((8,), (16,), (8, 16), (8, 16, 32)),
        "upsampling": ("bilinear", "nearest"),
        "rows": (128, 512, 1024, 2048, 4096, 8192, 16384),
        "position": (0.0, 0.5, 1.0, 2.0),
        "tau": (0.0, 1.0, 2.0, 3.0, 5.0, 8.0),
        "shrinkage": (0.1, 0.3, 1.0, 3.0, 10.0),
        "dimensions": (64, 96, 128, None),
        "bank_method": ("two-halves", "k-means", "k-centre", "random"),
        "centroids": (0.0, 0.25, 0.5, 0.75, 1.0),
    }
    grid = {axis: [replace(DEFAULT, **{axis: value}) for value in values] for axis, values in choices.items()}
    others = [replace(DEFAULT, backbone=name, weights=weights) for name, weights in further.items()]
    return {**grid, "backbone": [DEFAULT, *others]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every point that is not kept already, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.grid", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of MVTec AD categories")
    further = {"lite1": "efficientnet_lite1", "lite2": "efficientnet_lite2", "mobilenet": MOBILENET}
    for option, name in further.items():
        parser.add_argument(f"--{option}", type=Path, metavar="WEIGHTS", help=f"weights of {name}")
    arguments = parser.parse_args(argv)
    try:
        datasets = [open_category(arguments.data / c) for c in CATEGORIES if (arguments.data / c).is_dir()]
        if not datasets:
            raise DataError(f"{arguments.data}: holds none of {', '.join(CATEGORIES)}", do="name a folder of them")
        for missing in set(CATEGORIES) - {dataset.name for dataset in datasets}:
            print(f"SKIPPED: {missing}: not under {arguments.data}")
        weights = {name: getattr(arguments, option) for option, name in further.items()}
        grid = axes({name: path for name, path in weights.items() if path})
        _write(grid, _measure_all(grid, datasets))
    except LinewardError as error:
        print_error(str(error))
        return 2
    return 0


Key = tuple[Point, str, int]


def _measure_all(grid: dict[str, list[Point]], datasets: Sequence[Dataset]) -> dict[Key, dict[str, float]]:
    points = list(dict.fromkeys(point for points in grid.values() for point in points))
    # By setting, so that features are read once.
    todo = sorted(((p, d) for p in points for d in datasets), key=lambda pair: (pair[1].name, repr(_features(pair[0]))))
    results: dict[Key, dict[str, float]] = {}
    with ConsoleProgress().step("points", len(todo)) as advance:
        loaded: tuple[Any, Material] | None = None
        for done, (point, dataset) in enumerate(todo, 1):
            kept = {seed: _kept(point, dataset, seed) for seed in SEEDS}
            if not all(path.exists() for path in kept.values()):
                wanted = (dataset.name, _features(point))
                if loaded is None or loaded[0] != wanted:
                    loaded = wanted, _material(dataset, *_features(point))
                for seed, figures in zip(SEEDS, measure_point(point, loaded[1]), strict=True):
                    kept[seed].parent.mkdir(parents=True, exist_ok=True)
                    kept[seed].write_text(json.dumps(figures))
            for seed, path in kept.items():
                results[point, dataset.name, seed] = json.loads(path.read_text())
            advance(done)
    return results


def _features(point: Point) -> tuple[Setting, str]:
    """What the features of a point depend on."""
    return Setting(point.backbone, point.size, point.levels, point.weights), point.upsampling


def _material(dataset: Dataset, setting: Setting, upsampling: str) -> Material:
    if upsampling == "bilinear":
        return load_material(dataset, setting, NoProgress())
    levels = [
        load_material(dataset, replace(setting, levels=(level,)), NoProgress()) for level in sorted(setting.levels)
    ]
    train, test = (_fuse_nearest(level) for level in zip(*((m.train, m.test) for m in levels), strict=True))
    return Material(dataset.name, setting, train, test)


def _fuse_nearest(levels: Sequence[Images]) -> Images:
    """One image set from the features of each level alone, finest first: each patch of a coarser level is repeated."""
    count, patches, _ = levels[0].features.shape
    side = math.isqrt(patches)
    fused = []
    for features in (level.features for level in levels):
        coarse = math.isqrt(features.shape[1])
        square = features.reshape(count, coarse, coarse, -1)
        fused.append(square.repeat(side // coarse, axis=1).repeat(side // coarse, axis=2).reshape(count, patches, -1))
    return replace(levels[0], features=np.concatenate(fused, axis=2))


def _kept(point: Point, dataset: Dataset, seed: int) -> Path:
    facts = repr((point, dataset.name, [str(p) for p in dataset.train], seed, torch.__version__))
    return materials.CACHE / "grid" / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.json"


def measure_point(point: Point, material: Material) -> Iterator[dict[str, float]]:
    """The figures of a point on a category, for each seed.

    Three image scores are compared: the greatest value of the smoothed map (the product's), the greatest patch score,
    and the mean of the ten greatest.
    """
    head = _head(point, material)
    train, test = (_embed(head, images.features) for images in (material.train, material.test))
    labels, side = material.test.defective, material.setting.side
    for seed in SEEDS:
        bank = _bank(train, point, seed)
        flat = np.stack([1 - greatest_similarity(image, bank) for image in test])
        patches = np.maximum(flat, 0).reshape(-1, side, side)
        images = np.array([anomaly_map.max() for anomaly_map in anomaly_maps(patches, material.setting)])
        figures = measure(Scores(images, patches), material.test.samples, material.setting)
        ordered = np.sort(flat, axis=1)
        yield {
            "image_auroc": figures.image_auroc,
            "image_auroc_greatest_patch": image_auroc(ordered[:, -1], labels),
            "image_auroc_mean_of_ten": image_auroc(ordered[:, -10:].mean(axis=1), labels),
            "pixel_auroc": figures.pixel_auroc or float("nan"),
            "aupro": figures.aupro or float("nan"),
        }


def _head(point: Point, material: Material) -> EmbeddingHead:
    gathered = FeatureStatistics()
    for image in material.train.features:
        gathered.update(np.ascontiguousarray(image))
    whitening = gathered.whitening(point.shrinkage, point.dimensions)
    return EmbeddingHead(whitening, gathered.lift(whitening, point.tau, point.position), material.setting.side)


def _bank(train: Rows, point: Point, seed: int) -> Rows:
    method = {0.0: "k-centre", 1.0: "k-means"}.get(point.centroids, point.bank_method)
    if point.centroids in (0.0, DEFAULT.centroids, 1.0):
        return build_bank(lambda: iter(train), len(train), train.shape[1], point.rows, method, seed)
    pool = train.reshape(-1, train.shape[2])
    centroids = two_level_kmeans(pool, round(point.rows * point.centroids), np.random.default_rng(seed))
    return np.concatenate([centroids, farthest_points(pool, centroids, point.rows - len(centroids))])


def _embed(head: EmbeddingHead, features: Rows) -> Rows:
    embeddings = np.empty((*features.shape[:2], head.dimensions), np.float32)
    with torch.inference_mode():
        for index, image in enumerate(features):
            embeddings[index] = head(torch.from_numpy(np.array(image))[None]).numpy()[0]
    return embeddings


def _write(grid: dict[str, list[Point]], results: dict[Key, dict[str, float]]) -> None:
    record = [
        {**_changes(point), "category": category, "seed": seed, **figures}
        for (point, category, seed), figures in results.items()
    ]
    command = "python -m benchmarks.accuracy.grid DATA [--lite1 WEIGHTS] [--lite2 WEIGHTS] [--mobilenet WEIGHTS]"
    write_results("grid", command, {"seeds": SEEDS, "points": record})
    categories = list(dict.fromkeys(category for _, category, _ in results))
    parts = ["# The grid: one choice at a time, changed from the default\n", _HEAD]
    for axis, points in grid.items():
        columns = "".join(f" {c}, image | {c}, pixel |" for c in categories)
        lines = [f"| {axis} |{columns}", "|---|" + "---|" * (2 * len(categories))]
        for point in points:
            cells = (_cell(results, point, c, name) for c in categories for name in ("image_auroc", "pixel_auroc"))
            lines.append(f"| {_named(axis, point)} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    parts.append(_image_scores(results, categories))
    (RESULTS / "grid.md").write_text("\n".join(parts))
    print("\n".join(parts))


_HEAD = f"""\
AUROC, mean over seeds {", ".join(map(str, SEEDS))}, and half the distance between them. All training images build the
bank; the product holds a tenth out for its threshold. The default's value is in bold. `grid.json` has every figure.
"""


def _changes(point: Point) -> dict[str, Any]:
    """In what a point differs from the default."""
    ours, theirs = asdict(point), asdict(DEFAULT)
    return {name: value for name, value in ours.items() if value != theirs[name] and name != "weights"}


def _named(axis: str, point: Point) -> str:
    value = getattr(point, axis)
    text = "all" if value is None else str(value)
    return f"**{text}**" if point == DEFAULT else text


def _cell(results: dict[Key, dict[str, float]], point: Point, category: str, name: str) -> str:
    values = [results[point, category, seed][name] for seed in SEEDS]
    return f"{statistics.mean(values):.4f} ± {(max(values) - min(values)) / 2:.4f}"


def _image_scores(results: dict[Key, dict[str, float]], categories: Sequence[str]) -> str:
    names = {
        "image_auroc": "greatest of the smoothed map (**the product's**)",
        "image_auroc_greatest_patch": "greatest patch score",
        "image_auroc_mean_of_ten": "mean of the ten greatest patch scores",
    }
    lines = ["| image score | " + " | ".join(categories) + " |", "|---|" + "---|" * len(categories)]
    for name, text in names.items():
        lines.append(f"| {text} | " + " | ".join(_cell(results, DEFAULT, c, name) for c in categories) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
