from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lineward.export.datasets import Sample, Saturation
from lineward.export.evaluation import KindFigures, evaluate
from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import write_png
from lineward.runtime.inspection import Inspection, Verdict, decide

THRESHOLD = 0.5


@dataclass(frozen=True)
class BrightnessInspector:
    """Finds a pixel as anomalous as it is bright; `blind` finds all alike."""

    blind: bool = False
    bundle = SimpleNamespace(manifest=SimpleNamespace(threshold=SimpleNamespace(value=THRESHOLD)))

    def inspect(self, frame: np.ndarray) -> Inspection:
        heat = frame.astype(np.float32) / 255 * (not self.blind)
        score = float(heat.max())
        return Inspection(*decide(score, THRESHOLD), score, THRESHOLD, heat, 0.25)


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., Sample]:
    """Writes an image with a patch of some brightness, and a mask over the patch or elsewhere."""
    count = 0

    def made(kind: str, brightness: int, *, mask: bool = True, elsewhere: bool = False) -> Sample:
        nonlocal count
        count += 1
        image, truth = np.full((32, 48), count, np.uint8), np.zeros((32, 48), np.uint8)
        image[4:12, 6:18] = brightness
        truth[(slice(20, 28) if elsewhere else slice(4, 12)), 6:18] = 255
        paths = tmp_path / f"{count}.png", tmp_path / f"{count}_mask.png"
        for path, pixels in zip(paths, (image, truth), strict=True):
            write_png(path, pixels)
        return Sample(paths[0], kind, (paths[1],) if mask and kind != "good" else ())

    return made


def test_a_perfect_detector(sample):
    samples = [sample("good", 10), sample("good", 20), sample("dent", 200), sample("stain", 255)]
    told: list[int] = []
    evaluation = evaluate(BrightnessInspector(), samples, told.append)
    assert (evaluation.image_auroc, evaluation.f1) == (1, 1)
    assert (evaluation.pixel_auroc, evaluation.aupro) == pytest.approx((1, 1))
    assert 20 / 255 <= evaluation.f1_threshold < 200 / 255
    assert evaluation.threshold == THRESHOLD
    counts = evaluation.confusion
    assert (counts.true_pass, counts.false_reject, counts.escape, counts.true_reject) == (2, 0, 0, 2)
    assert [result.sample for result in evaluation.results] == samples
    assert [result.score for result in evaluation.results] == pytest.approx([10 / 255, 20 / 255, 200 / 255, 1])
    assert [result.verdict for result in evaluation.results] == [Verdict.PASS] * 2 + [Verdict.REJECT] * 2
    assert [result.seconds for result in evaluation.results] == [0.25] * 4
    assert told == [1, 2, 3, 4]


def test_a_blind_detector(sample):
    evaluation = evaluate(
        BrightnessInspector(blind=True), [sample("good", 10), sample("dent", 200), sample("dent", 200)]
    )
    assert evaluation.image_auroc == 0.5
    assert evaluation.pixel_auroc == 0.5
    assert evaluation.f1 == pytest.approx(2 * 2 / (2 * 2 + 1))  # all rejected
    assert evaluation.confusion.escape == 2


def test_a_detector_that_looks_in_the_wrong_place(sample):
    evaluation = evaluate(BrightnessInspector(), [sample("good", 10), sample("dent", 200, elsewhere=True)])
    assert evaluation.image_auroc == 1
    # Of the good pixels 1440 are darker than those under the mask, 1344 as bright, and the rest brighter.
    assert evaluation.pixel_auroc == pytest.approx((1440 + 1344 / 2) / (2 * 32 * 48 - 8 * 12))
    assert evaluation.aupro < 0.5


def test_a_false_reject_and_an_escape_are_counted_at_the_bundle_s_threshold(sample):
    samples = [sample("good", 10), sample("good", 200), sample("dent", 100), sample("dent", 150), sample("dent", 250)]
    evaluation = evaluate(BrightnessInspector(), samples)
    counts = evaluation.confusion
    assert (counts.true_pass, counts.false_reject, counts.escape, counts.true_reject) == (1, 1, 1, 2)
    assert evaluation.image_auroc == pytest.approx(4 / 6)


def test_without_masks_there_are_no_pixel_figures(sample):
    evaluation = evaluate(BrightnessInspector(), [sample("good", 10), sample("dent", 200, mask=False)])
    assert (evaluation.pixel_auroc, evaluation.aupro) == (None, None)
    assert evaluation.image_auroc == 1


