"""The categories of MVTec LOCO AD and MVTec AD that a folder holds, and those that it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy.paper import LOCO, MVTEC_AD, PaperTable
from lineward.export.datasets import Dataset, open_dataset
from lineward.runtime.errors import DataError


@dataclass(frozen=True)
class DataSet:
    """A data set, or what was found of it.

    Attributes:
        name: of the data set.
        found: its categories by name.
        missing: names of the categories that were not found.
        paper: the paper's table of it.
    """

    name: str
    found: Mapping[str, Dataset]
    missing: tuple[str, ...] = ()
    paper: PaperTable | None = None


_OFFICIAL = {
    "MVTec LOCO AD": (("breakfast_box", "pushpins", "screw_bag", "splicing_connectors", "juice_bottle"), LOCO),
    "MVTec AD": (
        ("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
         "toothbrush", "transistor", "wood", "zipper"),
        MVTEC_AD,
    ),
}  # fmt: skip


def find_data_sets(root: Path) -> list[DataSet]:
    """Find the categories in a folder and in its subfolders, such as `mvtec_ad/bottle`; the known ones come first.

    Raises:
        DataError: there is none, one is found twice, or one lacks good or defective test images.
    """
    rest = _open_categories(root)
    data_sets = []
    for name, (official, paper) in _OFFICIAL.items():
        found = {category: rest.pop(category) for category in official if category in rest}
        if found:
            data_sets.append(DataSet(name, found, tuple(c for c in official if c not in found), paper))
    return [*data_sets, DataSet("other data", rest)] if rest else data_sets


def _open_categories(root: Path) -> dict[str, Dataset]:
    lay_out = "name a folder that holds categories laid out as MVTec AD: <category>/train/good, <category>/test/<kind>"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", do=lay_out)
    folders: dict[str, Path] = {}
    for folder in sorted([*root.glob("*"), *root.glob("*/*")]):
        if (folder / "train" / "good").is_dir() and (folder / "test").is_dir():
            twin = folders.setdefault(folder.name, folder)
            if twin is not folder:
                raise DataError(f"{folder.name} is both {twin} and {folder}", do="name the folder that holds one alone")
    if not folders:
        raise DataError(f"{root}: holds no category", do=lay_out)
    return {name: open_category(folder) for name, folder in folders.items()}


def open_category(folder: Path) -> Dataset:
    """A category, by the name of its folder, even where that is a link to a folder of another name.

    Raises:
        DataError: it lacks good images to learn from, or good or defective test images.
    """
    dataset = open_dataset(folder)
    if len({sample.defective for sample in dataset.test}) < 2:
        raise DataError(f"{folder / 'test'}: needs good and defective images", do="complete the category or remove it")
    return replace(dataset, name=folder.name)
