"""What a patch method misses of logical anomalies, and what the cheapest additions to it find.

    LINEWARD_DATA=<folder with mvtec_ad_384/> python -m benchmarks.accuracy.logical

A logical anomaly breaks a rule of what belongs where and how often, though its patches may all look normal (Bergmann et
al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization", IJCV 2022).
Every addition here is one more greatest inner product with a bank of unit rows: a heavier place of the patch in its
embedding, or one vector an image. Writes `benchmarks/results/logical.json`.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import material
from benchmarks.accuracy.material import Images, Material, Setting, load_material
from benchmarks.accuracy.measure import Scores, anomaly_maps, measure
from benchmarks.accuracy.tabulate import Statistic
from benchmarks.results_file import write_results
from lineward.calibration.metrics import image_auroc
from lineward.export import synthetic
from lineward.export.backbones import sha256_of
from lineward.export.bank import build_bank
from lineward.export.bank.farthest_point import greatest_similarity
from lineward.export.bank.spherical_kmeans import spherical_kmeans
from lineward.export.datasets import Dataset, open_dataset
from lineward.export.embedding import EmbeddingHead
from lineward.export.statistics import FeatureStatistics, Whitening
from lineward.export.synthetic import LOGICAL, Part, render_part, write_dataset
from lineward.export.training import Progress, Recipe
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.conformal import images_needed
from lineward.runtime.images import write_png

SETTING = Setting()
RECIPE = Recipe()
POSITIONS = (0.0, RECIPE.position, 3.0)
"""Weights of a patch's place; the others are added to the patches of the recipe's own weight."""
CLUSTERS = 48
"""Kinds of patch that are counted."""
SEEDS = (0, 1)
TRAIN, TEST_GOOD, PER_KIND = 100, 40, 20
"""Synthetic parts."""
TRANSISTOR_LOGICAL = ("misplaced",)

Rows = NDArray[np.float32]
Numbers = NDArray[np.floating]
Describe = Callable[[Rows, Rows], Rows]
"""One unit vector, float32 [d], of an image's fused features, float32 [patches, channels], and its patch embeddings."""


@dataclass(frozen=True)
class Row:
    """How well a variant did.

    Attributes:
        data: name of the data.
        seed: of its random choices.
        variant: its name.
        logical: image AUROC of all logical anomalies against the good images.
        structural: the same of structural ones.
        kinds: the same of each kind.
        pixel_auroc: of all test images but defective ones without masks; None where there are no patch scores.
        seconds: of its score path, from features to the image score, over that of the recipe's patches; the backbone,
            which all share, is in neither.
    """

    data: str
    seed: int
    variant: str
    logical: float
    structural: float
    kinds: Mapping[str, float]
    pixel_auroc: float | None
    seconds: float


def main() -> None:
    """Compare the variants on both data sets with every seed."""
    progress = ConsoleProgress()
    rows = []
    for dataset, logical in _data(progress):
        loaded = load_material(dataset, SETTING, progress)
        found = [row for seed in SEEDS for row in compare(loaded, logical, seed, progress)]
        _print(found)
        rows += found
    figures = {
        "setting": repr(SETTING),
        "recipe": repr(RECIPE),
        "summary": {
            data: _summary([row for row in rows if row.data == data]) for data in _unique(r.data for r in rows)
        },
        "runs": [asdict(row) for row in rows],
    }
    write_results("logical", "python -m benchmarks.accuracy.logical", figures)


# ---- Data ----------------------------------------------------------------------------------------------


def duplicated(seed: int, size: int) -> Part:
    """A part with one component too many of a kind and one too few of another, each where a fuse belongs.

    Of two swapped fuses the upper one alone is taken; the lower one's twin lies in its own place.
    """
    good, swapped = render_part(seed, "good", size), render_part(seed, "swapped", size)
    middle = round(float(np.flatnonzero(swapped.mask.any(1)).mean()))
    mask = swapped.mask & (np.arange(size) < middle)[:, np.newaxis]
    return Part(np.where(mask[:, :, np.newaxis], swapped.image, good.image), mask, "duplicated")


