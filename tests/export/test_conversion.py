"""Bundles in lower precisions, and the gate: what passes, what does not, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from lineward.export import quantisation, training
from lineward.export.backbones import Backbone
from lineward.export.conversion import (
    FLOAT16,
    FLOAT32,
    GOLDEN_TOLERANCE,
    INT8,
    LABELLED,
    PLANTED,
    Converted,
    Judged,
    check_conversion,
    to_half,
)
from lineward.export.held_out import plan_calibration
from lineward.export.planting import KINDS
from lineward.export.quantisation import Calibration
from lineward.export.synthetic import render_part
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.bundle import EMBEDDING, Bundle, decode_bundle
from lineward.runtime.cli.info import describe
from lineward.runtime.errors import TrainingError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import write_png
from lineward.runtime.inspector import Inspector
from tests import embedding_graphs as graphs

SMALL = Recipe(size=64, rows=64, false_reject_rate=0.3, threshold_method="split", max_drop=0.1)
CONVERTED = Converted(b"", costly=("stem (0.01)", "stages.0 (0.002)"), float32_layers=("stem",))


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("defects")
    paths = [folder / f"{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        write_png(path, render_part(100 + seed, ("missing", "stain", "chip")[seed % 3], size=64).image)
    return paths


def opened(images: list[Path], progress: Progress, recipe: Recipe, defects: list[Path] = []) -> Bundle:  # noqa: B006
    return decode_bundle(train(images, "part", defects=defects, recipe=recipe, progress=progress), "part")


@pytest.mark.parametrize("precision", [FLOAT16, INT8])
def test_a_bundle_in_a_lower_precision_says_what_it_cost(
    precision: str, good_images: list[Path], defects: list[Path], quiet: Progress
) -> None:
    bundle = opened(good_images, quiet, replace(SMALL, precision=precision), defects)
    conversion = bundle.manifest.conversion
    assert conversion is not None
    assert (conversion.precision, conversion.evidence) == (precision, LABELLED)
    assert (conversion.good, conversion.defects) == (3, 6)
    assert conversion.float32_auroc - conversion.auroc <= conversion.max_drop == 0.1
    assert abs(conversion.threshold - conversion.float32_threshold) < 0.1
    assert bool(conversion.float32_layers) == (precision == INT8)
    told = dict(describe(bundle.manifest))
    assert told["precision"].startswith(precision)
    assert "3 good images and 6 labelled defects" in told["cost of it"]
    graph = onnx.load_from_string(bundle.members[EMBEDDING]).graph
    types = {tensor.data_type for tensor in graph.initializer}
    assert (TensorProto.FLOAT16 if precision == FLOAT16 else TensorProto.INT8) in types
    assert bundle.manifest.golden_tolerance == GOLDEN_TOLERANCE[precision]
    assert all(result.deviation < 1e-5 for result in check_golden(bundle, Inspector(bundle)))


def test_float32_has_nothing_to_say(trained: Bundle) -> None:
    assert trained.manifest.conversion is None
    assert not {"precision", "cost of it"} & dict(describe(trained.manifest)).keys()


def test_without_defects_some_are_planted_and_with_folds_the_first_is_held_out(
    good_images: list[Path], backbone: Backbone, quiet: Progress
) -> None:
    recipe = replace(SMALL, precision=FLOAT16, threshold_method="cross", max_drop=1.0)
    plan = plan_calibration(good_images, [], recipe.promise)
    sight = training._sight(recipe, good_images[0])
    learned = training._learn([path for path, _ in plan.bank], backbone, recipe, sight, quiet)
    conversion = training._conversion(learned, plan, [], backbone, recipe, sight, quiet)
    assert conversion is not None
    assert conversion.evidence == PLANTED
    assert conversion.good == len(plan.folds[0])
    assert conversion.defects == len(KINDS) * conversion.good


def test_a_bad_calibration_is_refused_and_layers_named(
    monkeypatch: pytest.MonkeyPatch, good_images: list[Path], defects: list[Path], quiet: Progress
) -> None:
    def bad(graph: bytes, images: NDArray[np.uint8], *_: object) -> Calibration:
        """Ranges a hundredth of what they are, and no layer left out."""
        layers = quantisation._layers(graph, images)
        return Calibration(tuple(replace(layer, scale=layer.scale / 100) for layer in layers), 0)

    monkeypatch.setattr(training, "calibrate", bad)
    with pytest.raises(
        TrainingError, match=r"int8 costs 0\.\d+ of image AUROC .* 3 good images, 6 labelled"
    ) as refused:
        opened(good_images, quiet, replace(SMALL, precision=INT8, max_drop=0.01), defects)
    assert "the layers that cost most: stem (0), stages.0/stages.0.0/layers/layers.0/conv" in str(refused.value)


def judged(converted: list[float]) -> Judged:
    return Judged(np.array([0.1, 0.2, 0.3, 0.4]), np.array(converted), np.array([False, False, True, True]), PLANTED)


@pytest.mark.parametrize(
    ("converted", "max_drop", "passes"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.0, True),
        ([0.5, 0.6, 0.7, 0.8], 0.0, True),  # all shifted: the order is what counts
        ([0.1, 0.3, 0.2, 0.4], 0.25, True),
        ([0.1, 0.3, 0.2, 0.4], 0.2499, False),
        ([0.4, 0.3, 0.2, 0.1], 0.9, False),
        ([0.2, 0.2, 0.2, 0.2], 0.49, False),
    ],
)
def test_the_gate(converted: list[float], max_drop: float, passes: bool) -> None:
    if passes:
        conversion = check_conversion(judged(converted), INT8, CONVERTED, 0.5, max_drop)
        assert (conversion.float32_threshold, conversion.threshold) == (0.2, max(converted[:2]))
        assert conversion.float32_layers == ("stem",)
    else:
        with pytest.raises(TrainingError, match=r"int8 costs .*the layers that cost most: stem \(0\.01\), stages\.0"):
            check_conversion(judged(converted), INT8, CONVERTED, 0.5, max_drop)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(4))
def test_a_score_that_is_no_number_is_refused_whatever_may_be_lost(value: float, place: int) -> None:
    scores = [0.1, 0.2, 0.3, 0.4]
    scores[place] = value
    with pytest.raises(TrainingError, match="no finite score for 1 of 4 images"):
        check_conversion(judged(scores), INT8, CONVERTED, 0.5, 1.0)


def test_activations_beyond_float16_are_told_before_a_bank_is_built() -> None:
    writer = graphs.GraphWriter()
    x = writer.conv(graphs.pixels(writer), (3, 8), 3, stride=8)
    x = writer.node("Mul", x, writer.constant(6e4))
    x = writer.node("Mul", x, writer.constant(6e4))
    writer.unit_rows(writer.whitened_and_lifted(x, 8, lift=2.0))
    images = np.full((1, graphs.SIDE, graphs.SIDE, 3), 255, np.uint8)
    with pytest.raises(TrainingError, match=r"float16 ends at 65,504, .*Mul.* \(up to inf\)"):
        to_half(writer.model().SerializeToString(), images)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"precision": "int4"}, "int4: no such precision"),
        ({"max_drop": -0.1}, "a drop of -0.1"),
        ({"max_drop": float("nan")}, "a drop of nan"),
        ({"max_drop": 1.5}, "a drop of 1.5"),
    ],
)
def test_choices_that_make_no_sense(choice, told: str, good_images: list[Path], quiet: Progress) -> None:
    with pytest.raises(TrainingError, match=told):
        train(good_images, "part", recipe=replace(SMALL, **choice), progress=quiet)


def test_the_precisions_are_float32_unless_asked_for() -> None:
    assert Recipe().precision == FLOAT32
