from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from lineward.export import training
from lineward.export.bank import METHODS
from lineward.export.synthetic import render_part
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.bundle import BANK, EMBEDDING, Bundle, decode_bundle
from lineward.runtime.conformal import split_conformal
from lineward.runtime.drift import STATISTICS, measure
from lineward.runtime.errors import CalibrationError, DataError, ImageError, TrainingError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import encode_png, read_image, write_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector

SMALL = Recipe(size=64, rows=64, false_reject_rate=0.3, threshold_method="split")
PATCHES = 64
HELD_OUT = 3  # of a dozen, at that rate


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def run(quiet: Progress) -> Callable[..., bytes]:
    def trained(images: Sequence[Path], held_out: Sequence[Path] = (), **choices: Any) -> bytes:
        return train(images, "part", held_out=held_out, recipe=replace(SMALL, **choices), progress=quiet)

    return trained


@pytest.fixture(scope="module")
def reference(good_images: list[Path], run) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return run(good_images)


def opened(data: bytes) -> Bundle:
    return decode_bundle(data, "the bundle")


def score(bundle: Bundle, paths: Sequence[Path]) -> list[float]:
    inspector = Inspector(bundle)
    return [inspector.inspect(read_image(path)).score for path in paths]


def test_the_same_images_and_seed_give_the_same_bytes(good_images: list[Path], run, reference: bytes):
    assert run(good_images) == reference


def test_order_and_names_of_the_images_do_not_matter(tmp_path: Path, good_images: list[Path], run, reference: bytes):
    order = np.random.default_rng(1).permutation(len(good_images))
    renamed = [tmp_path / f"{'zyx'[i % 3]}{i}.png" for i in range(len(good_images))]
    for path, source in zip(renamed, order, strict=True):
        shutil.copy(good_images[source], path)
    assert run(renamed) == reference


def test_copies_of_an_image_count_once(tmp_path: Path, good_images: list[Path], run, reference: bytes):
    copies = [shutil.copy(path, tmp_path / path.name) for path in good_images[:5]]
    assert run([*good_images, *copies, good_images[0]]) == reference


def test_the_drift_reference_is_what_the_runtime_measures(good_images: list[Path], reference: bytes):
    bundle = opened(reference)
    drift, inspector = bundle.manifest.drift, Inspector(bundle)
    assert drift is not None
    seen = [measure(inspector.inspect(read_image(path))) for path in good_images]
    assert len(drift.score) == len(drift.distance) == HELD_OUT
    for statistic in STATISTICS[:2]:
        all_values = {float(f"{m.of(statistic):.6g}") for m in seen if m is not None}
        assert set(getattr(drift, statistic.value)) < all_values
    for statistic in STATISTICS[2:]:
        expected = sorted(m.of(statistic) for m in seen if m is not None)
        assert getattr(drift, statistic.value) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_another_seed_holds_out_others_and_chooses_another_bank(good_images: list[Path], run, reference: bytes):
    one, other = opened(reference), opened(run(good_images, seed=1))
    assert one.members[BANK] != other.members[BANK]
    assert one.members[EMBEDDING] != other.members[EMBEDDING]
    assert one.manifest.threshold.value != other.manifest.threshold.value
    assert one.manifest.origin.data_sha256 == other.manifest.origin.data_sha256


def test_only_the_time_of_creation_depends_on_the_clock(monkeypatch, good_images: list[Path], run, reference: bytes):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    one, other = opened(reference), opened(run(good_images))
    assert (one.manifest.created, other.manifest.created) == ("2023-11-14T22:13:20Z", "1970-01-01T00:00:00Z")
    assert one.members == other.members
    assert msgspec.structs.replace(other.manifest, created=one.manifest.created) == one.manifest


