"""New good images for a finished bundle, without training anew: on the device's packages, onnx and threadpoolctl.

The embedding graph stays. The bank keeps all its rows, and gains those patches of the new images that lie farther from
it than any patch of the first training lay when its farthest-point half was full: that is the distance of the last pick
to the rows before it. So good parts of old score as they did, or lower, and the promise made for them holds at the old
threshold and at any higher one; the new images' own threshold is found from some that are held out from the bank; the
higher of the two keeps the promise for both.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lineward.calibration import cross_conformal
from lineward.export.bank import POOL_ROWS
from lineward.export.bank.farthest_point import farthest_points, greatest_similarity
from lineward.export.bundle_bank import with_bank
from lineward.export.held_out import AUTO, Plan, Promise, plan_distinct
from lineward.export.paged import paged
from lineward.runtime import conformal
from lineward.runtime.anomaly_map import image_score
from lineward.runtime.bundle import (
    EMBEDDING,
    GOLDEN_TENSOR,
    SIMILARITY,
    Bundle,
    decode_bundle,
    encode_bundle,
    encode_tensor,
)
from lineward.runtime.calibrating import OneCamera, check_still_rejects
from lineward.runtime.conformal import check_support
from lineward.runtime.distinct import fingerprint, pixels_sha256
from lineward.runtime.engines.onnxruntime import EmbeddingSession, SimilaritySession
from lineward.runtime.errors import CalibrationError, TrainingError
from lineward.runtime.images import decode_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Addition, Golden, Threshold

Rows = NDArray[np.float32]
Similarity = NDArray[np.float32]
S = TypeVar("S")
T = TypeVar("T")

_ROOM = 2
"""The bank may grow by one row for so many that it has: what a device multiplies with is latency."""

_WITH_A_TAIL = ("two-halves", "k-centre")
"""Ways to choose a bank that end with farthest points."""


class Advance(Protocol):
    """Told how many parts of a step are done."""

    def __call__(self, done: int, /) -> None:
        """Say that `done` parts are done."""


class Progress(Protocol):
    """Shows how far a step is."""

    def step(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a step of `total` parts."""


@dataclass(frozen=True)
class Adapted:
    """A bundle that knows the new images too, and what is different.

    Attributes:
        data: its bytes, unsigned.
        bundle: the same, decoded.
        plan: which of the new images built the bank, and which judged it.
        own: the threshold that the new images alone ask for.
        full: whether more rows would have been admitted than there is room for.
        rejected_before: held-out new images that the bundle rejected.
        rejected_after: those that it rejects now.
    """

    data: bytes
    bundle: Bundle
    plan: Plan
    own: Threshold
    full: bool
    rejected_before: int
    rejected_after: int