def displaced(seed: int, size: int) -> Part:
    """A good part about four times as far from its place as good ones lie, to one of four sides; without a mask."""
    shift = size // 20
    down, right = ((0, shift), (shift, 0), (0, -shift), (-shift, 0))[seed % 4]
    # The belt is mirrored into view.
    wide = np.pad(render_part(seed, "good", size).image, ((shift, shift), (shift, shift), (0, 0)), "reflect")
    image = wide[shift - down : shift - down + size, shift - right : shift - right + size]
    return Part(np.ascontiguousarray(image), np.zeros((size, size), np.bool_), "displaced")


COMPOSED: Mapping[str, Callable[[int, int], Part]] = {"duplicated": duplicated, "displaced": displaced}
"""Logical kinds beyond those of `lineward.export.synthetic`, none with a patch that good parts do not show too."""


def write_parts(progress: Progress) -> Path:
    """The folder of synthetic parts, under the cache; written unless it is there."""
    code = sha256_of(Path(synthetic.__file__)) + sha256_of(Path(__file__))
    key = hashlib.sha256(repr((TRAIN, TEST_GOOD, PER_KIND, SETTING.size, code)).encode()).hexdigest()
    root = material.CACHE / f"parts-{key[:16]}" / "synthetic parts"
    if (root / "complete").exists():
        return root
    with progress.step("render parts", TRAIN + TEST_GOOD + PER_KIND * len(synthetic.DEFECTS)) as advance:
        write_dataset(
            root,
            train=TRAIN,
            test_good=TEST_GOOD,
            per_defect=PER_KIND,
            size=SETTING.size,
            progress=lambda done, _: advance(done),
        )
    with progress.step("compose parts", PER_KIND * len(COMPOSED)) as advance:
        for done, (kind, number) in enumerate((k, n) for k in COMPOSED for n in range(PER_KIND)):
            # Data set 1 shares no part with data set 0 above.
            _write(root, f"{number:03d}", COMPOSED[kind](1 << 32 | done, SETTING.size))
            advance(done + 1)
    (root / "complete").touch()
    return root


def _write(root: Path, name: str, part: Part) -> None:
    images, masks = root / "test" / part.kind, root / "ground_truth" / part.kind
    images.mkdir(parents=True, exist_ok=True)
    write_png(images / f"{name}.png", part.image)
    if part.mask.any():
        masks.mkdir(parents=True, exist_ok=True)
        write_png(masks / f"{name}_mask.png", part.mask.astype(np.uint8) * np.uint8(255))


def _data(progress: Progress) -> Iterator[tuple[Dataset, tuple[str, ...]]]:
    """Each data set with the names of its logical kinds."""
    yield open_dataset(write_parts(progress)), (*LOGICAL, *COMPOSED)
    root = Path(os.environ.get("LINEWARD_DATA") or "../shared/data") / "mvtec_ad_384" / "transistor"
    if root.is_dir():
        yield open_dataset(root), TRANSISTOR_LOGICAL
    else:
        print(f"SKIPPED: transistor: {root} is missing (LINEWARD_DATA names the folder of mvtec_ad_384)", flush=True)


# ---- Levels --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatchLevel:
    """The product's patches: an image's score is the greatest value of its map.

    Attributes:
        head: from fused features to embeddings.
        bank: float32 [rows, dimensions].
        setting: of the features.
    """

    head: EmbeddingHead
    bank: Rows
    setting: Setting

    def embed(self, features: Rows) -> Rows:
        """Patch embeddings, float32 [patches, dimensions], of an image's fused features, float32 [patches, C]."""
        return _embed(self.head, features)

    def score(self, images: Images, progress: Progress) -> tuple[Scores, float]:
        """Scores of images, and the seconds that took."""
        side = self.setting.side
        patches = np.empty((len(images.samples), side, side), np.float32)
        start = time.perf_counter()
        with progress.step("score images", len(patches)) as advance:
            for i, features in enumerate(images.features):
                patches[i] = 1 - greatest_similarity(self.embed(features), self.bank).reshape(side, side)
                advance(i + 1)
        np.maximum(patches, 0, out=patches)  # a cosine may round above 1
        scores = np.array([anomaly_map.max() for anomaly_map in anomaly_maps(patches, self.setting)])
        return Scores(scores, patches), time.perf_counter() - start