def test_the_manifest_tells_how_it_came_about(reference: bytes):
    manifest = opened(reference).manifest
    assert (manifest.product, manifest.version, manifest.rows) == ("part", 1, 64)
    assert (manifest.grid.rows, manifest.grid.columns, manifest.grid.dimensions) == (8, 8, 155)
    assert (manifest.preprocessing.width, manifest.preprocessing.height) == (64, 64)
    assert (manifest.score.map_width, manifest.score.map_height, manifest.score.sigma) == (64, 64, 1.0)
    assert (manifest.threshold.false_reject_rate, manifest.threshold.sample_size) == (0.3, HELD_OUT)
    origin = manifest.origin
    assert (origin.backbone, origin.levels, origin.bank_method) == ("efficientnet_lite0", (8, 16), "two-halves")
    assert (origin.images, origin.shrinkage, origin.tau, origin.position) == (12 - HELD_OUT, 1.0, 3.0, 1.0)
    assert origin.seed == 0


def test_held_out_images_have_no_part_in_the_bank(good_images: list[Path], run):
    # A bank of all patches there are knows every image that built it to the bit.
    bank_images = len(good_images) - HELD_OUT
    bundle = opened(run(good_images, bank_method="random", rows=bank_images * PATCHES))
    scores = score(bundle, good_images)
    known = [s for s in scores if s < 1e-5]
    held_out = [s for s in scores if s > 1e-3]
    assert (len(known), len(held_out)) == (bank_images, HELD_OUT)
    assert bundle.manifest.threshold.value == split_conformal(held_out, 0.3)


def test_images_set_apart_by_the_data_set_set_the_threshold(good_images: list[Path], run):
    images, apart = good_images[:7], good_images[7:]
    bundle = opened(run(images, held_out=apart, bank_method="random", rows=7 * PATCHES))
    assert max(score(bundle, images)) < 1e-5
    assert bundle.manifest.threshold.value == split_conformal(score(bundle, apart), 0.3)
    assert (bundle.manifest.origin.images, bundle.manifest.threshold.sample_size) == (7, 5)


@pytest.mark.parametrize(("count", "rate", "needed"), [(0, 0.3, 4), (1, 0.5, 2), (3, 0.3, 4), (12, 0.05, 20)])
def test_too_few_images_are_told_how_many_it_takes(good_images, run, count: int, rate: float, needed: int):
    with pytest.raises(CalibrationError, match=f"^{count} different good images cannot support") as caught:
        run(good_images[:count], false_reject_rate=rate)
    assert f"at least {needed} good images" in caught.value.do


def test_copies_do_not_make_up_for_too_few_images(tmp_path: Path, good_images: list[Path], run):
    copies = [shutil.copy(good_images[0], tmp_path / f"{i}.png") for i in range(20)]
    with pytest.raises(CalibrationError, match=r"^1 different good images"):
        run(copies)
    with pytest.raises(CalibrationError, match=r"^1 held-out good images cannot support"):
        run(good_images[1:], held_out=copies)


def test_too_few_images_set_apart_are_told_how_many_it_takes(good_images: list[Path], run):
    with pytest.raises(CalibrationError, match=r"^2 held-out good images") as caught:
        run(good_images[2:], held_out=good_images[:2])
    assert "at least 3 held-out" in caught.value.do


