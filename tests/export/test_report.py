from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from lineward.calibration.metrics import confusion_at, f1_max, image_auroc
from lineward.export.datasets import Sample, open_dataset
from lineward.export.evaluation import ByKind, Evaluation, KindFigures, Result
from lineward.export.report import write_report
from lineward.export.synthetic import render_part, write_dataset
from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import write_png
from lineward.runtime.inspection import Inspection, decide
from lineward.runtime.manifest import FORMAT, Grid, Manifest, Origin, Score, Threshold
from lineward.runtime.preprocessing import Preprocessing
from tests.html_page import Page

THRESHOLD = 0.25
HOSTILE = "<img src=x onerror=alert(1)>&\"'{{ 7 * 7 }}\u202e\n.png"


@dataclass(frozen=True)
class Bundle:
    manifest: Manifest
    sha256: str = "b" * 64


@dataclass(frozen=True)
class Inspector:
    """Stands in for the real one: finds every image as anomalous in one corner as it is told."""

    bundle: Bundle
    inspected: list[tuple[int, ...]] = field(default_factory=list)

    def inspect(self, frame):
        self.inspected.append(frame.shape)
        heat = np.zeros((64, 64), np.float32)
        heat[:16, :16] = 2 * THRESHOLD
        return Inspection(*decide(0.5, THRESHOLD), 0.5, THRESHOLD, heat, 0.001)


def manifest(**changes):
    made = Manifest(
        format=FORMAT,
        product="gearbox cover",
        version=7,
        created="2025-01-02T03:04:05Z",
        members={},
        preprocessing=Preprocessing(width=256, height=256),
        grid=Grid(32, 32, 153),
        rows=2048,
        score=Score(256, 256, 4.0),
        threshold=Threshold(THRESHOLD, 0.05, "split-conformal", 23, 11),
        origin=Origin(
            "efficientnet_lite0", "c" * 64, (8, 16), 1.0, 3.0, 1.0, "two-halves", 180, "d" * 64, 11, {"numpy": "2.1.0"}
        ),
        golden=(),
        golden_tolerance=0.001,
    )
    return msgspec.structs.replace(made, **changes)


def evaluation(samples, scores, *, pixels=True):
    """What `evaluate` would give for these scores, in 1 ms, 2 ms, and so on."""
    results = tuple(
        Result(sample, score, decide(score, THRESHOLD)[0], 0.001 * place)
        for place, (sample, score) in enumerate(zip(samples, scores, strict=True), 1)
    )
    values, labels = np.array(scores), np.array([s.defective for s in samples])
    both = labels.any() and not labels.all()
    f1, f1_threshold = f1_max(values, labels) if both else (None, None)
    return Evaluation(
        results,
        THRESHOLD,
        image_auroc(values, labels) if both else None,
        f1,
        f1_threshold,
        0.98765 if pixels else None,
        0.87654 if pixels else None,
        confusion_at(values, labels, THRESHOLD),
    )


