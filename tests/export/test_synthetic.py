from __future__ import annotations

import hashlib
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.export import synthetic
from lineward.export.synthetic import DEFECTS, LOGICAL, STRUCTURAL, Part, render_part, write_dataset
from lineward.runtime.errors import DataError

HASHES = {
    (0, "good", 256): "7db1a956baddddf1d0eb3f0b13a376fc65d1dfa4a0b28bbb65e5f1204bf238b4",
    (1, "scratch", 256): "b6d4ac601702c6302539514403a6177c88fd6b6df233fb90136eb51fdf82d236",
    (2, "stain", 256): "c387e7823fc8d7eb4f8101afcbd5d40fbb612af47c6e3220548d5584c325a7ab",
    (3, "chip", 256): "a71a80a409f6a506af57bf1f20575ebaac73b2b7181ad175f8988569d68e4247",
    (4, "missing", 256): "092539f7b530e33b870c08457834d8bdde1c2f512ef228d993b84ecd270cf4e9",
    (5, "extra", 256): "71baea08721d93530f39e3bd4136de5fbe5bfec25ca068fabf9dc855e2b7d077",
    (6, "swapped", 256): "45e5d068467934d9cbbd904bd8e1a3de8df836e4c6e17106a761e9e565e8a463",
    (7, "good", 64): "4f826f75265efd04ed8d843840a3362510854347bc15f2d4d228d171630c6e2e",
    (18446744073709551615, "scratch", 120): "7e719b12b73487df35a0709001a5caf0dec3d390758fc910a7d99b937efa7c1d",
    (4294967296, "chip", 512): "b1302da430ddaad847651dd1a7b74e9d1d92f3be4ecc832a83ca5d23c0972e0b",
}

# Smallest and largest share of the image, in percent, that a mask may cover.
AREA = {
    "scratch": (0.1, 1.2),
    "stain": (0.3, 4),
    "chip": (0.1, 1.5),
    "missing": (0.8, 12),
    "extra": (0.8, 3),
    "swapped": (3, 5),
}


