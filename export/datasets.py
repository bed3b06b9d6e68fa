"""Data sets on disk: a plain folder of good images, or the layouts of MVTec AD and MVTec LOCO AD.

plain     *.png                                   good images, in any subfolders
MVTec AD  train/good, test/<kind>, ground_truth/<kind>/<name>_mask.png
LOCO AD   the same, validation/good, and ground_truth/<kind>/<name>/*.png, several masks an image
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import find_images, read_image
from lineward.runtime.preprocessing import check_frame

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """A labelled image.

    Attributes:
        path: the image.
        kind: "good", or the name of the defect.
        masks: files that mark its defects; none for a good image, or where there is no ground truth.
    """

    path: Path
    kind: str
    masks: tuple[Path, ...] = ()

    @property
    def defective(self) -> bool:
        """Whether the part is bad."""
        return self.kind != GOOD


@dataclass(frozen=True)
class Dataset:
    """What a folder holds.

    Attributes:
        name: the folder's name.
        train: good images to learn from.
        validation: good images set apart by whoever made the data set; may be empty.
        test: labelled images; empty for a plain folder.
    """

    name: str
    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    test: tuple[Sample, ...]


def open_dataset(root: str | Path) -> Dataset:
    """Recognise a folder's layout and list its images.

    Raises:
        DataError: the folder does not exist or holds no image where good ones are expected.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", do="name a folder of good images, or one laid out as MVTec AD")
    name = root.resolve().name
    if not (root / "test").is_dir() and not (root / "train").is_dir():
        return Dataset(name, tuple(find_images([root])), (), ())
    train = tuple(find_images([root / "train" / GOOD])) if (root / "train").is_dir() else ()
    validation = tuple(find_images([root / "validation" / GOOD])) if (root / "validation").is_dir() else ()
    return Dataset(name, train, validation, _test_samples(root))


def read_mask(sample: Sample, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The defective pixels of an image, bool [H, W]: any of its masks, nonzero; none for a good image.

    Raises:
        DataError: a defective image has no mask.
        ImageError: a mask is damaged or of another size than the image, whose `shape` is (H, W).
    """
    if sample.defective and not sample.masks:
        raise DataError(f"{sample.path}: has no ground truth", do="add its mask, or evaluate image scores alone")
    mask = np.zeros(shape, bool)
    for path in sample.masks:
        pixels = read_image(path)
        pixels = pixels if pixels.ndim == 2 else pixels.max(2)
        if pixels.shape != shape:
            raise ImageError(
                f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, its image has {shape[1]}x{shape[0]}",
                do="make the mask as large as its image",
            )
        mask |= pixels > 0
    return mask


def readable(
    paths: Sequence[Path],
    *,
    skip: bool,
    report: Callable[[ImageError], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """The paths whose image can be read; the others are reported, each with its reason.

    Args:
        paths: image files.
        skip: go on without unreadable ones.
        report: called with the error of each unreadable file.
        progress: called with the images tried so far.

    Raises:
        DataError: some are unreadable and `skip` is false, or none is left.
    """
    good: list[Path] = []
    bad: list[Path] = []
    for done, path in enumerate(paths, 1):
        try:
            _check_readable(path)
            good.append(path)
        except ImageError as error:
            report(error)
            bad.append(path)
        progress(done)
    if bad and not skip:
        names = ", ".join(str(p) for p in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise DataError(
            f"{len(bad)} of {len(paths)} images cannot be read: {names}",
            do="replace or remove them, or pass --skip-unreadable",
        )
    if not good:
        raise DataError("none of the images can be read", do="check that the files are images")
    return good


def _check_readable(path: Path) -> None:
    frame = read_image(path)
    try:
        check_frame(frame)
    except ImageError as error:
        raise ImageError(f"{path}: {error.what}", do=error.do) from error


def _test_samples(root: Path) -> tuple[Sample, ...]:
    test = root / "test"
    if not test.is_dir():
        return ()
    samples = []
    for folder in sorted(p for p in test.iterdir() if p.is_dir()):
        for path in find_images([folder]):
            masks = () if folder.name == GOOD else _masks_of(root / "ground_truth" / folder.name, path.stem)
            samples.append(Sample(path, folder.name, masks))
    return tuple(samples)


def _masks_of(folder: Path, stem: str) -> tuple[Path, ...]:
    single = sorted(folder.glob(f"{glob.escape(stem)}_mask.*"))
    several = sorted((folder / stem).glob("*")) if (folder / stem).is_dir() else []
    return tuple(single or several)
