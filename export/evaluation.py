"""How well a bundle does on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.calibration.escapes import Costs, OperatingPoint, Rate, counted_rate, least_cost, operating_curve
from lineward.calibration.metrics import Confusion, Labels, PixelHistograms, Scores, confusion_at, f1_max, image_auroc
from lineward.calibration.saturated_overlap import SaturatedOverlap
from lineward.export.datasets import GOOD, Sample, read_mask, read_regions
from lineward.runtime.errors import DataError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector


@dataclass(frozen=True)
class Result:
    """What the bundle said of one labelled image.

    Attributes:
        sample: the image and its label.
        score: its image score.
        verdict: what the line would have been told.
        seconds: from frame to verdict.
    """

    sample: Sample
    score: float
    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class KindFigures:
    """The figures of one kind of defect against all good images, or their mean over kinds.

    Attributes:
        image_auroc: probability that a defective image scores above a good one; None without good images.
        spro: area under the saturated per-region overlap up to a false-positive rate of 0.05, whose normal pixels are
            those of good images and of this kind's; None without masks.
    """

    image_auroc: float | None
    spro: float | None


@dataclass(frozen=True)
class ByKind:
    """Figures as MVTec LOCO AD reports them, whose kinds are logical and structural anomalies.

    Attributes:
        kinds: figures by the name of the kind.
        mean: of all kinds, each weighing the same; None where a kind's is.
    """

    kinds: Mapping[str, KindFigures]
    mean: KindFigures


@dataclass(frozen=True)
class Cheapest:
    """The threshold of the least expected cost.

    Attributes:
        costs: what was asked.
        best: the threshold, and what it does to the labelled images.
        cost: expected cost of a part there.
        cost_of_bundle: the same at the bundle's threshold.
    """

    costs: Costs
    best: OperatingPoint
    cost: float
    cost_of_bundle: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of a bundle on labelled images.

    Attributes:
        results: every image.
        threshold: the bundle's own.
        image_auroc: probability that a defective image scores above a good one; None without both kinds.
        f1: greatest F1 of the image scores over all thresholds; None without both kinds.
        f1_threshold: the threshold that gives it.
        pixel_auroc: the same of pixels; None without ground-truth masks.
        aupro: area under the per-region overlap up to a false-positive rate of 0.3; None without masks.
        confusion: good and defective images, passed and rejected at the bundle's threshold.
        by_kind: figures apart for each kind of defect; None unless the data set gives saturations, as LOCO AD does.
        cheapest: the threshold of the least expected cost; None unless costs were given.
    """

    results: tuple[Result, ...]
    threshold: float
    image_auroc: float | None
    f1: float | None
    f1_threshold: float | None
    pixel_auroc: float | None
    aupro: float | None
    confusion: Confusion
    by_kind: ByKind | None = None
    cheapest: Cheapest | None = None

    @property
    def false_rejects(self) -> Rate | None:
        """Good images rejected at the bundle's threshold, with the exact interval; None without good ones."""
        good = self.confusion.true_pass + self.confusion.false_reject
        return counted_rate(self.confusion.false_reject, good) if good else None

    @property
    def escapes(self) -> Rate | None:
        """Defective images passed at the bundle's threshold, with the exact interval; None without defective ones."""
        defective = self.confusion.escape + self.confusion.true_reject
        return counted_rate(self.confusion.escape, defective) if defective else None


class MapComparison:
    """Anomaly maps against ground truth, at the images' own size.

    Attributes:
        pixels: of good images and all defective ones that have masks.
        overlaps: of the same images, by kind; empty unless the data set gives saturations.
    """

    def __init__(self) -> None:
        self.pixels = PixelHistograms()
        self.overlaps: dict[str, SaturatedOverlap] = {}

    def update(self, sample: Sample, anomaly_map: NDArray[np.float32], shape: tuple[int, int]) -> None:
        """Count an image; a defective one without masks is left out.

        Args:
            sample: the image and its ground truth.
            anomaly_map: float32 [any height, any width], scores in [0, 2], higher is more anomalous.
            shape: the image's own (H, W).

        Raises:
            DataError: a mask is not what the data set says of it.
            ImageError: a mask is damaged or of another size than the image.
        """
        if sample.defective and not sample.masks:
            return
        height, width = shape
        scores = cv2.resize(anomaly_map, (width, height)).astype(np.float32)
        self.pixels.update(scores, read_mask(sample, shape))
        if sample.saturations:
            overlap = self.overlaps.setdefault(sample.kind, SaturatedOverlap())
            overlap.update(scores, read_regions(sample, shape))


