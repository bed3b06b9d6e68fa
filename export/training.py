"""From good images to a bundle: the offline half of Lineward, step by step."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from lineward.calibration.threshold import METHOD, check_rate, check_support, images_needed, split_conformal
from lineward.export.backbones import DEFAULT, Backbone, load_backbone
from lineward.export.bank import build_bank
from lineward.export.drift_reference import drift_reference
from lineward.export.embedding import EmbeddingGraph, EmbeddingHead, FeatureGraph
from lineward.export.onnx_graphs import export_embedding, similarity_graph
from lineward.export.statistics import FeatureStatistics
from lineward.runtime.anomaly_map import MapMaker, image_score
from lineward.runtime.bundle import (
    BANK,
    BANK_TENSOR,
    EMBEDDING,
    GOLDEN_TENSOR,
    SIMILARITY,
    Bundle,
    decode_bundle,
    encode_bundle,
    encode_tensor,
)
from lineward.runtime.drift import measure
from lineward.runtime.drift.measurements import Look, look
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.errors import CalibrationError, DataError, TrainingError
from lineward.runtime.images import encode_png, read_file, read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import FORMAT, Golden, Grid, Manifest, Origin, Score, Threshold, check_identity
from lineward.runtime.preprocessing import Frame, Preprocessing, preprocess, preprocessed_sha256

_BATCH = 8
_GOLDEN_TOLERANCE = 1e-4
_SMOOTHING = 4 / 256
"""Standard deviation of the map's Gaussian, in sides of the map."""


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
        seed: seed of every random choice.
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
    seed: int = 0


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
    version: int = 1,
    recipe: Recipe = Recipe(),
    progress: Progress,
) -> bytes:
    """Learn a product from good images.

    The order and the names of the files do not matter: images are taken in the order of their contents' hashes. The
    same images, recipe and package versions give the same bytes, but for the time of creation, which the environment
    variable SOURCE_DATE_EPOCH fixes.

    Args:
        images: good images.
        product: what they show.
        held_out: good images for the threshold; by default a tenth of the images, or as many as the false-reject rate
            needs, are held out from the bank.
        version: version of the product's bundle.
        recipe: every choice.
        progress: shows each step.

    Returns:
        The bundle's bytes.

    Raises:
        CalibrationError: too few images for the false-reject rate.
        DataError: the same image is given twice across the bank and the held-out ones.
        TrainingError: the recipe makes no sense.
        ImageError: an image cannot be read.
    """
    _check_recipe(recipe)
    check_identity(product, version)
    for_bank, for_threshold = _split(images, held_out, recipe)
    backbone = load_backbone(recipe.backbone, recipe.weights)
    features = FeatureGraph(backbone, recipe.levels)
    spec = Preprocessing(width=recipe.size, height=recipe.size)
    with tempfile.TemporaryDirectory(prefix="lineward-") as folder:
        pixels = _preprocess_all([p for p, _ in for_bank], spec, Path(folder), progress)
        statistics = _gather(features, pixels, progress)
        whitening = statistics.whitening(recipe.shrinkage, recipe.dimensions)
        side = recipe.size // min(recipe.levels)
        head = EmbeddingHead(whitening, statistics.lift(whitening, recipe.tau, recipe.position), side)
        grid = Grid(side, side, head.dimensions)
        embedding = export_embedding(EmbeddingGraph(features, head), recipe.size)
        bank = _bank(embedding, grid, pixels, recipe, progress)
        looks = [look(image) for image in pixels]
    tensor = encode_tensor(BANK_TENSOR, bank)
    offset = len(tensor) - bank.nbytes
    members = {EMBEDDING: embedding, BANK: tensor, SIMILARITY: similarity_graph(grid, len(bank), offset)}
    draft = _draft(product, version, recipe, spec, grid, len(bank), backbone, for_bank, for_threshold)
    return _calibrate(draft, members, [p for p, _ in for_threshold], looks, progress)


