from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lineward.export.datasets import Dataset, Sample, Saturation, open_dataset, read_mask, read_regions, readable
from lineward.runtime.errors import DataError, ImageError

GRAY = np.full((12, 16), 90, np.uint8)


def write(path: Path, pixels: np.ndarray = GRAY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def mask_of(*pixels: tuple[int, int], shape: tuple[int, int] = (12, 16), value: int = 255) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for row, column in pixels:
        mask[row, column] = value
    return mask


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """MVTec AD's layout: a scratch with a mask, and a stain whose mask is missing."""
    root = tmp_path / "bottle"
    for name in ("b.png", "a.png"):
        write(root / "train" / "good" / name)
    for folder in ("good", "scratch", "stain"):
        write(root / "test" / folder / "000.png")
    write(root / "ground_truth" / "scratch" / "000_mask.png", mask_of((1, 2)))
    return root


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    """MVTec LOCO AD's layout: validation images, and two masks for one image."""
    root = tmp_path / "box"
    write(root / "train" / "good" / "000.png")
    write(root / "validation" / "good" / "000.png")
    write(root / "test" / "good" / "000.png")
    write(root / "test" / "logical_anomalies" / "000.png")
    write(root / "ground_truth" / "logical_anomalies" / "000" / "000.png", mask_of((1, 2), value=1))
    write(root / "ground_truth" / "logical_anomalies" / "000" / "001.png", mask_of((3, 4), value=255))
    return root


def names(dataset: Dataset, part: str) -> list[str]:
    return [path.name for path in getattr(dataset, part)]


def test_a_plain_folder_is_all_training_images_in_any_subfolder(tmp_path: Path):
    for name in ("b.png", "a.bmp", "deep/er/c.JPG", "d.tiff"):
        write(tmp_path / "parts" / name)
    (tmp_path / "parts" / "notes.txt").write_text("not an image")
    dataset = open_dataset(tmp_path / "parts")
    assert dataset.name == "parts"
    assert names(dataset, "train") == ["a.bmp", "b.png", "d.tiff", "c.JPG"]
    assert (dataset.validation, dataset.test) == ((), ())


def test_the_mvtec_layout(mvtec: Path):
    dataset = open_dataset(mvtec)
    assert dataset.name == "bottle"
    assert names(dataset, "train") == ["a.png", "b.png"]
    assert dataset.validation == ()
    assert dataset.test == (
        Sample(mvtec / "test/good/000.png", "good"),
        Sample(mvtec / "test/scratch/000.png", "scratch", (mvtec / "ground_truth/scratch/000_mask.png",)),
        Sample(mvtec / "test/stain/000.png", "stain"),
    )
    assert [sample.defective for sample in dataset.test] == [False, True, True]


def test_the_loco_layout(loco: Path):
    dataset = open_dataset(loco)
    assert dataset.validation == (loco / "validation/good/000.png",)
    masks = tuple(loco / "ground_truth/logical_anomalies/000" / name for name in ("000.png", "001.png"))
    assert dataset.test[1] == Sample(loco / "test/logical_anomalies/000.png", "logical_anomalies", masks)


def test_several_masks_are_one_whatever_their_values(loco: Path):
    mask = read_mask(open_dataset(loco).test[1], (12, 16))
    assert mask.dtype == np.bool_
    assert np.argwhere(mask).tolist() == [[1, 2], [3, 4]]


MISSING = {"defect_name": "missing_nut", "pixel_value": 1, "saturation_threshold": 5, "relative_saturation": False}
SCRATCH = {"defect_name": "scratch", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}


def configure(root: Path, *entries: dict[str, object]) -> Path:
    path = root / "defects_config.json"
    path.write_text(json.dumps(entries))
    return path


def test_the_saturations_of_a_data_set_are_read_for_every_image(loco: Path):
    configure(loco, MISSING, {**SCRATCH, "published": 2022})
    expected = Saturation("missing_nut", 1, 5, False), Saturation("scratch", 255, 0.5, True)
    assert [sample.saturations for sample in open_dataset(loco).test] == [expected, expected]


def test_a_data_set_without_the_file_has_no_saturations(mvtec: Path, loco: Path):
    assert {sample.saturations for root in (mvtec, loco) for sample in open_dataset(root).test} == {()}


def test_each_mask_file_is_a_region_with_its_saturation_area(loco: Path):
    configure(loco, MISSING, SCRATCH)
    folder = loco / "ground_truth/logical_anomalies/000"
    write(folder / "000.png", mask_of((1, 2), (8, 9), value=1))  # in two pieces, less than saturates
    write(folder / "001.png", mask_of((1, 2), *((5, column) for column in range(7)), value=255))
    write(folder / "002.png", mask_of(*((6, column) for column in range(7)), value=1))
    regions = read_regions(open_dataset(loco).test[1], (12, 16))
    assert [np.argwhere(region.pixels).tolist() for region in regions[:1]] == [[[1, 2], [8, 9]]]
    assert [int(region.pixels.sum()) for region in regions] == [2, 8, 7]
    assert [region.saturation for region in regions] == [2, 4, 5]
    assert {region.pixels.dtype for region in regions} == {np.dtype(np.bool_)}


def test_a_good_image_has_no_regions(loco: Path):
    configure(loco, MISSING, SCRATCH)
    assert read_regions(open_dataset(loco).test[0], (12, 16)) == ()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([mask_of((1, 2), value=7)], r"0\.png: its pixel value 7 is not in .*defects_config\.json"),
        ([mask_of((1, 2), value=1), mask_of()], r"1\.png: marks nothing"),
        ([mask_of((1, 2), value=255) + mask_of((3, 4), value=1)], r"0\.png: marks several values"),
        ([], r"000\.png: has no ground truth"),
    ],
)
def test_a_mask_that_is_not_one_known_defect_is_named(
    loco: Path, tmp_path: Path, masks: list[np.ndarray], message: str
):
    configure(loco, MISSING, SCRATCH)
    paths = tuple(write(tmp_path / f"{index}.png", mask) for index, mask in enumerate(masks))
    sample = replace(open_dataset(loco).test[1], masks=paths)
    with pytest.raises(DataError, match=message) as caught:
        read_regions(sample, (12, 16))
    assert caught.value.do


