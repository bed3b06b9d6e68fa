from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lineward.export.adaptation import adapt, admission_limit
from lineward.export.bank.farthest_point import greatest_similarity
from lineward.export.held_out import plan_calibration
from lineward.export.synthetic import render_part
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.errors import CalibrationError, ImageError, TrainingError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import decode_image, read_image, write_png
from lineward.runtime.inspector import Inspector

RECIPE = Recipe(size=64, rows=128, false_reject_rate=0.2, threshold_method="split")
Shade = Callable[[np.ndarray], np.ndarray]


def parts(folder: Path, seeds: range, shade: Shade = lambda image: image) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{seed:03d}.png" for seed in seeds]
    for seed, path in zip(seeds, paths, strict=True):
        write_png(path, shade(render_part(seed, size=64).image))
    return paths


def redder(image: np.ndarray) -> np.ndarray:
    return (image * np.array([1.0, 0.7, 0.7])).astype(np.uint8)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return parts(tmp_path_factory.mktemp("old"), range(24))


@pytest.fixture(scope="module")
def shade(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return parts(tmp_path_factory.mktemp("new"), range(100, 124), redder)


@pytest.fixture(scope="module")
def before(learned: list[Path], quiet: Progress) -> Bundle:
    return decode_bundle(train(learned, "part", recipe=RECIPE, progress=quiet), "before")


def score(bundle: Bundle, paths: list[Path]) -> np.ndarray:
    inspector = Inspector(bundle)
    return np.array([inspector.inspect(read_image(path)).score for path in paths])


def test_the_new_shade_is_accepted_and_the_old_one_still_is(before: Bundle, shade, learned, tmp_path, quiet):
    adapted = adapt(before, shade, progress=quiet)
    after = adapted.bundle
    fresh = parts(tmp_path / "fresh", range(200, 220), redder)
    assert np.mean(score(before, fresh) > before.manifest.threshold.value) > 0.9
    # A threshold from four held-out images keeps a rate of 0.2 on average; its own is Beta(1, 4): 0.75 in 1 of 256.
    assert np.mean(score(after, fresh) > after.manifest.threshold.value) < 0.75
    assert adapted.rejected_before > adapted.rejected_after
    assert (score(after, learned) <= score(before, learned) + 1e-5).all()
    assert after.manifest.threshold.value == max(before.manifest.threshold.value, adapted.own.value)


def test_the_bank_keeps_its_rows_and_gains_only_what_is_far(before: Bundle, shade: list[Path], quiet: Progress):
    adapted = adapt(before, shade, progress=quiet)
    count = len(before.bank)
    np.testing.assert_array_equal(adapted.bundle.bank[:count], before.bank)
    added = adapted.bundle.bank[count:]
    assert 0 < len(added) <= count // 2
    limit = admission_limit(before.bank)
    for i, row in enumerate(added):
        assert greatest_similarity(row[np.newaxis], adapted.bundle.bank[: count + i])[0] < limit + 1e-6


def test_images_that_built_the_bank_add_nothing(before: Bundle, learned: list[Path], quiet: Progress):
    built_it = [path for path, _ in plan_calibration(learned, (), RECIPE.promise).bank]
    assert len(built_it) == 20
    adapted = adapt(before, built_it, progress=quiet)
    assert len(adapted.bundle.bank) == len(before.bank)
    assert adapted.bundle.manifest.threshold == before.manifest.threshold


def test_the_manifest_tells_what_was_added_to_what(before: Bundle, shade: list[Path], quiet: Progress):
    adapted = adapt(before, shade, seed=3, progress=quiet)
    manifest = adapted.bundle.manifest
    assert (manifest.version, manifest.product) == (2, "part")
    assert before.manifest.drift is not None
    assert manifest.drift is None  # what was usual before is not what is usual now
    assert manifest.rows == len(adapted.bundle.bank)
    (addition,) = manifest.origin.additions
    assert (addition.bundle_sha256, addition.seed) == (before.sha256, 3)
    assert addition.images == len(adapted.plan.bank) == 20
    assert manifest.origin.images == before.manifest.origin.images + 20
    assert addition.rows == len(adapted.bundle.bank) - len(before.bank)
    again = adapt(adapted.bundle, shade, progress=quiet).bundle.manifest
    assert again.version == 3
    assert [a.bundle_sha256 for a in again.origin.additions] == [before.sha256, adapted.bundle.sha256]


def test_the_adapted_bundle_verifies(before: Bundle, shade: list[Path], quiet: Progress):
    after = adapt(before, shade, version=7, progress=quiet).bundle
    check_golden(after, Inspector(after))
    assert after.manifest.version == 7
    assert after.signatures == ()


def test_held_out_images_judge_and_are_not_admitted(before: Bundle, shade: list[Path], quiet: Progress):
    adapted = adapt(before, shade, progress=quiet)
    apart = [path for path, _ in adapted.plan.held_out]
    assert {path for path, _ in adapted.plan.bank}.isdisjoint(apart)
    assert adapted.own.sample_size == len(apart) == 4
    assert adapted.own.value == pytest.approx(sorted(score(adapted.bundle, apart))[3], abs=1e-6)


def test_few_images_are_judged_in_folds(before: Bundle, shade: list[Path], quiet: Progress):
    adapted = adapt(before, shade[:10], progress=quiet)
    assert (adapted.own.method, adapted.own.folds, adapted.own.sample_size) == ("cross-conformal", 5, 10)
    assert len(adapted.plan.bank) == 10


def test_what_escaped_the_old_bank_is_not_told_of_the_new_one(learned: list[Path], shade, quiet):
    counted = decode_bundle(train(learned, "part", defects=shade[:3], recipe=RECIPE, progress=quiet), "with escapes")
    assert counted.manifest.threshold.escapes is not None
    assert adapt(counted, shade, progress=quiet).bundle.manifest.threshold.escapes is None


def test_images_of_a_known_defect_are_refused(before: Bundle, tmp_path: Path, quiet: Progress):
    defect = decode_image(before.members["golden/defect.png"], "defect")
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for i, path in enumerate(paths):
        write_png(path, np.clip(defect.astype(int) + i, 0, 255).astype(np.uint8))
    with pytest.raises(CalibrationError, match=r"would pass golden/defect\.png"):
        adapt(before, paths, progress=quiet)


@pytest.mark.parametrize("method", ["k-means", "random"])
def test_a_bank_without_farthest_points_has_no_rule(learned: list[Path], shade, quiet: Progress, method: str):
    recipe = replace(RECIPE, bank_method=method)
    bundle = decode_bundle(train(learned, "part", recipe=recipe, progress=quiet), method)
    with pytest.raises(TrainingError, match=f"a bank by {method} has no farthest points"):
        adapt(bundle, shade, progress=quiet)


def test_a_version_that_does_not_follow_is_refused(before: Bundle, shade: list[Path], quiet: Progress):
    with pytest.raises(TrainingError, match="version 1 does not follow 1"):
        adapt(before, shade, version=1, progress=quiet)


def test_too_few_images_are_refused(before: Bundle, shade: list[Path], quiet: Progress):
    with pytest.raises(CalibrationError, match=r"3 .*good images cannot support"):
        adapt(before, [*shade[:3], *shade[:3]], progress=quiet)


def test_an_image_of_another_size_is_refused(before: Bundle, shade: list[Path], tmp_path: Path, quiet: Progress):
    write_png(tmp_path / "odd.png", render_part(0, size=72).image)
    with pytest.raises(ImageError, match="72x72 pixels in colour"):
        adapt(before, [*shade, tmp_path / "odd.png"], progress=quiet)


def test_a_tail_cannot_be_adapted_with_few_images(before: Bundle, rebundle_of, shade: list[Path], quiet: Progress):
    rare = msgspec.structs.replace(before.manifest.threshold, false_reject_rate=0.001)
    with pytest.raises(CalibrationError, match=r"cannot support a false-reject rate of 0\.001"):
        adapt(rebundle_of(before, threshold=rare), shade, progress=quiet)


@pytest.fixture
def rebundle_of() -> Callable[..., Bundle]:
    from lineward.runtime.bundle import encode_bundle

    return lambda bundle, **fields: decode_bundle(
        encode_bundle(msgspec.structs.replace(bundle.manifest, **fields), bundle.members), "changed"
    )


def test_it_needs_no_torch():
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'sklearn', 'scipy', 'jinja2'): sys.modules[name] = None\n"
        "import lineward.export.commands.adapt"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
