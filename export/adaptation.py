"""New good images for a finished bundle, without training anew: on the device's packages, and onnx.

The embedding graph stays. The bank keeps all its rows, and gains those patches of the new images that lie farther from
it than any patch of the first training lay when its farthest-point half was full: that is the distance of the last pick
to the rows before it. So good parts of old score as they did, or lower, and the promise made for them holds at the old
threshold and at any higher one; the new images' own threshold is found from some that are held out from the bank; the
higher of the two keeps the promise for both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from lineward.calibration import cross_conformal
from lineward.export.bank import POOL_ROWS
from lineward.export.bank.farthest_point import farthest_points, greatest_similarity
from lineward.export.held_out import AUTO, Plan, Promise, plan_calibration
from lineward.export.similarity_graph import similarity_graph
from lineward.runtime import conformal
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
from lineward.runtime.calibrating import OneCamera, check_still_rejects, score_good_parts
from lineward.runtime.distinct import fingerprint
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.errors import CalibrationError, TrainingError
from lineward.runtime.images import decode_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Addition, Golden, Threshold
from lineward.runtime.preprocessing import preprocess

Rows = NDArray[np.float32]

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
        TrainingError: the bundle's bank has no farthest points, or the version is not higher than the bundle's.
        CalibrationError: too few different images for the bundle's promise, or they would let a known defect pass.
        ImageError: an image cannot be read, or is of another shape or kind than the others or the bundle's own.
    """
    version = _check(bundle, version)
    old = bundle.manifest.threshold
    plan = plan_calibration(paths, (), Promise(old.false_reject_rate, old.confidence, AUTO, seed))
    nearest = admission_limit(bundle.bank)
    bank_paths, apart = ([path for path, _ in chosen] for chosen in (plan.bank, plan.held_out))
    candidates, before = _look(bundle, bank_paths, nearest, progress)
    room = len(bundle.bank) // 2
    scores = _cross_scores(bundle, bank_paths, candidates, nearest, room, plan, progress)
    rows = _admit(bundle, candidates, nearest, room)
    grown = _grow(bundle, rows)
    inspector = Inspector(grown)
    if not plan.folds:
        before = _score(Inspector(bundle), apart, "score held-out images before", progress)
        scores = _score(inspector, apart, "score held-out images", progress)
    data = fingerprint(digest for _, digest in plan.held_out)
    rate = old.false_reject_rate
    if plan.folds:
        own = cross_conformal.calibrate(scores, rate, folds=len(plan.folds), seed=seed, data_sha256=data)
    else:
        own = conformal.calibrate(scores, rate, old.confidence, seed=seed, data_sha256=data)
    # What was counted of defects was counted with the old bank.
    threshold = msgspec.structs.replace(own if own.value > old.value else old, escapes=None)
    packed = _pack(bundle, grown, plan, threshold, version, seed, inspector)
    adapted = decode_bundle(packed, "the adapted bundle")
    _check_golden(bundle, adapted)
    return Adapted(
        data=packed,
        bundle=adapted,
        plan=plan,
        own=own,
        full=len(rows) == room,
        rejected_before=sum(not score <= old.value for score in before),
        rejected_after=sum(not score <= threshold.value for score in scores),
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


def _look(bundle: Bundle, paths: Sequence[Path], nearest: float, progress: Progress) -> tuple[list[Rows], list[float]]:
    """Of each image, the patches that could be admitted, and the image score with the bank as it is."""
    manifest = bundle.manifest
    session = EmbeddingSession(bundle.members[EMBEDDING], manifest.grid)
    maps = MapMaker(manifest.grid, manifest.score)
    camera = OneCamera(bundle)
    share = max(1, POOL_ROWS // max(1, len(paths)))
    candidates, scores = [], []
    with progress.step("look at new images", len(paths)) as advance:
        for done, path in enumerate(paths, 1):
            pixels = preprocess(camera.read(path), manifest.preprocessing)
            embeddings = session.embed(pixels[np.newaxis])[0]
            similarity = greatest_similarity(embeddings, bundle.bank)
            order = np.argsort(similarity, kind="stable")[:share]
            candidates.append(embeddings[order[similarity[order] < nearest]])
            patch_scores = (1 - similarity).reshape(manifest.grid.rows, manifest.grid.columns)
            scores.append(image_score(maps.anomaly_map(patch_scores)))
            advance(done)
    return candidates, scores


def _admit(bundle: Bundle, candidates: Sequence[Rows], nearest: float, room: int) -> Rows:
    """The rows to add: farthest first, until none is far enough or there is no more room."""
    pool = np.concatenate([np.empty((0, bundle.bank.shape[1]), np.float32), *candidates])
    if not len(pool):
        return pool
    return farthest_points(pool, bundle.bank, min(room, len(pool)), until=nearest)


def _grow(bundle: Bundle, rows: Rows) -> Bundle:
    """The bundle with more rows in its bank."""
    manifest = bundle.manifest
    bank = np.concatenate([bundle.bank, rows])
    tensor = encode_tensor(BANK_TENSOR, bank)
    similarity = similarity_graph(manifest.grid, len(bank), len(tensor) - bank.nbytes)
    members = {**bundle.members, BANK: tensor, SIMILARITY: similarity}
    grown = msgspec.structs.replace(manifest, rows=len(bank))
    return decode_bundle(encode_bundle(grown, members), "the grown bundle")


def _cross_scores(
    bundle: Bundle,
    paths: Sequence[Path],
    candidates: Sequence[Rows],
    nearest: float,
    room: int,
    plan: Plan,
    progress: Progress,
) -> list[float]:
    """The score of each image with rows from the folds it is not in; none without folds."""
    scores: dict[int, float] = {}
    for number, fold in enumerate(plan.folds, 1):
        apart = set(fold.tolist())
        others = [rows for i, rows in enumerate(candidates) if i not in apart]
        inspector = Inspector(_grow(bundle, _admit(bundle, others, nearest, room)))
        step = f"fold {number} of {len(plan.folds)}"
        scores.update(zip(fold.tolist(), _score(inspector, [paths[i] for i in fold], step, progress), strict=True))
    return [scores[i] for i in range(len(scores))]


def _score(inspector: Inspector, paths: Sequence[Path], step: str, progress: Progress) -> list[float]:
    with progress.step(step, len(paths)) as advance:
        return score_good_parts(inspector, paths, advance)


def _pack(
    bundle: Bundle, grown: Bundle, plan: Plan, threshold: Threshold, version: int, seed: int, inspector: Inspector
) -> bytes:
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
    golden, members = _golden(grown, inspector)
    adapted = msgspec.structs.replace(
        grown.manifest, version=version, created=created, threshold=threshold, origin=origin, golden=golden
    )
    return encode_bundle(adapted, {**grown.members, **members})


def _golden(grown: Bundle, inspector: Inspector) -> tuple[tuple[Golden, ...], dict[str, bytes]]:
    """The same golden images, with the results of the new bank."""
    maps = MapMaker(grown.manifest.grid, grown.manifest.score)
    records, members = [], {}
    for golden in grown.manifest.golden:
        frame = decode_image(grown.members[golden.image], golden.image)
        scores = next(inspector.patch_scores([frame]))
        records.append(msgspec.structs.replace(golden, image_score=image_score(maps.anomaly_map(scores))))
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