def test_a_defective_image_without_a_mask_is_left_out_of_the_pixel_figures(sample):
    # Were its bright pixels taken for good ones, the area would fall below 1.
    samples = [sample("good", 10), sample("dent", 200), sample("dent", 255, mask=False)]
    evaluation = evaluate(BrightnessInspector(), samples)
    assert evaluation.pixel_auroc == 1
    assert evaluation.confusion.true_reject == 2


HALF = (Saturation("dent", 255, 0.5, True),)
ALL = (Saturation("dent", 255, 96, False),)


def saturated(sample: Sample, saturations: tuple[Saturation, ...] = HALF) -> Sample:
    return replace(sample, saturations=saturations)


def test_kinds_are_measured_apart_where_the_data_set_gives_saturations(sample):
    # One good image outscores the logical one. The logical one's map is right, the structural one's is not.
    kinds = ("good", 10), ("good", 200), ("logical", 100), ("structural", 250)
    samples = [saturated(sample(kind, value, elsewhere=kind == "structural")) for kind, value in kinds]
    by_kind = evaluate(BrightnessInspector(), samples).by_kind
    # A bright patch of a good image is flagged before the logical defect: this share of the normal pixels.
    flagged = 96 / (3 * 32 * 48 - 96)
    assert by_kind.kinds["logical"] == KindFigures(0.5, pytest.approx((0.05 - flagged) / 0.05))
    assert by_kind.kinds["structural"].image_auroc == 1
    assert by_kind.kinds["structural"].spro < 0.05
    assert list(by_kind.kinds) == ["logical", "structural"]
    assert by_kind.mean.image_auroc == 0.75
    assert by_kind.mean.spro == pytest.approx(sum(k.spro for k in by_kind.kinds.values()) / 2)


@pytest.mark.parametrize(("saturations", "expected"), [(HALF, 1.0), (ALL, 0.5)])
def test_what_saturates_a_defect_is_all_of_it(sample, saturations, expected):
    half = sample("dent", 200)
    truth = np.zeros((32, 48), np.uint8)
    truth[4:12, 0:12] = 255  # the patch of 12 columns begins at the sixth
    write_png(half.masks[0], truth)
    frame = np.zeros((32, 48), np.uint8)
    frame[4:12, 6:12] = 200
    write_png(half.path, frame)
    samples = [saturated(s, saturations) for s in (sample("good", 3), half)]
    # Some good pixels are as dark as the rest of the defect, and all are flagged with it.
    assert evaluate(BrightnessInspector(), samples).by_kind.mean.spro == pytest.approx(expected, abs=0.02)


def test_without_saturations_no_kind_is_apart(sample):
    assert evaluate(BrightnessInspector(), [sample("good", 10), sample("dent", 200)]).by_kind is None


def test_good_images_alone_have_no_kinds(sample):
    assert evaluate(BrightnessInspector(), [saturated(sample("good", 10))]).by_kind is None


def test_a_kind_that_cannot_be_measured_leaves_no_mean(sample):
    bare = saturated(sample("stain", 200, mask=False))
    by_kind = evaluate(BrightnessInspector(), [saturated(sample("dent", 200)), bare]).by_kind
    assert by_kind.kinds == {"dent": KindFigures(None, 1.0), "stain": KindFigures(None, None)}
    assert by_kind.mean == KindFigures(None, None)


@pytest.mark.parametrize("kind", ["good", "dent"])
def test_one_kind_alone_has_no_ranking(sample, kind: str):
    evaluation = evaluate(BrightnessInspector(), [sample(kind, 10), sample(kind, 200)])
    assert (evaluation.image_auroc, evaluation.f1, evaluation.f1_threshold) == (None, None, None)
    assert (evaluation.pixel_auroc is None) == (kind == "good")
    counts = evaluation.confusion
    assert counts.false_reject + counts.true_reject == counts.true_pass + counts.escape == 1


def test_maps_are_compared_at_the_size_of_the_image(sample):
    class Coarse(BrightnessInspector):
        def inspect(self, frame: np.ndarray) -> Inspection:
            whole = super().inspect(frame)
            return Inspection(whole.verdict, whole.reason, whole.score, THRESHOLD, whole.anomaly_map[::2, ::2], 0)

    evaluation = evaluate(Coarse(), [sample("good", 10), sample("dent", 200)])
    assert evaluation.pixel_auroc > 0.95


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(DataError, match="no labelled images"):
        evaluate(BrightnessInspector(), [])


def test_a_damaged_image_is_named(sample, tmp_path: Path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match=r"cut\.png"):
        evaluate(BrightnessInspector(), [sample("good", 10), Sample(tmp_path / "cut.png", "dent")])