def _check_recipe(recipe: Recipe) -> None:
    if recipe.size % 32 or not 64 <= recipe.size <= 2048:
        raise TrainingError(
            f"an input of {recipe.size} pixels does not fit", do="choose a multiple of 32 from 64 to 2048"
        )
    for name, least in (("shrinkage", 1e-6), ("tau", 0), ("position", 0), ("seed", 0)):
        value = getattr(recipe, name)
        if not least <= value < math.inf:  # false for NaN too
            raise TrainingError(f"a {name} of {value} makes no sense", do=f"choose a finite number of {least} or more")


_Fingerprinted = tuple[Path, str]


def _split(
    images: Sequence[Path], held_out: Sequence[Path], recipe: Recipe
) -> tuple[list[_Fingerprinted], list[_Fingerprinted]]:
    """The images for the bank and those for the threshold, each by content hash."""
    fingerprinted = _by_content(images)
    if held_out:
        apart = _by_content(held_out)
        shared = {digest for _, digest in fingerprinted} & {digest for _, digest in apart}
        if shared:
            twins = [str(path) for path, digest in apart if digest in shared]
            raise DataError(f"{twins[0]}: is both a training and a held-out image", do="hold out other images")
        check_support(recipe.false_reject_rate, len(apart))
        return fingerprinted, apart
    count = _count_to_hold_out(len(fingerprinted), recipe.false_reject_rate)
    chosen = set(np.random.default_rng(recipe.seed).choice(len(fingerprinted), count, replace=False).tolist())
    bank = [item for i, item in enumerate(fingerprinted) if i not in chosen]
    return bank, [fingerprinted[i] for i in sorted(chosen)]