def test_a_region_of_another_size_than_its_image_is_named(loco: Path):
    configure(loco, MISSING, SCRATCH)
    with pytest.raises(ImageError, match=r"000\.png: 16x12 pixels, its image has 24x20"):
        read_regions(open_dataset(loco).test[1], (20, 24))


def without(entry: dict[str, object], field: str) -> dict[str, object]:
    return {name: value for name, value in entry.items() if name != field}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid: Input data was truncated"),
        ("[{]", "is not valid: JSON is malformed"),
        ("{}", "Expected `array`, got `object`"),
        ("[]", "Expected `array` of length >= 1"),
        *(
            (json.dumps([MISSING, without(SCRATCH, field)]), rf"required field `{field}` - at `\$\[1\]`")
            for field in MISSING
        ),
        (json.dumps([{**MISSING, "pixel_value": 0}]), r"`int` >= 1 - at `\$\[0\]\.pixel_value`"),
        (json.dumps([{**MISSING, "pixel_value": 256}]), "`int` <= 255"),
        (json.dumps([{**MISSING, "saturation_threshold": 0}]), "> 0"),
        (json.dumps([{**SCRATCH, "saturation_threshold": 1.5}]), "relative `saturation_threshold` <= 1, got 1.5"),
        (json.dumps([MISSING, {**SCRATCH, "pixel_value": 1}]), "2 entries have the pixel_value 1"),
    ],
)
def test_saturations_that_are_not_understood_are_named(loco: Path, text: str, message: str):
    path = loco / "defects_config.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(loco)
    assert caught.value.what.startswith(f"{path}: ")
    assert caught.value.do


def test_saturations_that_are_no_text_or_no_file_are_named(loco: Path):
    path = loco / "defects_config.json"
    path.write_bytes(b'[{"defect_name": "\xff"}]')
    with pytest.raises(DataError, match=r"defects_config\.json: is not valid"):
        open_dataset(loco)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"defects_config\.json: cannot be read"):
        open_dataset(loco)