def evaluate(
    inspector: Inspector, samples: Sequence[Sample], progress: Callable[[int], None] = lambda _: None
) -> Evaluation:
    """Inspect labelled images and compare with their labels.

    Pixel figures are taken at the images' own size, over good images and all defective ones that have masks.

    Raises:
        DataError: there are no labelled images.
        ImageError: an image or mask cannot be read.
    """
    if not samples:
        raise DataError("no labelled images to evaluate on", do="pass a folder with test/good and test/<defect>")
    results = []
    maps = MapComparison()
    for done, sample in enumerate(samples, 1):
        frame = read_image(sample.path)
        inspection = inspector.inspect(frame)
        results.append(Result(sample, inspection.score, inspection.verdict, inspection.seconds))
        if inspection.anomaly_map is not None:
            maps.update(sample, inspection.anomaly_map, frame.shape[:2])
        progress(done)
    return _figures(tuple(results), inspector.bundle.manifest.threshold.value, maps)


def with_costs(evaluation: Evaluation, costs: Costs) -> Evaluation:
    """The evaluation, with the threshold of the least expected cost.

    Raises:
        DataError: there are no good images or no defective ones.
    """
    scores, labels = _scores_and_labels(evaluation.results)
    best, cost = least_cost(operating_curve(scores, labels), labels, costs)
    c = evaluation.confusion
    own = OperatingPoint(evaluation.threshold, c.false_reject, c.escape)
    cost_of_bundle = costs.of(own, c.true_pass + c.false_reject, c.escape + c.true_reject)
    return replace(evaluation, cheapest=Cheapest(costs, best, cost, cost_of_bundle))


def curve_of(evaluation: Evaluation) -> list[OperatingPoint]:
    """False rejects against escapes over all thresholds; empty where good or defective images are missing."""
    scores, labels = _scores_and_labels(evaluation.results)
    return operating_curve(scores, labels) if labels.any() and not labels.all() else []


def figures_by_kind(scores: Scores, samples: Sequence[Sample], maps: MapComparison) -> ByKind | None:
    """Figures apart for each kind of defect; None unless the data set gives saturations and there are defects.

    Args:
        scores: image scores, float [N], higher is more anomalous.
        samples: their images.
        maps: the images' anomaly maps, counted; of no image, if there are none.

    Raises:
        DataError: as `image_auroc` and `SaturatedOverlap.spro`.
    """
    names = sorted({sample.kind for sample in samples if sample.defective and sample.saturations})
    if not names:
        return None
    kinds = {name: _kind_figures(name, scores, samples, maps) for name in names}
    mean = KindFigures(_mean([k.image_auroc for k in kinds.values()]), _mean([k.spro for k in kinds.values()]))
    return ByKind(kinds, mean)


def _kind_figures(kind: str, scores: Scores, samples: Sequence[Sample], maps: MapComparison) -> KindFigures:
    chosen = np.array([sample.kind in (GOOD, kind) for sample in samples])
    labels = np.array([sample.defective for sample in samples])[chosen]
    overlap = sum((maps.overlaps[k] for k in (GOOD, kind) if k in maps.overlaps), start=SaturatedOverlap())
    return KindFigures(
        image_auroc=None if labels.all() else image_auroc(scores[chosen], labels),
        spro=overlap.spro() if overlap.regions else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _scores_and_labels(results: Sequence[Result]) -> tuple[Scores, Labels]:
    return np.array([r.score for r in results]), np.array([r.sample.defective for r in results])


def _figures(results: tuple[Result, ...], threshold: float, maps: MapComparison) -> Evaluation:
    pixels = maps.pixels
    scores, labels = _scores_and_labels(results)
    both = bool(labels.any() and not labels.all())
    f1, f1_threshold = f1_max(scores, labels) if both else (None, None)
    return Evaluation(
        results=results,
        threshold=threshold,
        image_auroc=image_auroc(scores, labels) if both else None,
        f1=f1,
        f1_threshold=f1_threshold,
        pixel_auroc=pixels.auroc() if pixels.regions else None,
        aupro=pixels.aupro() if pixels.regions else None,
        confusion=confusion_at(scores, labels, threshold),
        by_kind=figures_by_kind(scores, [r.sample for r in results], maps),
    )