def test_an_image_on_both_sides_is_refused_by_name(tmp_path: Path, good_images: list[Path], run):
    twin = Path(shutil.copy(good_images[0], tmp_path / "twin.png"))
    with pytest.raises(DataError, match=r"twin\.png: is both a training and a held-out image"):
        run(good_images[:8], held_out=[*good_images[8:], twin])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        *(({"size": size}, f"input of {size} pixels") for size in (0, -64, 32, 65, 100, 250, 4096)),
        *(({"seed": seed}, f"seed of {seed}") for seed in (-1,)),
        *(({"tau": tau}, "a tau of") for tau in (-1.0, math.nan, math.inf)),
        *(({"position": position}, "a position of") for position in (-1.0, math.nan, math.inf)),
        *(({"shrinkage": shrinkage}, "a shrinkage of") for shrinkage in (-1.0, 0.0, math.nan, math.inf)),
        ({"backbone": "resnet"}, "no such backbone"),
        ({"weights": Path("nowhere.pth")}, r"nowhere\.pth"),
        ({"levels": ()}, "no feature levels"),
        ({"levels": (8, 64)}, "no feature levels"),
        ({"dimensions": 153}, "153 dimensions"),
        ({"rows": 1}, "bank of 1 rows"),
        ({"rows": 9 * PATCHES + 1}, "bank of 577 rows"),
        ({"bank_method": "best"}, "no such bank method"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(good_images, run, choices: dict[str, Any], message: str):
    with pytest.raises(TrainingError, match=message):
        run(good_images, **choices)


def test_a_rate_that_makes_no_sense_is_refused(good_images: list[Path], run):
    for rate in (0.0, 1.0, math.nan):
        with pytest.raises(CalibrationError, match="makes no sense"):
            run(good_images, false_reject_rate=rate)


def test_a_damaged_image_is_named(tmp_path: Path, good_images: list[Path], run):
    (tmp_path / "cut.png").write_bytes(good_images[0].read_bytes()[:100])
    with pytest.raises(ImageError, match=r"cut\.png"):
        run([*good_images, tmp_path / "cut.png"])


def test_the_same_picture_in_files_that_differ_is_one_image(tmp_path: Path, run):
    image = render_part(0, size=64).image
    paths = [tmp_path / f"{level}.png" for level in range(6)]
    for level, path in enumerate(paths):
        cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, level])
    with pytest.raises(CalibrationError, match=r"^1 different good images"):
        run(paths)


def test_a_part_that_never_varies_is_no_evidence(tmp_path: Path, run):
    # Pixels that differ by less than preprocessing sees: every image is all in the bank, and scores 0 but for rounding.
    image = cv2.resize(render_part(0, size=64).image, (1024, 1024), interpolation=cv2.INTER_NEAREST)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        image[0, i] = image[0, i] ^ 1
        write_png(path, image)
    with pytest.raises(CalibrationError, match="held-out good images have the same score"):
        run(paths, bank_method="random", rows=3 * PATCHES)


def test_where_images_are_few_each_judges_a_bank_without_it(good_images: list[Path], run):
    bundle = opened(run(good_images, threshold_method="cross", bank_method="random", rows=64))
    threshold, origin = bundle.manifest.threshold, bundle.manifest.origin
    assert (threshold.method, threshold.folds, threshold.sample_size) == ("cross-conformal", 5, 12)
    assert (origin.images, threshold.data_sha256) == (12, origin.data_sha256)
    assert threshold.bound is None


def test_no_image_judges_what_was_learned_from_it(good_images: list[Path], quiet: Progress, monkeypatch):
    learned: list[set[Path]] = []
    judged: list[set[Path]] = []
    learn, score_with = training._learn, training._judge

    def watch_learning(paths, *rest):
        learned.append(set(paths))
        return learn(paths, *rest)

    def watch_judging(inspector, paths, *rest):
        judged.append(set(paths))
        return score_with(inspector, paths, *rest)

    monkeypatch.setattr(training, "_learn", watch_learning)
    monkeypatch.setattr(training, "_judge", watch_judging)
    train(good_images, "part", recipe=replace(SMALL, threshold_method="cross"), progress=quiet)
    final, *folds = learned
    assert len(folds) == len(judged) == 5
    assert final == set(good_images) == set().union(*judged)
    for bank, held_out in zip(folds, judged, strict=True):
        assert bank == set(good_images) - held_out


def test_labelled_defects_are_counted_and_change_nothing_else(
    good_images: list[Path], quiet: Progress, reference: bytes
):
    defects = good_images[:4]
    with_defects = opened(train(good_images, "part", defects=defects, recipe=SMALL, progress=quiet)).manifest
    escapes = with_defects.threshold.escapes
    assert escapes is not None
    passed = sum(s <= with_defects.threshold.value for s in score(opened(reference), defects))
    assert (escapes.defects, escapes.escaped) == (4, passed)
    plain = opened(reference).manifest
    assert msgspec.structs.replace(with_defects.threshold, escapes=None) == plain.threshold
    assert with_defects.members == plain.members