def test_a_good_image_has_an_empty_mask(mvtec: Path):
    mask = read_mask(open_dataset(mvtec).test[0], (12, 16))
    assert mask.shape == (12, 16)
    assert not mask.any()


def test_a_colour_mask_counts_in_any_channel(tmp_path: Path):
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[5, 6] = (0, 0, 9)
    sample = Sample(tmp_path / "x.png", "dent", (write(tmp_path / "m.png", pixels),))
    assert np.argwhere(read_mask(sample, (12, 16))).tolist() == [[5, 6]]


@pytest.mark.parametrize("stem", ["part[1]", "a*b", "what?", "x" * 200])
def test_a_mask_is_found_whatever_its_image_is_called(tmp_path: Path, stem: str):
    write(tmp_path / "train" / "good" / "0.png")
    write(tmp_path / "test" / "dent" / f"{stem}.png")
    mask = write(tmp_path / "ground_truth" / "dent" / f"{stem}_mask.png", mask_of((0, 0)))
    write(tmp_path / "ground_truth" / "dent" / "aXb_mask.png", mask_of((0, 0)))
    assert open_dataset(tmp_path).test[0].masks == (mask,)


def test_a_defective_image_without_a_mask_is_named(mvtec: Path):
    with pytest.raises(DataError, match=r"stain/000\.png: has no ground truth"):
        read_mask(open_dataset(mvtec).test[2], (12, 16))


def test_a_mask_of_another_size_is_named_with_both_sizes(mvtec: Path):
    with pytest.raises(ImageError, match=r"000_mask\.png: 16x12 pixels, its image has 24x20"):
        read_mask(open_dataset(mvtec).test[1], (20, 24))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ([], "no such folder"),
        ([""], "no image found there"),
        (["train/good"], "good: no image found there"),
        (["train"], "good: no image found there"),
        (["test/scratch"], "scratch: no image found there"),
    ],
)
def test_missing_and_empty_folders_are_named(tmp_path: Path, make: list[str], message: str):
    for folder in make:
        (tmp_path / "data" / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path / "data")
    assert str(tmp_path / "data") in caught.value.what


def test_a_file_is_no_data_set(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(write(tmp_path / "one.png"))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp", "a.pgm"])
def test_common_formats_are_readable(tmp_path: Path, name: str):
    path = write(tmp_path / name)
    assert readable([path], skip=False) == [path]


@pytest.mark.parametrize(
    "pixels",
    [
        GRAY,
        GRAY.astype(np.uint16) << 8,
        np.dstack([GRAY] * 3),
        np.dstack([GRAY] * 3).astype(np.uint16),
        np.dstack([GRAY] * 4),
    ],
    ids=["gray", "gray 16 bit", "colour", "colour 16 bit", "colour with alpha"],
)
def test_depths_and_channels_are_readable(tmp_path: Path, pixels: np.ndarray):
    path = write(tmp_path / "a.png", pixels)
    assert readable([path], skip=False) == [path]


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Two readable images among four that are not."""
    good = write(tmp_path / "good.png"), write(tmp_path / "last.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:40])
    small = write(tmp_path / "small.png", np.zeros((4, 4), np.uint8))
    return [good[0], tmp_path / "empty.png", tmp_path / "cut.png", small, tmp_path / "gone.png", good[1]]


def test_unreadable_images_are_counted_and_named(mixed: list[Path]):
    with pytest.raises(
        DataError, match=r"4 of 6 images cannot be read: .*empty\.png, .*cut\.png, .*small\.png, \.\.\."
    ):
        readable(mixed, skip=False)


def test_unreadable_images_are_reported_one_by_one_and_skipped_on_request(mixed: list[Path]):
    reported: list[str] = []
    assert readable(mixed, skip=True, report=lambda error: reported.append(error.what)) == [mixed[0], mixed[-1]]
    assert [what.partition(":")[0] for what in reported] == [str(path) for path in mixed[1:-1]]
    assert "4x4" in reported[2]


def test_skipping_leaves_at_least_one_image(tmp_path: Path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="none of the images can be read"):
        readable([tmp_path / "empty.png"], skip=True)
