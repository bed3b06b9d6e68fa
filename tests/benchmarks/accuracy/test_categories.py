from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.categories import find_data_sets
from benchmarks.accuracy.paper import LOCO, MVTEC_AD
from lineward.runtime.errors import DataError
from lineward.runtime.images import write_png


def make_category(folder: Path, *kinds: str) -> None:
    for place in (folder / "train" / "good", *(folder / "test" / kind for kind in kinds or ("good", "bad"))):
        place.mkdir(parents=True)
        write_png(place / "000.png", np.zeros((8, 8), np.uint8))


def found(root: Path) -> dict[str, list[str]]:
    return {data_set.name: list(data_set.found) for data_set in find_data_sets(root)}


def test_known_categories_come_first_and_missing_ones_are_named(tmp_path: Path):
    for name in ("loco/juice_bottle", "loco/pushpins", "zipper", "bottle", "aardvark"):
        make_category(tmp_path / name)
    (tmp_path / "notes" / "train").mkdir(parents=True)
    loco, mvtec_ad, other = find_data_sets(tmp_path)
    assert (loco.name, list(loco.found)) == ("MVTec LOCO AD", ["pushpins", "juice_bottle"])
    assert loco.missing == ("breakfast_box", "screw_bag", "splicing_connectors")
    assert (mvtec_ad.name, list(mvtec_ad.found)) == ("MVTec AD", ["bottle", "zipper"])
    assert len(mvtec_ad.missing) == 13
    assert (list(other.found), other.missing) == (["aardvark"], ())
    assert (loco.paper, mvtec_ad.paper, other.paper) == (LOCO, MVTEC_AD, None)


def test_a_data_set_of_which_nothing_was_found_is_left_out(tmp_path: Path):
    make_category(tmp_path / "data" / "mine")
    assert found(tmp_path) == {"other data": ["mine"]}
    assert found(tmp_path / "data") == {"other data": ["mine"]}


@pytest.mark.parametrize(
    ("folders", "kinds", "message"),
    [
        ((), (), "holds no category"),
        (("a/bottle", "b/bottle"), (), "bottle is both .*a/bottle and .*b/bottle"),
        (("bottle",), ("good",), "needs good and defective images"),
        (("bottle",), ("broken",), "needs good and defective images"),
    ],
    ids=["none", "twins", "no defect", "no good"],
)
def test_what_cannot_be_tabulated_is_said(folders, kinds, message, tmp_path: Path):
    for folder in folders:
        make_category(tmp_path / folder, *kinds)
    with pytest.raises(DataError, match=message):
        find_data_sets(tmp_path)


def test_a_category_has_the_name_of_its_link(tmp_path: Path):
    make_category(tmp_path / "elsewhere" / "bottle_384")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bottle").symlink_to(tmp_path / "elsewhere" / "bottle_384")
    (data_set,) = find_data_sets(tmp_path / "data")
    assert data_set.name == "MVTec AD"
    assert [(name, dataset.name) for name, dataset in data_set.found.items()] == [("bottle", "bottle")]


def test_an_unknown_folder_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_data_sets(tmp_path / "nowhere")