def report(folder, evaluated, *, inspector=None, **options):
    path = folder / "report.html"
    write_report(path, inspector or Inspector(Bundle(manifest())), evaluated, **options)
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Four good parts, three scratched and three stained ones."""
    root = tmp_path_factory.mktemp("parts")
    write_dataset(root, train=0, test_good=4, per_defect=3, size=64, kinds=("scratch", "stain"))
    return open_dataset(root).test


@pytest.fixture(scope="module")
def evaluated(samples):
    return evaluation(samples, [0.11, 0.12, 0.13, 0.31, 0.14, 0.15, 0.41, 0.42, 0.43, 0.44])


@pytest.fixture(scope="module")
def page(evaluated, tmp_path_factory):
    return report(tmp_path_factory.mktemp("report"), evaluated)


def test_says_the_outcome_in_one_sentence(page):
    assert "3 of 4 good parts passed, 1 rejected; 4 of 6 defective parts rejected, 2 escaped." in page.text


def test_needs_nothing_from_outside(page, evaluated, tmp_path):
    report(tmp_path, evaluated)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<iframe|<object", html, re.IGNORECASE)
    for _, attributes in page.elements:
        assert all(attributes[name].startswith("data:") for name in ("src", "href") if name in attributes)
        assert not any(name.startswith("on") for name in attributes)


@pytest.mark.parametrize(
    "shown",
    [
        "gearbox cover bundle version 7",
        "Image AUROC 0.9167",
        "F1max 0.9231 at a threshold of 0.1300; the bundle's own gives 0.7273",
        "Pixel AUROC 0.9877",
        "AUPRO@0.3 0.8765",
        "False-reject promise at most 5% by split-conformal on 23 good images",
        "Time per image 5.5 ms median from frame to verdict, greatest 10.0 ms",
        "at the bundle's threshold of 0.2500",
        "Good 3 1 false-reject rate 25.0%",
        "Defective 2 4 escape rate 33.3%",
        "scratch 3 1 2 0.1500 stain 3 3 0 0.4300 good 4 1 \N{EN DASH} 0.1250",
        "Bundle SHA-256 " + "b" * 64,
        "efficientnet_lite0, feature levels at strides 8, 16",
        "Weights SHA-256 " + "c" * 64,
        "2048 rows of 153 dimensions, chosen by two-halves from 180 good images",
        "Seed 11",
        "Data fingerprint " + "d" * 64,
        "Made with numpy 2.1.0",
    ],
)
def test_shows(shown, page):
    assert shown in page.text


def test_pictures_wrong_verdicts_worst_first_then_clear_ones(page):
    shown = re.findall(r"(\w+) / (\d+\.png) (\w+) , score (\d\.\d+), threshold 0.2500", page.text)
    assert shown == [
        ("good", "003.png", "reject", "0.3100"),
        ("scratch", "000.png", "pass", "0.1400"),
        ("scratch", "001.png", "pass", "0.1500"),
        ("stain", "002.png", "reject", "0.4400"),
        ("stain", "001.png", "reject", "0.4300"),
        ("stain", "000.png", "reject", "0.4200"),
        ("scratch", "002.png", "reject", "0.4100"),
        ("good", "000.png", "pass", "0.1100"),
        ("good", "001.png", "pass", "0.1200"),
        ("good", "002.png", "pass", "0.1300"),
    ]


def test_pictures_at_most_the_worst(evaluated, tmp_path):
    page = report(tmp_path, evaluated, worst=1)
    assert "scratch / 000.png" in page.text
    assert "scratch / 001.png" not in page.text
    assert "Defective parts that escaped 2 of 6, lowest score first, 1 shown" in page.text
    assert "/ 003.png" not in report(tmp_path, evaluated, worst=0).text


def test_each_card_has_photo_and_map_and_a_defect_its_outline(page):
    assert len(page.pictures("Photo")) == len(page.pictures("Anomaly map")) == 10
    assert len(page.pictures("Ground truth")) == 6
    photo, heat = page.pictures("Photo")[0], page.pictures("Anomaly map")[0]
    changed = np.abs(photo.astype(int) - heat).max(2) > 40
    assert changed[:16, :16].any()
    assert not changed[24:, 24:].any()


def test_outlines_the_ground_truth(tmp_path):
    frame = np.full((100, 200), 128, np.uint8)
    mask = np.zeros_like(frame)
    mask[20:60, 40:120] = 255
    write_png(tmp_path / "part.png", frame)
    write_png(tmp_path / "mask.png", mask)
    sample = Sample(tmp_path / "part.png", "dent", (tmp_path / "mask.png",))
    (outlined,) = report(tmp_path, evaluation([sample], [0.1])).pictures("Ground truth")
    blue = outlined[:, :, 2].astype(int) - outlined[:, :, 0] > 100
    rows, columns = np.nonzero(blue)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 59, 40, 119)
    assert not blue[25:55, 45:115].any()


@pytest.mark.parametrize("deep", [False, True])
def test_shrinks_pictures_but_inspects_the_image_itself(deep, tmp_path):
    frame = render_part(1, size=648).image[:324]
    cv2.imwrite(str(tmp_path / "part.png"), frame.astype(np.uint16) << 8 if deep else frame)
    inspector = Inspector(Bundle(manifest()))
    page = report(tmp_path, evaluation([Sample(tmp_path / "part.png", "good")], [0.1]), inspector=inspector)
    assert inspector.inspected == [(324, 648, 3)]
    assert [p.shape for p in page.pictures()] == [(160, 320, 3)] * 2
    assert abs(page.pictures()[0].mean() - frame.mean()) < 2


def test_no_histogram_bar_straddles_the_threshold(page):
    limits = [float(line["x1"]) for line in page.all("line")]
    assert len(limits) == 2
    bars = page.all("rect")
    assert all(float(b["x"]) + float(b["width"]) <= limits[0] or float(b["x"]) >= limits[0] for b in bars)
    assert sum(int(b["height"]) for b in bars) == 10
    assert sum(int(b["height"]) for b in bars if b["class"] == "bar bad") == 3


@pytest.mark.parametrize("score", [THRESHOLD, math.nextafter(THRESHOLD, 1), math.nextafter(THRESHOLD, 0)])
def test_a_score_at_the_threshold_is_drawn_as_it_was_decided(score, samples, tmp_path):
    (bar,) = report(tmp_path, evaluation(samples[:1], [score])).all("rect")
    assert ("bad" in bar["class"]) == (score > THRESHOLD)


def test_counts_a_part_without_a_score_as_rejected(samples, tmp_path):
    page = report(tmp_path, evaluation(samples, [0.11, 0.12, 0.13, math.nan, *[math.nan] * 6]))
    assert "Not drawn: 7 without a score" in page.text
    assert "good / 003.png reject , score no score" in page.text
    assert "scratch 3 3 0 no score" in page.text
    assert len(page.all("svg")) == 2


def test_a_part_without_a_score_comes_before_the_highest(samples, tmp_path):
    page = report(tmp_path, evaluation(samples[:4], [0.3, math.nan, 0.4, 0.2]))
    assert re.findall(r"good / (\d+)", page.text) == ["001", "002", "000", "003"]
    assert "good 4 3 \N{EN DASH} 0.3500" in page.text


def test_says_what_was_not_measured_without_masks(samples, tmp_path):
    bare = [replace(s, masks=()) for s in samples]
    page = report(tmp_path, evaluation(bare, [0.1] * 5 + [0.4] * 5, pixels=False))
    assert "Pixel AUROC not measured (no masks)" in page.text
    assert "AUPRO@0.3 not measured (no masks)" in page.text
    assert page.pictures("Ground truth") == []


BY_KIND = ByKind({"scratch": KindFigures(0.91, 0.61), "stain": KindFigures(0.93, 0.65)}, KindFigures(0.92, 0.63))


@pytest.mark.parametrize(
    "shown",
    [
        "Image AUROC 0.9167",
        "Image AUROC by kind 0.9200 mean of scratch, stain, each against all good parts",
        "sPRO@0.05 0.6300 share found",
        "Median score Image AUROC sPRO@0.05 scratch 3 1 2 0.1500 0.9100 0.6100 stain 3 3 0 0.4300 0.9300 0.6500",
        "good 4 1 \N{EN DASH} 0.1250 \N{EN DASH} \N{EN DASH} How to read",
    ],
)
def test_shows_what_is_measured_by_kind(shown, evaluated, tmp_path):
    assert shown in report(tmp_path, replace(evaluated, by_kind=BY_KIND)).text


def test_says_what_is_not_measured_by_kind(evaluated, tmp_path):
    nothing = KindFigures(None, None)
    page = report(tmp_path, replace(evaluated, by_kind=ByKind({"scratch": nothing, "stain": nothing}, nothing)))
    assert "Image AUROC by kind not measured (no good parts)" in page.text
    assert "sPRO@0.05 not measured (no masks)" in page.text
    assert "scratch 3 1 2 0.1500 \N{EN DASH} \N{EN DASH} stain" in page.text


def test_shows_nothing_by_kind_of_data_without_saturations(page):
    assert "sPRO" not in page.text
    assert "by kind" not in page.text


def test_without_defective_parts(samples, tmp_path):
    page = report(tmp_path, evaluation(samples[:4], [0.1, 0.1, 0.1, 0.1], pixels=False))
    assert "4 of 4 good parts passed; no defective parts were inspected." in page.text
    assert "Image AUROC not measured (no defective parts)" in page.text
    assert "F1max not measured (no defective parts)" in page.text
    assert "escape rate not measured" in page.text
    assert "Defective parts" not in page.text
    assert len(page.all("svg")) == 1


def test_without_good_parts(samples, tmp_path):
    page = report(tmp_path, evaluation(samples[4:], [0.4] * 6))
    assert "No good parts were inspected; 6 of 6 defective parts rejected, none escaped." in page.text
    assert "Image AUROC not measured (no good parts)" in page.text
    assert "false-reject rate not measured" in page.text
    assert len(page.all("svg")) == 1


def test_hostile_names_are_only_text(samples, tmp_path):
    folder = tmp_path / HOSTILE
    folder.mkdir()
    path = folder / HOSTILE
    path.write_bytes(samples[4].path.read_bytes())
    tools = {"</td><script>": HOSTILE}
    named = manifest(product=HOSTILE, origin=msgspec.structs.replace(manifest().origin, tools=tools))
    evaluated = evaluation([Sample(path, HOSTILE)], [0.4])
    page = report(tmp_path, evaluated, inspector=Inspector(Bundle(named)))
    legible = HOSTILE.replace("\u202e", r"\u202e").replace("\n", r"\n")
    assert page.text.count(legible) >= 5
    assert {img["src"][:5] for img in page.all("img")} == {"data:"}
    assert page.all("script") == []
    assert "\u202e" not in page.text


def test_a_name_that_is_not_unicode_is_spelled_out(samples, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/part-\xff.png"))
    path.write_bytes(samples[0].path.read_bytes())
    assert r"part-\udcff.png" in report(tmp_path, evaluation([Sample(path, "good")], [0.1])).text


def test_same_evaluation_same_bytes(evaluated, tmp_path):
    reports = [tmp_path / "1.html", tmp_path / "2.html"]
    for path in reports:
        write_report(path, Inspector(Bundle(manifest())), evaluated)
    assert reports[0].read_bytes() == reports[1].read_bytes()


def test_an_image_without_a_map_is_shown_as_it_is(samples, tmp_path):
    @dataclass(frozen=True)
    class Blind(Inspector):
        def inspect(self, frame):  # noqa: ARG002
            return Inspection(*decide(math.nan, THRESHOLD), math.nan, THRESHOLD, None, 0.0)

    page = report(tmp_path, evaluation(samples[:1], [math.nan]), inspector=Blind(Bundle(manifest())))
    photo, heat = page.pictures()
    assert np.array_equal(photo, heat)


def test_refuses_a_place_it_cannot_write_to(evaluated, tmp_path):
    with pytest.raises(DataError, match="report cannot be written"):
        report(tmp_path / "missing", evaluated)


def test_refuses_a_negative_number_of_pictures(evaluated, tmp_path):
    with pytest.raises(DataError, match="ask for 0 or more"):
        report(tmp_path, evaluated, worst=-1)


def test_names_a_picture_that_has_gone(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png"):
        report(tmp_path, evaluation([Sample(tmp_path / "gone.png", "good")], [0.1]))