def digest(part: Part) -> str:
    return hashlib.sha256(part.image.tobytes() + part.mask.tobytes()).hexdigest()


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """Connected regions of a mask, each as a mask, from top to bottom."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    return [labels == label for label in range(1, count)]


@pytest.mark.parametrize(("seed", "kind", "size"), HASHES)
def test_bytes_are_the_same_on_every_machine(seed: int, kind: str, size: int):
    assert digest(render_part(seed, kind, size)) == HASHES[seed, kind, size]


def test_no_sine_lies_where_another_libm_could_round_it_otherwise():
    fractions = [65536 * math.sin(math.radians(tenths / 10)) % 1 for tenths in range(3600)]
    assert min(abs(fraction - 0.5) for fraction in fractions) > 1e-9


def test_sine_and_cosine():
    assert [synthetic._sin(tenths) for tenths in (0, 300, 900, 1800, 2700, -900)] == [
        0,
        32768,
        65536,
        0,
        -65536,
        -65536,
    ]
    assert [synthetic._cos(tenths) for tenths in (0, 600, 900, 1800)] == [65536, 32768, 0, -65536]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    kind=st.sampled_from(DEFECTS),
    size=st.sampled_from([64, 72, 96, 128, 256]),
)
def test_a_defect_changes_what_its_mask_covers_and_nothing_else(seed: int, kind: str, size: int):
    good, part = render_part(seed, "good", size), render_part(seed, kind, size)
    assert (good.kind, part.kind) == ("good", kind)
    for each in (good, part):
        assert (each.image.shape, each.image.dtype) == ((size, size, 3), np.uint8)
        assert (each.mask.shape, each.mask.dtype) == ((size, size), np.bool_)
    assert not good.mask.any()
    smallest, largest = AREA[kind]
    assert smallest <= 100 * part.mask.mean() <= largest
    changed = (good.image != part.image).any(axis=2)
    assert not changed[~part.mask].any()
    assert changed[part.mask].mean() > 0.6


@pytest.mark.parametrize("seed", range(8))
def test_a_missing_component_is_one_region(seed: int):
    assert len(regions(render_part(seed, "missing").mask)) == 1


@pytest.mark.parametrize("seed", range(8))
def test_an_extra_component_lies_on_the_plate_and_touches_no_other(seed: int):
    good, part = render_part(seed), render_part(seed, "extra")
    assert len(regions(part.mask)) == 1
    # Where it is planted, the good part is bare metal: grey, and nowhere dark.
    bare = good.image[part.mask].astype(int)
    assert np.median(np.ptp(bare, axis=1)) < 20
    assert np.percentile(bare, 1) > 60


@pytest.mark.parametrize("seed", range(8))
def test_swapped_components_exchange_their_colours(seed: int):
    good, part = render_part(seed), render_part(seed, "swapped")
    first, second = regions(part.mask)
    before = [good.image[region].mean(axis=0) for region in (first, second)]
    after = [part.image[region].mean(axis=0) for region in (first, second)]
    np.testing.assert_allclose(after, before[::-1], atol=16)
    assert np.abs(before[0] - before[1]).max() > 32


@pytest.mark.parametrize("seed", range(10))
def test_a_stain_darkens(seed: int):
    assert (render_part(seed, "stain").image <= render_part(seed).image).all()


@pytest.mark.parametrize("seed", range(10))
def test_a_chip_lies_at_the_edge_and_shows_the_dark_background(seed: int):
    good, part = render_part(seed), render_part(seed, "chip")
    assert np.percentile(part.image[part.mask], 15) < 60
    rows, columns = np.nonzero(cv2.dilate(part.mask.astype(np.uint8), np.ones((7, 7), np.uint8)))
    assert good.image[rows, columns].min() < 60


def test_seeds_differ():
    for kind in ("good", *DEFECTS):
        assert len({digest(render_part(seed, kind, 64)) for seed in (0, 1, 2, 2**32, 2**32 + 1, 2**64 - 1)}) == 6


def test_good_parts_vary_in_pose_and_light():
    parts = np.stack([render_part(seed, "good", 64).image for seed in range(12)]).astype(int)
    brightness = parts.mean(axis=(1, 2, 3))
    assert np.ptp(brightness) > 8
    # At the plate's edge, pixels are background in one pose and metal in another.
    assert np.ptp(parts, axis=0).max() > 100


def write(root: Path, **changes: object) -> None:
    arguments: dict[str, object] = {"train": 3, "test_good": 2, "per_defect": 2, "size": 64}
    write_dataset(root, **{**arguments, **changes})  # type: ignore[arg-type]


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_data_set_has_the_layout_of_mvtec_ad(tmp_path: Path):
    calls: list[tuple[int, int]] = []
    write(tmp_path, progress=lambda done, total: calls.append((done, total)))
    expected = {f"train/good/00{number}.png" for number in range(3)}
    expected |= {f"test/{kind}/00{number}.png" for kind in ("good", *DEFECTS) for number in range(2)}
    expected |= {f"ground_truth/{kind}/00{number}_mask.png" for kind in DEFECTS for number in range(2)}
    assert set(files(tmp_path)) == expected
    assert calls == [(done, 17) for done in range(1, 18)]


def test_data_set_images_and_masks(tmp_path: Path):
    write(tmp_path)
    images = {name: cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED) for name in files(tmp_path)}
    parts = {name: image for name, image in images.items() if not name.startswith("ground_truth")}
    for image in parts.values():
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        blue, _, red = image[:6].mean(axis=(0, 1))
        assert blue > red + 5  # the belt is bluish, and OpenCV reads blue first
    assert len({image.tobytes() for image in parts.values()}) == len(parts)
    for kind in DEFECTS:
        for number in range(2):
            mask = images[f"ground_truth/{kind}/00{number}_mask.png"]
            assert (mask.shape, mask.dtype) == ((64, 64), np.uint8)
            assert set(np.unique(mask)) == {0, 255}
            smallest, largest = AREA[kind]
            assert smallest <= 100 * (mask == 255).mean() <= largest


def test_data_set_is_reproducible_and_seeds_share_no_part(tmp_path: Path):
    for folder, seed in (("first", 7), ("again", 7), ("other", 8)):
        write(tmp_path / folder, seed=seed, kinds=["stain"])
    first, again, other = (files(tmp_path / folder) for folder in ("first", "again", "other"))
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_data_set_of_chosen_kinds(tmp_path: Path):
    write(tmp_path, train=0, test_good=0, per_defect=1, kinds=("extra", "scratch"))
    assert set(files(tmp_path)) == {
        "test/extra/000.png",
        "ground_truth/extra/000_mask.png",
        "test/scratch/000.png",
        "ground_truth/scratch/000_mask.png",
    }


def test_kinds():
    assert DEFECTS == STRUCTURAL + LOGICAL
    assert set(DEFECTS) == set(AREA)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"seed": -1}, r"seed is -1\n.*from 0 to 2\*\*64 - 1"),
        ({"seed": 2**64}, r"seed is 18446744073709551616\n.*from 0 to 2\*\*64 - 1"),
        ({"kind": "dent"}, r"'dent'\n.*good, scratch, stain, chip, missing, extra, swapped"),
        ({"size": 56}, r"size is 56 pixels\n.*multiple of 8 from 64 to 1024"),
        ({"size": 100}, r"size is 100 pixels\n.*multiple of 8 from 64 to 1024"),
        ({"size": 1032}, r"size is 1032 pixels\n.*multiple of 8 from 64 to 1024"),
    ],
)
def test_bad_arguments_of_a_part(arguments: dict[str, object], says: str):
    with pytest.raises(DataError, match=says):
        render_part(**{"seed": 0, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": -1}, r"seed is -1\n.*from 0 to 2\*\*32 - 1"),
        ({"seed": 2**32}, r"seed is 4294967296\n.*from 0 to 2\*\*32 - 1"),
        ({"size": 250}, r"size is 250 pixels\n.*multiple of 8 from 64 to 1024"),
        ({"kinds": ("chip", "good")}, r"'good'\n.*give one of: scratch, stain, chip, missing, extra, swapped"),
        ({"kinds": ("chip", "chip")}, r"kinds repeat in \['chip', 'chip'\]\n.*once"),
        ({"train": -1}, r"train is -1\n.*0 or more"),
        ({"test_good": -2}, r"test_good is -2\n.*0 or more"),
        ({"per_defect": -3}, r"per_defect is -3\n.*0 or more"),
    ],
)
def test_bad_arguments_of_a_data_set(tmp_path: Path, changes: dict[str, object], says: str):
    with pytest.raises(DataError, match=says):
        write(tmp_path / "data", **changes)
    assert not (tmp_path / "data").exists()