def adapt(
    bundle: Bundle, paths: Sequence[Path], *, version: int | None = None, seed: int = 0, progress: Progress
) -> Adapted:
    """Add good images to a bundle.

    Args:
        bundle: what to add them to; it is left as it is.
        paths: new good images, such as of another shade or light.
        version: of the new bundle; by default the next.
        seed: of the choice of images that are held out.
        progress: shows each step.

    Raises:
        TrainingError: the bundle's bank has no farthest points, the version is not higher than the bundle's, or the
            disk for temporary files is full.
        CalibrationError: too few different images for the bundle's promise, or they would let a known defect pass.
        ImageError: an image cannot be read, or is of another shape or kind than the others or the bundle's own.
    """
    version = _check(bundle, version)
    old = bundle.manifest.threshold
    rate, confidence = old.false_reject_rate, old.confidence
    check_support(rate, len(paths), confidence)
    eye, rule = _Eye(bundle), _Rule(bundle.bank)
    with tempfile.TemporaryDirectory(prefix="lineward-") as folder:
        images = _read(eye, paths, Path(folder), progress)
        plan = plan_distinct([(image.path, image.sha256) for image in images], Promise(rate, confidence, AUTO, seed))
        rows, judged = _learn(eye, rule, images, plan, POOL_ROWS // len(paths), progress)
    own = _own_threshold([score.after for score in judged], plan, old, seed)
    # What was counted of defects was counted with the old bank.
    threshold = msgspec.structs.replace(own if own.value > old.value else old, escapes=None)
    packed = _pack(bundle, with_bank(bundle, np.concatenate([bundle.bank, rows])), plan, threshold, version, seed)
    adapted = decode_bundle(packed, "the adapted bundle")
    _check_golden(bundle, adapted)
    return Adapted(
        data=packed,
        bundle=adapted,
        plan=plan,
        own=own,
        full=len(rows) == rule.room,
        rejected_before=sum(not score.before <= old.value for score in judged),
        rejected_after=sum(not score.after <= threshold.value for score in judged),
    )


def admission_limit(bank: Rows) -> float:
    """How similar a patch may be to the bank and still enter it: as the last farthest point was to the rows before it.

    Args:
        bank: unit rows in the order chosen, float32 [rows, dimensions].

    Returns:
        A cosine.
    """
    return float(greatest_similarity(bank[-1:], bank[:-1])[0])


def _check(bundle: Bundle, version: int | None) -> int:
    manifest = bundle.manifest
    if manifest.origin.bank_method not in _WITH_A_TAIL:
        raise TrainingError(
            f"a bank by {manifest.origin.bank_method} has no farthest points, whose rule says what to add",
            do=f"train with --bank-method {_WITH_A_TAIL[0]}, or train anew with all images",
        )
    following = manifest.version + 1 if version is None else version
    if following <= manifest.version:
        raise TrainingError(
            f"version {following} does not follow {manifest.version}", do=f"choose {manifest.version + 1} or more"
        )
    return following


class _Eye:
    """What a bundle sees: embeddings of images, their similarity to its bank, and image scores of it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bank, self.view = bundle.bank, bundle.view
        self.camera = OneCamera(bundle)
        self._grid = bundle.manifest.grid
        self._area = bundle.manifest.score.area
        self._session = EmbeddingSession(bundle.members[EMBEDDING], self._grid, threads=1)
        self._similarity = SimilaritySession(bundle.members[SIMILARITY], bundle.bank, threads=1)

    def embed(self, inputs: NDArray[np.uint8]) -> Rows:
        """Unit patch embeddings of an image's inputs, float32 [inputs, patches, dimensions]."""
        return np.concatenate([self._session.embed(inputs[i : i + 1]) for i in range(len(inputs))])

    def similarity(self, embeddings: Rows) -> Similarity:
        """The greatest similarity of each patch to the bank, float32 [inputs * patches]."""
        return self._similarity.greatest(embeddings)

    def lattice(self, number: int) -> NDArray[np.intp]:
        """One of four lattices of patches that do not touch, as indices into the embeddings: those that count."""
        chosen = np.zeros((len(self.view.counts), self._grid.rows, self._grid.columns), np.bool_)
        chosen[:, number // 2 % 2 :: 2, number % 2 :: 2] = True
        return np.flatnonzero(chosen.ravel() & self.view.counts.ravel())

    def score(self, similarity: Similarity) -> float:
        """The image score, of each patch's greatest similarity."""
        scores = (1 - similarity).reshape(-1, self._grid.rows, self._grid.columns)
        return image_score(self.view.maps.anomaly_map(self.view.merge(scores)), self._area)


@dataclass(frozen=True)
class _Image:
    """A new image.

    Attributes:
        path: its file.
        sha256: of its pixels.
        inputs: what the embedding graph takes of it, uint8 [inputs, height, width, 3].
    """

    path: Path
    sha256: str
    inputs: NDArray[np.uint8]


class _Rule:
    """Which patches a bank admits: those that are less similar to it than the limit, the farthest first, while there is
    room.
    """

    def __init__(self, bank: Rows) -> None:
        self.limit, self.room = admission_limit(bank), len(bank) // _ROOM
        self._bank = bank

    def admit(self, candidates: Sequence[Rows]) -> Rows:
        """The rows to add, of the candidates of each image."""
        pool = np.concatenate(candidates)
        return farthest_points(pool, self._bank, min(self.room, len(pool)), until=self.limit) if len(pool) else pool


@dataclass(frozen=True)
class _Scores:
    """The image score of an image, with the bank as it was and as it is."""

    before: float
    after: float


def _read(eye: _Eye, paths: Sequence[Path], folder: Path, progress: Progress) -> list[_Image]:
    """Each different image once, in the order of their hashes, their inputs paged."""
    ordered = sorted(paths)
    first = eye.view.pixels(eye.camera.read(ordered[0]))  # the others are to be like this one
    inputs = paged(folder / "inputs", np.uint8, (len(ordered), *first.shape))

    def read(number: int) -> _Image:
        frame = eye.camera.read(ordered[number])
        inputs[number] = eye.view.pixels(frame)
        return _Image(ordered[number], pixels_sha256(frame), inputs[number])

    distinct: dict[str, _Image] = {}
    for image in _of_each(read, range(len(ordered)), "read new images", progress):
        distinct.setdefault(image.sha256, image)
    return [distinct[digest] for digest in sorted(distinct)]


def _learn(
    eye: _Eye, rule: _Rule, images: Sequence[_Image], plan: Plan, most: int, progress: Progress
) -> tuple[Rows, list[_Scores]]:
    """The rows to add, and the scores of held-out images; in folds each image is held out once."""
    if plan.folds:
        candidates = _look(eye, images, rule.limit, most, progress)
        return rule.admit(candidates), _cross_judged(eye, rule, images, candidates, plan, progress)
    held_out = {digest for _, digest in plan.held_out}
    admitted = [image for image in images if image.sha256 not in held_out]
    rows = rule.admit(_look(eye, admitted, rule.limit, most, progress))
    judging = [image for image in images if image.sha256 in held_out]
    return rows, _judge(eye, judging, rows, "score held-out images", progress)


def _look(eye: _Eye, images: Sequence[_Image], limit: float, most: int, progress: Progress) -> list[Rows]:
    """The patches of each image that are farther from the bank than the limit, the farthest `most` of them.

    Of every four neighbouring patches one is a candidate, another one in another image: neighbours are pooled from much
    the same pixels, and much of the time goes into comparing candidates with the bank.
    """

    def look(image: _Image) -> Rows:
        embeddings = eye.embed(image.inputs)
        candidates = embeddings.reshape(-1, embeddings.shape[2])[eye.lattice(int(image.sha256, 16))]
        similarity = greatest_similarity(candidates, eye.bank)
        order = np.argsort(similarity, kind="stable")[: max(1, most)]
        return candidates[order[similarity[order] < limit]]

    return _of_each(look, images, "look at new images", progress)


def _of_each(work: Callable[[S], T], items: Sequence[S], step: str, progress: Progress) -> list[T]:
    """What the work gives for each item, several at a time, with one thread each: more would wait for one another."""
    results = []
    cores = len(os.sched_getaffinity(0))
    with (
        progress.step(step, len(items)) as advance,
        threadpool_limits(1, "blas"),
        ThreadPoolExecutor(cores) as pool,
    ):
        for result in pool.map(work, items):
            results.append(result)
            advance(len(results))
    return results


def _judge(eye: _Eye, images: Sequence[_Image], rows: Rows, step: str, progress: Progress) -> list[_Scores]:
    """Image scores without and with more rows in the bank."""

    def judge(image: _Image) -> _Scores:
        embeddings = eye.embed(image.inputs)
        before = after = eye.similarity(embeddings)
        if len(rows):
            after = np.maximum(before, greatest_similarity(embeddings.reshape(-1, embeddings.shape[2]), rows))
        return _Scores(eye.score(before), eye.score(after))

    return _of_each(judge, images, step, progress)


def _cross_judged(
    eye: _Eye, rule: _Rule, images: Sequence[_Image], candidates: Sequence[Rows], plan: Plan, progress: Progress
) -> list[_Scores]:
    """The scores of each image, with rows from the folds it is not in."""
    scores: dict[int, _Scores] = {}
    for number, fold in enumerate(plan.folds, 1):
        apart = set(fold.tolist())
        rows = rule.admit([patches for i, patches in enumerate(candidates) if i not in apart])
        judged = _judge(eye, [images[i] for i in fold], rows, f"fold {number} of {len(plan.folds)}", progress)
        scores.update(zip(fold.tolist(), judged, strict=True))
    return [scores[i] for i in range(len(scores))]


def _own_threshold(scores: Sequence[float], plan: Plan, old: Threshold, seed: int) -> Threshold:
    """The threshold that the new images alone ask for, at the bundle's promise."""
    data = fingerprint(digest for _, digest in plan.held_out)
    rate = old.false_reject_rate
    if plan.folds:
        return cross_conformal.calibrate(scores, rate, folds=len(plan.folds), seed=seed, data_sha256=data)
    return conformal.calibrate(scores, rate, old.confidence, seed=seed, data_sha256=data)


def _pack(bundle: Bundle, grown: Bundle, plan: Plan, threshold: Threshold, version: int, seed: int) -> bytes:
    manifest = bundle.manifest
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    addition = Addition(
        bundle_sha256=bundle.sha256,
        created=created,
        images=len(plan.bank),
        rows=len(grown.bank) - len(bundle.bank),
        data_sha256=fingerprint({digest for _, digest in [*plan.bank, *plan.held_out]}),
        seed=seed,
    )
    origin = msgspec.structs.replace(
        manifest.origin,
        images=manifest.origin.images + len(plan.bank),
        additions=(*manifest.origin.additions, addition),
    )
    golden, members = _golden(grown)
    adapted = msgspec.structs.replace(
        grown.manifest,
        version=version,
        created=created,
        threshold=threshold,
        origin=origin,
        golden=golden,
        drift=None,  # what was usual before is not what is usual now
    )
    return encode_bundle(adapted, {**grown.members, **members})


def _golden(grown: Bundle) -> tuple[tuple[Golden, ...], dict[str, bytes]]:
    """The same golden images, with the results of the new bank."""
    maps, inspector = grown.view.maps, Inspector(grown)
    records, members = [], {}
    for golden in grown.manifest.golden:
        frame = decode_image(grown.members[golden.image], golden.image)
        scores = next(inspector.patch_scores([frame]))
        score = image_score(maps.anomaly_map(scores), grown.manifest.score.area)
        records.append(msgspec.structs.replace(golden, image_score=score))
        members[golden.scores] = encode_tensor(GOLDEN_TENSOR, scores)
    return tuple(records), members


def _check_golden(bundle: Bundle, adapted: Bundle) -> None:
    """Check that every golden image that was rejected still is, with the new bank and threshold."""
    check_still_rejects(bundle, adapted.manifest.threshold)
    was, now = bundle.manifest, adapted.manifest
    for before, after in zip(was.golden, now.golden, strict=True):
        if before.image_score > was.threshold.value and after.image_score <= now.threshold.value:
            raise CalibrationError(
                f"with these images the bundle would pass {after.image}, a known defect: its score fell from "
                f"{before.image_score:.4f} to {after.image_score:.4f}",
                do="look whether the images show good parts of this product, sharp and lit as on the line",
            )
