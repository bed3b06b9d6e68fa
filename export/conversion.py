"""The embedding graph in float16 or INT8, and the gate that a bundle with such a graph must pass.

The converted graph's bundle and a float32 one of the same recipe score the same images: good ones that built neither
bank, and defective ones, labelled where there are some, else planted into those good ones. float16 is judged as a
device computes it that rounds every activation (`float16_rounding`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from lineward.calibration.metrics import image_auroc
from lineward.export.float16_rounding import greatest_activations, rounded_to_float16
from lineward.export.planting import KINDS, plant
from lineward.export.precision import to_float16
from lineward.export.quantisation import Calibration
from lineward.runtime.bundle import EMBEDDING, Bundle
from lineward.runtime.errors import TrainingError
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Conversion
from lineward.runtime.preprocessing import Frame

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
PRECISIONS = {
    FLOAT32: "as the backbone was trained",
    FLOAT16: "for GPUs: half the memory traffic",
    INT8: "for GPUs: convolutions by symmetric Q/DQ, but for those that cost most",
}
GOLDEN_TOLERANCE = {FLOAT32: 1e-4, FLOAT16: 5e-3, INT8: 2e-2}
"""How far another engine's patch scores may be off: five and six times what two ways to compute one graph gave."""
LABELLED, PLANTED = "labelled defects", "planted defects"
_NAMED = 5
_LARGEST = 65504


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the two graphs made of the same images.

    Attributes:
        float32: image scores with the float32 graph.
        converted: image scores with the other one.
        defective: which of the images show a defect.
        evidence: "labelled defects" or "planted defects".
    """

    float32: NDArray[np.float64]
    converted: NDArray[np.float64]
    defective: NDArray[np.bool_]
    evidence: str


@dataclasses.dataclass(frozen=True)
class Converted:
    """A graph in the precision that ships.

    Attributes:
        graph: ONNX.
        costly: the layers that cost most, in words, first those that cost more; none in float32.
        float32_layers: layers that stay float32 though they could be converted.
    """

    graph: bytes
    costly: tuple[str, ...] = ()
    float32_layers: tuple[str, ...] = ()


def to_half(graph: bytes, images: NDArray[np.uint8]) -> Converted:
    """A float32 graph cast to float16: see `to_float16`.

    Args:
        graph: ONNX.
        images: preprocessed good images that show how large activations become, uint8 [N, height, width, 3].

    Raises:
        TrainingError: an activation overflows.
        EngineError: as `to_float16`.
    """
    greatest = greatest_activations(graph, images)
    layers = tuple(f"{_layer(name)} (up to {value:.3g})" for name, value in greatest[:_NAMED])
    if greatest and greatest[0][1] > _LARGEST:
        raise TrainingError(
            f"float16 ends at {_LARGEST:,}, and activations of the backbone go beyond: {', '.join(layers)}",
            do=f"train with --precision {FLOAT32}",
        )
    half = bytes(to_float16(onnx.load_from_string(graph)).SerializeToString(deterministic=True))
    return Converted(half, layers)


def to_int8(graph: bytes, calibration: Calibration) -> Converted:
    """A float32 graph with the convolutions of the backbone in INT8 that take it."""
    kept = tuple(_layer(layer.name) for layer in calibration.layers[: calibration.float32])
    taken = calibration.layers[calibration.float32 :]
    costly = tuple(f"{_layer(layer.name)} ({layer.cost:.2g})" for layer in taken[:_NAMED])
    return Converted(calibration.quantise(graph), costly, kept)


def _layer(name: str) -> str:
    """A node's name without what is the same of all."""
    return name.removeprefix("/features").removeprefix("/network").strip("/").removesuffix("/Conv")


def judge(
    reference: Bundle,
    converted: Bundle,
    precision: str,
    good: Sequence[Path],
    defects: Sequence[Path],
    read: Callable[[Path], Frame] = read_image,
    progress: Callable[[int], None] = lambda _: None,
) -> Judged:
    """Score the same images with both.

    Args:
        reference: a bundle in float32.
        converted: one of the same recipe and images.
        precision: of its graph.
        good: images that built neither bank.
        defects: images of defective parts; none to plant some into the good ones.
        read: reads an image.
        progress: told of the images scored.

    Raises:
        ImageError: an image cannot be read.
    """
    if precision == FLOAT16:
        rounded = rounded_to_float16(reference.members[EMBEDDING])
        converted = dataclasses.replace(converted, members={**converted.members, EMBEDDING: rounded})
    first, second = Inspector(reference), Inspector(converted)
    scores = []
    for frame, defective in _frames(good, defects, read):
        scores.append((first.inspect(frame).score, second.inspect(frame).score, defective))
        progress(len(scores))
    a, b, defective_ones = (np.array(column) for column in zip(*scores, strict=True))
    return Judged(a, b, defective_ones, LABELLED if defects else PLANTED)


def images_to_judge(good: int, defects: int) -> int:
    """Images that `judge` scores."""
    return good + defects if defects else good * (1 + len(KINDS))


def check_conversion(judged: Judged, precision: str, converted: Converted, rate: float, max_drop: float) -> Conversion:
    """Let a converted graph pass, or not.

    Args:
        judged: what both made of the same images.
        precision: of the converted graph.
        converted: the graph.
        rate: share of the good images that may lie above the thresholds compared.
        max_drop: of image AUROC.

    Raises:
        TrainingError: it loses more, or a score is no finite number.
    """
    blamed = "; the layers that cost most: " + ", ".join(converted.costly) if converted.costly else ""
    broken = int((~np.isfinite(judged.converted)).sum())
    if broken:
        raise TrainingError(
            f"the {precision} graph gives no finite score for {broken} of {len(judged.converted)} images{blamed}",
            do=f"train with --precision {FLOAT32}",
        )
    before, after = (image_auroc(scores, judged.defective) for scores in (judged.float32, judged.converted))
    defects = int(judged.defective.sum())
    good = len(judged.defective) - defects
    if not before - after <= max_drop:
        raise TrainingError(
            f"{precision} costs {before - after:.4f} of image AUROC ({after:.4f}, float32 has {before:.4f}; "
            f"{good} good images, {defects} {judged.evidence}), more than {max_drop:g}{blamed}",
            do="pass more good images, as different as the line's, choose another --precision, or allow more "
            "with --max-drop",
        )
    thresholds = (
        float(np.quantile(scores[~judged.defective], 1 - rate, method="higher"))
        for scores in (judged.float32, judged.converted)
    )
    return Conversion(
        precision, converted.float32_layers, judged.evidence, good, defects, before, after, max_drop, *thresholds
    )


def _frames(
    good: Sequence[Path], defects: Sequence[Path], read: Callable[[Path], Frame]
) -> Iterator[tuple[Frame, bool]]:
    for seed, path in enumerate(good):
        frame = read(path)
        yield frame, False
        if not defects:
            random = np.random.default_rng(seed)
            yield from ((plant(frame, kind, random)[0], True) for kind in KINDS)
    yield from ((read(path), True) for path in defects)