def _count_to_hold_out(images: int, false_reject_rate: float) -> int:
    """A tenth, or as many as the rate needs, leaving at least one image for the bank."""
    check_rate(false_reject_rate)
    needed = images_needed(false_reject_rate)
    if images <= needed:
        raise CalibrationError(
            f"{images} different good images cannot support a false-reject rate of {false_reject_rate:g}: "
            f"{needed} must be held out for the threshold, and the bank needs others",
            do=f"pass at least {needed + 1} good images, better {4 * needed}, or a higher --false-reject-rate",
        )
    return max(images // 10, needed)


def _by_content(paths: Sequence[Path]) -> list[_Fingerprinted]:
    """Each image once, in the order of content hashes: a copy is no further evidence."""
    first: dict[str, Path] = {}
    for path in sorted(paths):
        first.setdefault(hashlib.sha256(read_file(path)).hexdigest(), path)
    return [(first[digest], digest) for digest in sorted(first)]


def _preprocess_all(paths: Sequence[Path], spec: Preprocessing, folder: Path, progress: Progress) -> NDArray[np.uint8]:
    """All preprocessed images, uint8 [N, height, width, 3], in a file that the system may page out."""
    shape = (len(paths), spec.height, spec.width, 3)
    pixels = np.memmap(folder / "pixels", np.uint8, "w+", shape=shape)
    with progress.step("read images", len(paths)) as advance:
        for index, path in enumerate(paths):
            pixels[index] = preprocess(read_image(path), spec)
            advance(index + 1)
    return pixels


def _gather(features: FeatureGraph, pixels: NDArray[np.uint8], progress: Progress) -> FeatureStatistics:
    statistics = FeatureStatistics()
    with progress.step("learn statistics", len(pixels)) as advance, torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            batch = features(torch.from_numpy(np.array(pixels[start : start + _BATCH])))
            for image in batch.numpy():
                statistics.update(image)
            advance(start + len(batch))
    return statistics


def _bank(
    embedding: bytes, grid: Grid, pixels: NDArray[np.uint8], recipe: Recipe, progress: Progress
) -> NDArray[np.float32]:
    """The bank, from embeddings by the very graph that ships."""
    session = EmbeddingSession(embedding, grid)

    def embeddings() -> Iterator[NDArray[np.float32]]:
        with progress.step("embed images", len(pixels)) as advance:
            for start in range(0, len(pixels), _BATCH):
                batch = session.embed(np.array(pixels[start : start + _BATCH]))
                yield from batch
                advance(start + len(batch))

    with progress.step("choose the bank", recipe.rows) as advance:
        return build_bank(
            embeddings, len(pixels), grid.rows * grid.columns, recipe.rows, recipe.bank_method, recipe.seed, advance
        )


def _draft(
    product: str,
    version: int,
    recipe: Recipe,
    spec: Preprocessing,
    grid: Grid,
    rows: int,
    backbone: Backbone,
    for_bank: Sequence[_Fingerprinted],
    for_threshold: Sequence[_Fingerprinted],
) -> Manifest:
    """The manifest of a bundle that knows its product but has no threshold yet: its draft one passes nothing."""
    digests = sorted(digest for _, digest in [*for_bank, *for_threshold])
    return Manifest(
        format=FORMAT,
        product=product,
        version=version,
        created=_time_of_creation(),
        members={},
        preprocessing=spec,
        grid=grid,
        rows=rows,
        score=Score(recipe.size, recipe.size, recipe.size * _SMOOTHING),
        threshold=Threshold(0.0, recipe.false_reject_rate, METHOD, len(for_threshold), recipe.seed),
        origin=Origin(
            backbone=backbone.name,
            weights_sha256=backbone.weights_sha256,
            levels=tuple(sorted(recipe.levels)),
            shrinkage=recipe.shrinkage,
            tau=recipe.tau,
            position=recipe.position,
            bank_method=recipe.bank_method,
            images=len(for_bank),
            data_sha256=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
            seed=recipe.seed,
            tools=_versions(),
        ),
        golden=(),
        golden_tolerance=_GOLDEN_TOLERANCE,
    )


def _calibrate(
    draft: Manifest, members: dict[str, bytes], paths: Sequence[Path], looks: Sequence[Look], progress: Progress
) -> bytes:
    """Inspect the held-out images as the device will, set the threshold, and add drift reference and golden images."""
    bundle = decode_bundle(encode_bundle(draft, members), "the new bundle")
    inspector = Inspector(bundle)
    scores, measured = [], []
    with progress.step("score held-out images", len(paths)) as advance:
        for index, path in enumerate(paths):
            inspection = inspector.inspect(read_image(path))
            scores.append(inspection.score)
            measured.append(measure(inspection))
            advance(index + 1)
    # Rounding can bring the score of an image that is all in the bank below 0.
    value = max(0.0, split_conformal(scores, draft.threshold.false_reject_rate))
    threshold = msgspec.structs.replace(draft.threshold, value=value)
    median = paths[int(np.argsort(scores, kind="stable")[len(scores) // 2])]
    golden, golden_members = _golden(bundle, inspector, read_image(median))
    drift = drift_reference([m for m in measured if m is not None], looks, draft.threshold.seed)
    manifest = msgspec.structs.replace(draft, threshold=threshold, golden=golden, drift=drift)
    return encode_bundle(manifest, members | golden_members)


def _golden(bundle: Bundle, inspector: Inspector, frame: Frame) -> tuple[tuple[Golden, ...], dict[str, bytes]]:
    """A typical good image, and the same with a planted patch of noise, so that high scores are checked too."""
    maps = MapMaker(bundle.manifest.grid, bundle.manifest.score)
    records, members = [], {}
    for name, image in {"good": frame, "defect": _plant(frame)}.items():
        scores = next(inspector.patch_scores([image]))
        record = Golden(
            image=f"golden/{name}.png",
            scores=f"golden/{name}.safetensors",
            preprocessed_sha256=preprocessed_sha256(image, bundle.manifest.preprocessing),
            image_score=image_score(maps.anomaly_map(scores)),
        )
        records.append(record)
        members[record.image] = encode_png(image)
        members[record.scores] = encode_tensor(GOLDEN_TENSOR, scores)
    return tuple(records), members


def _plant(frame: Frame) -> Frame:
    planted = frame.copy()
    height, width = frame.shape[0] // 4, frame.shape[1] // 4
    patch = planted[height : 2 * height, width : 2 * width]
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
