"""From good images to a bundle: the offline half of Lineward, step by step."""

from __future__ import annotations

import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from lineward.calibration import cross_conformal, tail
from lineward.calibration.escapes import escapes_at
from lineward.export.backbones import DEFAULT, Backbone, load_backbone
from lineward.export.bank import build_bank
from lineward.export.conversion import (
    FLOAT16,
    FLOAT32,
    GOLDEN_TOLERANCE,
    INT8,
    PRECISIONS,
    Converted,
    check_conversion,
    images_to_judge,
    judge,
    to_half,
    to_int8,
)
from lineward.export.drift_reference import drift_reference
from lineward.export.embedding import EmbeddingGraph, EmbeddingHead, FeatureGraph
from lineward.export.held_out import AUTO, Plan, Promise, plan_calibration
from lineward.export.onnx_graphs import export_embedding
from lineward.export.paged import paged
from lineward.export.quantisation import (
    COST_IMAGES,
    Calibration,
    Features,
    calibrate,
    convolutions,
    features_of,
    spread,
)
from lineward.export.region import read_region
from lineward.export.similarity_graph import similarity_graph
from lineward.export.statistics import FeatureStatistics
from lineward.runtime import conformal
from lineward.runtime.anomaly_map import image_score
from lineward.runtime.bundle import (
    BANK,
    BANK_TENSOR,
    EMBEDDING,
    GOLDEN_TENSOR,
    REGION,
    SIMILARITY,
    Bundle,
    decode_bundle,
    encode_bundle,
    encode_tensor,
)
from lineward.runtime.calibrating import OneCamera
from lineward.runtime.distinct import distinct_images, fingerprint
from lineward.runtime.drift import measure
from lineward.runtime.drift.measurements import Look, Measurement, look
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.errors import TrainingError
from lineward.runtime.images import encode_png, read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import (
    FORMAT,
    MOST_PATCHES,
    MOST_PIXELS,
    MOST_TILES,
    Conversion,
    Golden,
    Grid,
    Manifest,
    MinimumArea,
    Origin,
    Score,
    Threshold,
    Tiles,
    check_identity,
)
from lineward.runtime.preprocessing import Frame, Preprocessing
from lineward.runtime.region import Region, encode_region
from lineward.runtime.view import View

_BATCH = 8
AREA_LEVEL = 0.8
"""What a large area must be above, as a share of the threshold, if nothing else is said."""
_MOST_MAP = 2048
"""Pixels of the anomaly map's longer side, at most."""
_SMOOTHING = 4 / 256
"""Standard deviation of the map's Gaussian, in sides of the input."""


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run.

    Attributes:
        backbone: see `load_backbone`.
        weights: file of the backbone's weights; by default its published ones.
        size: side of the square input in pixels, a multiple of 32.
        levels: strides of the feature levels.
        shrinkage: of the whitening, in mean eigenvalues.
        dimensions: kept by the whitening; all by default.
        tau: the lift, in median norms.
        position: weight of a patch's place in the image, in median norms; 0 for parts that lie anywhere.
        rows: rows of the bank.
        bank_method: see `build_bank`.
        false_reject_rate: promised share of good parts rejected, at most.
        confidence: with which it is kept; None for on average over calibrations.
        threshold_method: how the threshold is found: see `held_out.METHODS`.
        precision: of the embedding graph: see `conversion.PRECISIONS`.
        max_drop: of image AUROC, that a lower precision may cost.
        seed: seed of every random choice.
        area: a second reason to reject; None: the greatest value of the map alone decides.
        region: what of the image counts, a mask image or a polygon: see `read_region`; None for all.
        tiles: rows and columns of tiles that a frame is cut into, each brought to `size`; None for the frame as one.
        overlap: of neighbouring tiles, as a share of a tile.
    """

    backbone: str = DEFAULT
    weights: Path | None = None
    size: int = 320
    levels: tuple[int, ...] = (8, 16)
    shrinkage: float = 1.0
    dimensions: int | None = None
    tau: float = 3.0
    position: float = 1.0
    rows: int = 4096
    bank_method: str = "two-halves"
    false_reject_rate: float = 0.05
    confidence: float | None = None
    threshold_method: str = AUTO
    precision: str = FLOAT32
    max_drop: float = 0.01
    seed: int = 0
    area: MinimumArea | None = None
    region: str | None = None
    tiles: tuple[int, int] | None = None
    overlap: float = 0.2

    @property
    def patches(self) -> int:
        """Patches from side to side of the input."""
        return self.size // min(self.levels)

    @property
    def cut(self) -> Tiles | None:
        """How frames are cut, to whole patches."""
        if self.tiles is None:
            return None
        overlap = round(self.overlap * self.patches)
        return Tiles(*self.tiles, overlap, overlap)

    @property
    def promise(self) -> Promise:
        """What the threshold is to keep, and how."""
        return Promise(self.false_reject_rate, self.confidence, self.threshold_method, self.seed)


class Progress(Protocol):
    """Shows how far a step of the training is."""

    def step(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a step of `total` parts; the context's value is told how many are done."""