def learn_patches(
    train: Images, setting: Setting, gathered: FeatureStatistics, position: float, seed: int, progress: Progress
) -> PatchLevel:
    """The product's head and bank, but for the weight of a patch's place."""
    whitening = gathered.whitening(RECIPE.shrinkage)
    head = EmbeddingHead(whitening, gathered.lift(whitening, RECIPE.tau, position), setting.side)
    count, patches, _ = train.features.shape
    with progress.step(f"choose the bank, position {position:g}", RECIPE.rows) as advance:
        bank = build_bank(
            lambda: (_embed(head, features) for features in train.features),
            count,
            patches,
            RECIPE.rows,
            RECIPE.bank_method,
            seed,
            advance,
        )
    return PatchLevel(head, bank, setting)


class MeanFeatures:
    """Global level: the mean of an image's whitened patches, lifted as patches are but without a place.

    Args:
        whitening: of the patches; it is linear, so the whitened mean is the mean of the whitened.
        train: good images; the lift's constant is the recipe's tau in median norms of their vectors.
    """

    def __init__(self, whitening: Whitening, train: Images) -> None:
        self._whitening = whitening
        means = np.stack([features.mean(0) for features in train.features])
        self._constant = RECIPE.tau * np.median(np.linalg.norm(whitening.apply(means), axis=1))

    def __call__(self, features: Rows, _embeddings: Rows) -> Rows:
        """See `Describe`."""
        mean = self._whitening.apply(features.mean(0, keepdims=True))[0]
        lifted = np.append(mean, self._constant)
        return np.asarray(lifted / np.linalg.norm(lifted), np.float32)


class Counts:
    """Counts level: how many of an image's patches are nearest to each of a few centroids.

    The square roots of the shares are a unit vector, and the inner product of two such is the Bhattacharyya
    coefficient of the histograms, 1 less their squared Hellinger distance.

    Args:
        centroids: unit rows, float32 [clusters, dimensions].
    """

    def __init__(self, centroids: Rows) -> None:
        self._centroids = centroids

    def __call__(self, _features: Rows, embeddings: Rows) -> Rows:
        """See `Describe`."""
        nearest = (embeddings @ self._centroids.T).argmax(1)
        counts = np.bincount(nearest, minlength=len(self._centroids))
        return np.sqrt(counts / len(embeddings)).astype(np.float32)