def test_a_promise_with_confidence_is_in_the_manifest(good_images: list[Path], run):
    threshold = opened(run(good_images, false_reject_rate=0.5, confidence=0.9)).manifest.threshold
    assert (threshold.confidence, threshold.sample_size) == (0.9, 4)
    assert threshold.bound is not None
    assert threshold.bound.rate <= 0.5


@pytest.mark.parametrize("method", METHODS)
def test_every_bank_method_makes_a_sound_bundle(good_images: list[Path], run, method: str):
    bundle = opened(run(good_images, bank_method=method))
    check_golden(bundle, Inspector(bundle))
    assert bundle.manifest.origin.bank_method == method


@pytest.mark.parametrize(
    "choices",
    [{"levels": (4, 8, 16)}, {"levels": (16,)}, {"dimensions": 20}, {"tau": 0.0}, {"position": 0.0}, {"size": 96}],
)
def test_other_recipes_make_a_sound_bundle(good_images: list[Path], run, choices: dict[str, Any]):
    bundle = opened(run(good_images, **choices))
    check_golden(bundle, Inspector(bundle))


def images_of(kind: str) -> Iterator[np.ndarray]:
    for seed in range(8):
        image = render_part(seed, size=64).image
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        yield {"gray": gray, "gray 16 bit": gray.astype(np.uint16) << 8, "wide": np.hstack([image, image])}[kind]


@pytest.mark.parametrize("kind", ["gray", "gray 16 bit", "wide"])
def test_images_of_any_depth_and_shape_are_learned(tmp_path: Path, run, kind: str):
    paths = [tmp_path / f"{seed}.png" for seed in range(8)]
    for path, image in zip(paths, images_of(kind), strict=True):
        path.write_bytes(encode_png(image))
    bundle = opened(run(paths))
    check_golden(bundle, Inspector(bundle))
    assert Inspector(bundle).inspect(read_image(paths[0])).score < 0.5


def test_the_golden_images_verify(trained: Bundle):
    results = check_golden(trained, Inspector(trained))
    assert [result.image for result in results] == ["golden/good.png", "golden/defect.png"]
    assert all(result.deviation <= result.tolerance for result in results)


def test_the_planted_golden_defect_is_rejected_and_the_good_one_is_not(trained: Bundle):
    good, defect = trained.manifest.golden
    threshold = trained.manifest.threshold.value
    assert good.image_score <= threshold < defect.image_score


def test_the_bundle_tells_good_parts_from_bad_ones(trained: Bundle, parts: Path):
    inspector = Inspector(trained)
    scores = {
        kind: [inspector.inspect(read_image(path)).score for path in sorted((parts / "test" / kind).iterdir())]
        for kind in ("good", "missing", "extra", "swapped", "stain")
    }
    bad = [s for kind in scores for s in scores[kind] if kind != "good"]
    assert min(bad) > max(scores["good"])


def test_an_unseen_kind_of_picture_is_rejected(trained: Bundle, tmp_path: Path):
    write_png(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    assert Inspector(trained).inspect(read_image(tmp_path / "noise.png")).verdict is Verdict.REJECT


def test_every_step_shows_its_progress(good_images: list[Path]):
    told: dict[str, list[int]] = {}

    class Watched:
        @contextlib.contextmanager
        def step(self, name: str, total: int):
            told[name] = [total]
            yield told[name].append

    train(good_images, "part", recipe=SMALL, progress=Watched())
    assert list(told) == ["read images", "learn statistics", "choose the bank", "embed images", "score held-out images"]
    for total, *done in told.values():
        assert done == sorted(done)
        assert done[-1] == total