class Advance(Protocol):
    """Told how many parts of a step are done."""

    def __call__(self, done: int, /) -> None:
        """Say that `done` parts are done."""


def train(
    images: Sequence[Path],
    product: str,
    *,
    held_out: Sequence[Path] = (),
    defects: Sequence[Path] = (),
    version: int = 1,
    recipe: Recipe = Recipe(),
    progress: Progress,
) -> bytes:
    """Learn a product from good images.

    The order, names and file formats of the images do not matter: they are taken in the order of their pixels' hashes,
    each once. The same images, recipe and package versions give the same bytes, but for the time of creation, which the
    environment variable SOURCE_DATE_EPOCH fixes.

    Args:
        images: good images.
        product: what they show.
        held_out: good images for the threshold; by default a tenth of the images, or as many as the promise needs, are
            held out from the bank, and where that would take too many, each is judged by a bank of others.
        defects: images of defective parts, for the escape rate at the threshold, on which they have no influence, and
            for the cost of a lower precision.
        version: version of the product's bundle.
        recipe: every choice.
        progress: shows each step.

    Returns:
        The bundle's bytes.

    Raises:
        CalibrationError: too few images for the promise, or their scores cannot be those of different good parts.
        DataError: the same image is given twice across the bank and the held-out ones, or the region does not fit them.
        TrainingError: the recipe makes no sense, its precision costs more than it may, or the disk for temporary files
            is full.
        ImageError: an image cannot be read, or, with a region or tiles, is of another shape or kind than the others.
    """
    _check_recipe(recipe)
    check_identity(product, version)
    plan = plan_calibration(images, held_out, recipe.promise)
    backbone = load_backbone(recipe.backbone, recipe.weights)
    backbone.channels(recipe.levels)  # refuses levels that the network has not
    _check_tiles(recipe)
    bank, apart = ([path for path, _ in chosen] for chosen in (plan.bank, plan.held_out))
    sight = _sight(recipe, bank[0])
    learned = _learn(bank, backbone, recipe, sight, progress)
    conversion = _conversion(learned, plan, defects, backbone, recipe, sight, progress)
    judged = _judge_folds(bank, plan, backbone, recipe, sight, progress)
    draft = _draft(product, version, recipe, learned, backbone, plan)
    bundle = decode_bundle(encode_bundle(draft, learned.members), "the new bundle")
    inspector = Inspector(bundle)
    if not plan.folds:
        judged = _judge(inspector, apart, sight, "score held-out images", progress)
    scores = [judgement.score for judgement in judged]
    threshold = _threshold(scores, plan, recipe)
    if defects:
        threshold = _with_escapes(threshold, inspector, sight, defects, progress)
    median = apart[int(np.argsort(scores, kind="stable")[len(scores) // 2])]
    golden, golden_members = _golden(bundle, inspector, read_image(median))
    measured = [judgement.measured for judgement in judged if judgement.measured is not None]
    drift = drift_reference(measured, learned.looks, recipe.seed)
    manifest = msgspec.structs.replace(draft, threshold=threshold, golden=golden, drift=drift, conversion=conversion)
    return encode_bundle(manifest, learned.members | golden_members)


def _check_recipe(recipe: Recipe) -> None:
    if recipe.size % 32 or not 64 <= recipe.size <= 2048:
        raise TrainingError(
            f"an input of {recipe.size} pixels does not fit", do="choose a multiple of 32 from 64 to 2048"
        )
    for name, least in (("shrinkage", 1e-6), ("tau", 0), ("position", 0), ("seed", 0)):
        value = getattr(recipe, name)
        if not least <= value < math.inf:  # false for NaN too
            raise TrainingError(f"a {name} of {value} makes no sense", do=f"choose a finite number of {least} or more")
    if recipe.precision not in PRECISIONS:
        raise TrainingError(f"{recipe.precision}: no such precision", do=f"choose {', '.join(PRECISIONS)}")
    if not 0 <= recipe.max_drop <= 1:
        raise TrainingError(f"a drop of {recipe.max_drop} makes no sense", do="choose from 0 to 1")


def _check_tiles(recipe: Recipe) -> None:
    if recipe.tiles is None:
        return
    rows, columns = recipe.tiles
    if not (1 <= rows <= MOST_TILES and 1 <= columns <= MOST_TILES) or rows == columns == 1:
        raise TrainingError(
            f"{rows}x{columns} tiles make no sense", do=f"choose two or more, at most {MOST_TILES} rows and columns"
        )
    if not 0 <= recipe.overlap <= 0.5:  # false for NaN too
        raise TrainingError(f"an overlap of {recipe.overlap} makes no sense", do="choose from 0 to 0.5 of a tile")
    if recipe.position:
        raise TrainingError(
            "the place of a patch in a tile is not its place in the frame", do="choose --position 0 with --tiles"
        )
    assert recipe.cut is not None
    if not recipe.cut.fit(recipe.patches, recipe.patches, recipe.size**2):
        raise TrainingError(
            f"{rows}x{columns} tiles of {recipe.size} pixels make more than {MOST_PATCHES} patches a side or "
            f"{MOST_PIXELS} pixels",
            do="choose fewer tiles, or a smaller --size",
        )


@dataclass(frozen=True)
class _Sight:
    """How images are read, and what is seen of them."""

    spec: Preprocessing
    score: Score
    view: View
    read: Callable[[Path], Frame]


def _sight(recipe: Recipe, first: Path) -> _Sight:
    """With a region or tiles, all images must be like the first: they would lie elsewhere in others."""
    spec = Preprocessing(width=recipe.size, height=recipe.size)
    score = _score(recipe)
    region: Region | None = None
    read: Callable[[Path], Frame] = read_image
    if recipe.region is not None or recipe.cut is not None:
        read = OneCamera().read
    if recipe.region is not None:
        height, width = read(first).shape[:2]
        region = read_region(recipe.region, (height, width), score.map_height, score.map_width)
    return _Sight(spec, score, View(spec, Grid(recipe.patches, recipe.patches, 1), score, region, recipe.cut), read)


def _score(recipe: Recipe) -> Score:
    """A map of one pixel for each of the inputs', or fewer where that would be many."""
    rows, columns = recipe.cut.patches(recipe.patches, recipe.patches) if recipe.cut else (recipe.patches,) * 2
    stride = min(recipe.levels)
    scale = min(1.0, _MOST_MAP / (max(rows, columns) * stride))
    height, width = round(rows * stride * scale), round(columns * stride * scale)
    area = recipe.area
    if area is not None and not (1 <= area.pixels <= height * width and 0 < area.level < 1):  # false for NaN too
        raise TrainingError(
            f"an area of {area.pixels} pixels above {area.level:g} of the threshold makes no sense",
            do=f"choose 1 to {height * width} pixels of the map, and a share between 0 and 1 such as {AREA_LEVEL}",
        )
    return Score(height, width, recipe.size * _SMOOTHING * scale, area=area)


@dataclass(frozen=True)
class _Learned:
    """What was learned from some images: all of a bundle but what it says of itself."""

    sight: _Sight
    grid: Grid
    rows: int
    members: dict[str, bytes]
    looks: list[Look]
    converted: Converted


@dataclass(frozen=True)
class _Judgement:
    """What the device will find of a good image."""

    score: float
    measured: Measurement | None


def _learn(paths: Sequence[Path], backbone: Backbone, recipe: Recipe, sight: _Sight, progress: Progress) -> _Learned:
    """Everything that images teach: statistics, whitening, embedding graph, bank."""
    features = FeatureGraph(backbone, recipe.levels)
    with tempfile.TemporaryDirectory(prefix="lineward-") as folder:
        pixels = _preprocess_all(paths, sight, Path(folder), progress)
        inputs = pixels.reshape(-1, *pixels.shape[2:])
        statistics, calibration = _gather(_by_torch(features), pixels, sight.view, progress), None
        if recipe.precision == INT8:
            calibration = _calibrate(features, statistics, inputs, recipe, progress)
            quantised = calibration.quantise(export_embedding(features, recipe.size))
            statistics = _gather(features_of(quantised), pixels, sight.view, progress)
        whitening = statistics.whitening(recipe.shrinkage, recipe.dimensions)
        head = EmbeddingHead(whitening, statistics.lift(whitening, recipe.tau, recipe.position), recipe.patches)
        graph = EmbeddingGraph(features, head)
        converted = _convert(export_embedding(graph, recipe.size), calibration, inputs, recipe)
        bank = _bank(converted.graph, graph.grid, pixels, sight.view, recipe, progress)
        looks = [look(np.concatenate(image)) for image in pixels]
    tensor = encode_tensor(BANK_TENSOR, bank)
    offset = len(tensor) - bank.nbytes
    members = {EMBEDDING: converted.graph, BANK: tensor, SIMILARITY: similarity_graph(graph.grid, len(bank), offset)}
    if sight.view.region is not None:
        members[REGION] = encode_region(sight.view.region)
    return _Learned(sight, graph.grid, len(bank), members, looks, converted)


def _convert(embedding: bytes, calibration: Calibration | None, pixels: NDArray[np.uint8], recipe: Recipe) -> Converted:
    if calibration is not None:
        return to_int8(embedding, calibration)
    if recipe.precision == FLOAT16:
        return to_half(embedding, spread(pixels, COST_IMAGES))
    return Converted(embedding)


def _calibrate(
    features: FeatureGraph,
    statistics: FeatureStatistics,
    pixels: NDArray[np.uint8],
    recipe: Recipe,
    progress: Progress,
) -> Calibration:
    """Which convolutions take INT8, and at what scales, by what that does to the whitened features."""
    whitening = statistics.whitening(recipe.shrinkage, recipe.dimensions)
    lift = statistics.lift(whitening, recipe.tau, recipe.position)
    graph = export_embedding(features, recipe.size)
    with progress.step("measure layers in INT8", convolutions(graph)) as advance:
        return calibrate(graph, pixels, whitening, lift, advance)


def _conversion(
    learned: _Learned,
    plan: Plan,
    defects: Sequence[Path],
    backbone: Backbone,
    recipe: Recipe,
    sight: _Sight,
    progress: Progress,
) -> Conversion | None:
    """What the precision costs, if it is a lower one: the same learned in float32, and judged by the same images.

    With folds no image is held out from the bank, so both are learned anew without those of the first fold.
    """
    if recipe.precision == FLOAT32:
        return None
    bank, apart = ([path for path, _ in chosen] for chosen in (plan.bank, plan.held_out))
    if plan.folds:
        fold = set(plan.folds[0].tolist())
        apart = [path for i, path in enumerate(bank) if i in fold]
        bank = [path for i, path in enumerate(bank) if i not in fold]
        learned = _learn(bank, backbone, recipe, sight, progress)
    float32 = replace(recipe, precision=FLOAT32)
    reference = _packed(_learn(bank, backbone, float32, sight, progress), plan, backbone, float32)
    converted = _packed(learned, plan, backbone, recipe)
    with progress.step(
        f"compare {recipe.precision} with float32", images_to_judge(len(apart), len(defects))
    ) as advance:
        judged = judge(reference, converted, recipe.precision, apart, defects, sight.read, advance)
    return check_conversion(judged, recipe.precision, learned.converted, recipe.false_reject_rate, recipe.max_drop)


def draft_bundle(images: Sequence[Path], backbone: Backbone, recipe: Recipe, progress: Progress) -> Bundle:
    """What some good images teach, as a bundle without a threshold, to be scored with beside another.

    Args:
        images: good images, all for the bank.
        backbone: see `load_backbone`; the recipe's own is not looked at.
        recipe: every other choice.
        progress: shows each step.

    Raises:
        TrainingError: as `train`, but for what a lower precision costs.
        ImageError: an image cannot be read.
    """
    distinct = distinct_images(images)
    plan = Plan(conformal.METHOD, distinct, distinct, [])
    paths = [path for path, _ in distinct]
    return _packed(_learn(paths, backbone, recipe, _sight(recipe, paths[0]), progress), plan, backbone, recipe)


def _packed(learned: _Learned, plan: Plan, backbone: Backbone, recipe: Recipe) -> Bundle:
    draft = _draft("draft", 1, recipe, learned, backbone, plan)
    return decode_bundle(encode_bundle(draft, learned.members), "a draft")


def _judge_folds(
    paths: Sequence[Path], plan: Plan, backbone: Backbone, recipe: Recipe, sight: _Sight, progress: Progress
) -> list[_Judgement]:
    """The judgement of each image with what was learned from the folds it is not in; none without folds."""
    judgements: dict[int, _Judgement] = {}
    for number, fold in enumerate(plan.folds, 1):
        apart = set(fold.tolist())
        others = [path for i, path in enumerate(paths) if i not in apart]
        with progress.step(f"fold {number} of {len(plan.folds)}", 1) as advance:
            learned = _learn(others, backbone, recipe, sight, progress)
            inspector = Inspector(_packed(learned, plan, backbone, recipe))
            judged = _judge(inspector, [paths[i] for i in fold], sight, "score the fold", progress)
            judgements.update(zip(fold.tolist(), judged, strict=True))
            advance(1)
    return [judgements[i] for i in range(len(judgements))]


def _preprocess_all(paths: Sequence[Path], sight: _Sight, folder: Path, progress: Progress) -> NDArray[np.uint8]:
    """The inputs of all images, uint8 [N, inputs, height, width, 3], paged."""
    shape = (len(paths), len(sight.view.counts), sight.spec.height, sight.spec.width, 3)
    pixels = paged(folder / "pixels", np.uint8, shape)
    with progress.step("read images", len(paths)) as advance:
        for index, path in enumerate(paths):
            pixels[index] = sight.view.pixels(sight.read(path))
            advance(index + 1)
    return pixels


def _by_torch(features: FeatureGraph) -> Features:
    def read(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            fused: NDArray[np.float32] = features(torch.from_numpy(images)).numpy()
        return fused

    return read


def _gather(features: Features, pixels: NDArray[np.uint8], view: View, progress: Progress) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for patches in _of_each_image(features, pixels, view, "learn statistics", progress):
        statistics.update(patches)
    return statistics


def _of_each_image(
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    pixels: NDArray[np.uint8],
    view: View,
    step: str,
    progress: Progress,
) -> Iterator[NDArray[np.float32]]:
    """What a graph gives for the patches that count, image by image, float32 [patches, channels]."""
    inputs = pixels.reshape(-1, *pixels.shape[2:])
    image: list[NDArray[np.float32]] = []
    with progress.step(step, len(inputs)) as advance:
        for start in range(0, len(inputs), _BATCH):
            batch = run(np.array(inputs[start : start + _BATCH]))
            for patches in batch:
                image.append(patches[view.counts[len(image)]])
                if len(image) == len(view.counts):
                    yield np.concatenate(image)
                    image.clear()
            advance(start + len(batch))


def _bank(
    embedding: bytes, grid: Grid, pixels: NDArray[np.uint8], view: View, recipe: Recipe, progress: Progress
) -> NDArray[np.float32]:
    """The bank, from embeddings by the very graph that ships."""
    session = EmbeddingSession(embedding, grid)

    def embeddings() -> Iterator[NDArray[np.float32]]:
        return _of_each_image(session.embed, pixels, view, "embed images", progress)

    with progress.step("choose the bank", recipe.rows) as advance:
        patches = int(np.count_nonzero(view.counts))
        return build_bank(embeddings, len(pixels), patches, recipe.rows, recipe.bank_method, recipe.seed, advance)


def _draft(product: str, version: int, recipe: Recipe, learned: _Learned, backbone: Backbone, plan: Plan) -> Manifest:
    """The manifest of a bundle that knows its product but has no threshold yet: its draft one passes nothing."""
    images = {digest for _, digest in [*plan.bank, *plan.held_out]}
    return Manifest(
        format=FORMAT,
        product=product,
        version=version,
        created=_time_of_creation(),
        members={},
        preprocessing=learned.sight.spec,
        grid=learned.grid,
        rows=learned.rows,
        score=learned.sight.score,
        threshold=Threshold(0.0, recipe.false_reject_rate, plan.method, len(plan.held_out), recipe.seed),
        origin=Origin(
            backbone=backbone.name,
            weights_sha256=backbone.weights_sha256,
            levels=tuple(sorted(recipe.levels)),
            shrinkage=recipe.shrinkage,
            tau=recipe.tau,
            position=recipe.position,
            bank_method=recipe.bank_method,
            images=len(plan.bank),
            data_sha256=fingerprint(images),
            seed=recipe.seed,
            tools=_versions(),
        ),
        golden=(),
        golden_tolerance=GOLDEN_TOLERANCE[recipe.precision],
        tiles=recipe.cut,
    )


def _judge(
    inspector: Inspector, paths: Sequence[Path], sight: _Sight, step: str, progress: Progress
) -> list[_Judgement]:
    """Inspect as the device will."""
    judgements = []
    with progress.step(step, len(paths)) as advance:
        for index, path in enumerate(paths):
            inspection = inspector.inspect(sight.read(path))
            judgements.append(_Judgement(inspection.score, measure(inspection)))
            advance(index + 1)
    return judgements


def _threshold(scores: Sequence[float], plan: Plan, recipe: Recipe) -> Threshold:
    rate, confidence, seed = recipe.false_reject_rate, recipe.confidence, recipe.seed
    data = fingerprint(digest for _, digest in plan.held_out)
    if plan.method == cross_conformal.METHOD:
        return cross_conformal.calibrate(scores, rate, folds=len(plan.folds), seed=seed, data_sha256=data)
    if plan.method == tail.METHOD:
        return tail.calibrate(scores, rate, confidence, seed=seed, data_sha256=data)
    return conformal.calibrate(scores, rate, confidence, seed=seed, data_sha256=data)


def _with_escapes(
    threshold: Threshold, inspector: Inspector, sight: _Sight, defects: Sequence[Path], progress: Progress
) -> Threshold:
    distinct = distinct_images(defects)
    judged = _judge(inspector, [path for path, _ in distinct], sight, "score defective parts", progress)
    escapes = escapes_at(
        [judgement.score for judgement in judged], threshold.value, fingerprint(digest for _, digest in distinct)
    )
    return msgspec.structs.replace(threshold, escapes=escapes)


def _golden(bundle: Bundle, inspector: Inspector, frame: Frame) -> tuple[tuple[Golden, ...], dict[str, bytes]]:
    """A typical good image, and the same with a planted patch of noise, so that high scores are checked too."""
    maps = bundle.view.maps
    records, members = [], {}
    for name, image in {"good": frame, "defect": _plant(frame, bundle.region)}.items():
        scores = next(inspector.patch_scores([image]))
        record = Golden(
            image=f"golden/{name}.png",
            scores=f"golden/{name}.safetensors",
            preprocessed_sha256=bundle.view.sha256(image),
            image_score=image_score(maps.anomaly_map(scores), bundle.manifest.score.area),
        )
        records.append(record)
        members[record.image] = encode_png(image)
        members[record.scores] = encode_tensor(GOLDEN_TENSOR, scores)
    return tuple(records), members


def _plant(frame: Frame, region: Region | None) -> Frame:
    planted = frame.copy()
    height, width = frame.shape[0] // 4, frame.shape[1] // 4
    top, left = height, width
    if region is not None:  # around the place that is farthest from what does not count
        depth = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        row, column = np.unravel_index(int(depth.argmax()), region.shape)
        top = int(np.clip(row * frame.shape[0] // region.shape[0] - height // 2, 0, frame.shape[0] - height))
        left = int(np.clip(column * frame.shape[1] // region.shape[1] - width // 2, 0, frame.shape[1] - width))
    patch = planted[top : top + height, left : left + width]
    noise = np.random.RandomState(0).randint(0, 256, patch.shape)
    patch[...] = (noise << 8 if frame.dtype == np.uint16 else noise).astype(frame.dtype)
    return planted


def _time_of_creation() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    seconds = int(epoch) if epoch and epoch.isdigit() else int(time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