def leave_one_out(vectors: Rows) -> Numbers:
    """1 - greatest cosine of each unit row with the others, float [n]."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    return np.asarray(1 - similarity.max(1))


def combine(patch: Numbers, patch_good: Numbers, level: Numbers, level_good: Numbers) -> Numbers:
    """The greater of two scores, each less the mean and over the standard deviation of its level's on good images.

    Args:
        patch: image scores of the patches, float [n].
        patch_good: the same of good images held out from the bank.
        level: scores of another level, float [n].
        level_good: leave-one-out scores of the good images in that level's bank.
    """
    return np.maximum(_standardise(patch, patch_good), _standardise(level, level_good))


def _standardise(scores: Numbers, good: Numbers) -> Numbers:
    # A level that finds all good images alike says as much of any difference as float32 can.
    return np.asarray((scores - good.mean()) / max(float(good.std()), 1e-7))


def _score_level(
    describe: Describe, patches: PatchLevel, train: Images, test: Images
) -> tuple[Numbers, Numbers, float]:
    """Scores of the test images, leave-one-out scores of the training images, and the seconds that the former took."""
    bank = np.stack([describe(features, patches.embed(features)) for features in train.features])
    scores, seconds = np.empty(len(test.samples)), 0.0
    for i, mapped in enumerate(test.features):
        features = np.array(mapped)  # to read the disk is not counted
        embeddings = patches.embed(features)
        start = time.perf_counter()
        scores[i] = 1 - (bank @ describe(features, embeddings)).max()
        seconds += time.perf_counter() - start
    return scores, leave_one_out(bank), seconds


def _embed(head: EmbeddingHead, features: Rows) -> Rows:
    with torch.inference_mode():
        embeddings: Rows = head(torch.from_numpy(np.array(features)[np.newaxis]))[0].numpy()
    return embeddings


# ---- Comparison ----------------------------------------------------------------------------------------


def compare(loaded: Material, logical: Collection[str], seed: int, progress: Progress) -> list[Row]:
    """All variants on one category.

    A tenth of the training images, or as many as the recipe's false-reject rate needs, is held out from every bank, as
    in the product.

    Args:
        loaded: the category.
        logical: names of its logical kinds; all others are structural.
        seed: of what is held out, of the banks and of the clusters.
        progress: shows each step.
    """
    train, held_out = _hold_out(loaded.train, seed)
    gathered = FeatureStatistics()
    for features in train.features:
        gathered.update(features)
    levels = {p: learn_patches(train, loaded.setting, gathered, p, seed, progress) for p in POSITIONS}
    scored = {position: level.score(loaded.test, progress) for position, level in levels.items()}
    own = levels[RECIPE.position]
    base, base_seconds = scored[RECIPE.position]
    base_good = own.score(held_out, progress)[0].images
    # The bank's first half are the centroids of its k-means: the common modes.
    centroids = spherical_kmeans(own.bank[: len(own.bank) // 2], CLUSTERS, np.random.default_rng(seed))
    additions: dict[str, Describe] = {
        "global": MeanFeatures(gathered.whitening(RECIPE.shrinkage), train),
        "counts": Counts(centroids),
    }

    def row(variant: str, images: Numbers, pixel_auroc: float | None, seconds: float) -> Row:
        aurocs = _image_aurocs(images, loaded, logical)
        return Row(loaded.name, seed, variant, *aurocs, pixel_auroc, seconds / base_seconds)

    rows = [
        row(f"position {p:g}", scores.images, measure(scores, loaded.test.samples, loaded.setting).pixel_auroc, seconds)
        for p, (scores, seconds) in scored.items()
    ]
    pixel_auroc = rows[POSITIONS.index(RECIPE.position)].pixel_auroc
    for name, describe in additions.items():
        scores, good, seconds = _score_level(describe, own, train, loaded.test)
        combined = combine(base.images, base_good, scores, good)
        rows.append(row(f"{name} alone", scores, None, seconds))
        rows.append(row(f"position {RECIPE.position:g} + {name}", combined, pixel_auroc, base_seconds + seconds))
    return rows


def _hold_out(images: Images, seed: int) -> tuple[Images, Images]:
    count = len(images.samples)
    order = np.random.default_rng(seed).permutation(count)
    out = max(count // 10, images_needed(RECIPE.false_reject_rate))
    return images.take(np.sort(order[out:]).tolist()), images.take(np.sort(order[:out]).tolist())


def _image_aurocs(scores: Numbers, loaded: Material, logical: Collection[str]) -> tuple[float, float, dict[str, float]]:
    """Of logical kinds, of structural kinds, and of each kind, always against all good images."""
    kinds = np.array([sample.kind for sample in loaded.test.samples])
    defective = loaded.test.defective

    def auroc(of: Collection[str]) -> float:
        chosen = np.isin(kinds, [*of]) | ~defective
        return image_auroc(scores[chosen], defective[chosen])

    names = _unique(kinds[defective].tolist())
    structural = [name for name in names if name not in logical]
    return auroc(logical), auroc(structural), {name: auroc([name]) for name in names}


# ---- Output --------------------------------------------------------------------------------------------


def _summary(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Of each variant the mean over seeds, and the spread, of each figure; None where a variant has no such figure."""
    return {
        variant: {name: asdict(found) if found else None for name, found in _statistics(rows, variant).items()}
        for variant in _unique(row.variant for row in rows)
    }


def _statistics(rows: list[Row], variant: str) -> dict[str, Statistic | None]:
    own = [_numbers(row) for row in rows if row.variant == variant]
    return {name: _statistic([numbers[name] for numbers in own]) for name in own[0]}


def _numbers(row: Row) -> dict[str, float | None]:
    main = {"logical": row.logical, "structural": row.structural, "pixel AUROC": row.pixel_auroc}
    return {**main, **row.kinds, "relative seconds": row.seconds}


def _statistic(values: list[float | None]) -> Statistic | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return Statistic(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None)


def _print(rows: list[Row]) -> None:
    columns = [*_numbers(rows[0])]
    cells = [
        [variant, *(str(found or "–") for found in _statistics(rows, variant).values())]
        for variant in _unique(row.variant for row in rows)
    ]
    print_table(
        f"{rows[0].data}: image AUROC but where named, mean ± deviation over seeds", ["variant", *columns], cells
    )


def _unique(names: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(names)]


if __name__ == "__main__":
    main()
