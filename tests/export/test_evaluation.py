from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lineward.export.datasets import Sample
from lineward.export.evaluation import evaluate
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
