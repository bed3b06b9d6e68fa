"""Data sets on disk: a plain folder of good images, or the layouts of MVTec AD and MVTec LOCO AD.

plain     *.png                                   good images, in any subfolders
MVTec AD  train/good, test/<kind>, ground_truth/<kind>/<name>_mask.png
LOCO AD   the same, validation/good, and ground_truth/<kind>/<name>/*.png, one mask a defect; defects_config.json
          says how much of a defect must be found
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lineward.calibration.saturated_overlap import Region, saturation_area
from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import find_images, read_image
from lineward.runtime.preprocessing import check_frame

GOOD = "good"
SATURATIONS = "defects_config.json"
"""The file of a LOCO AD category that says how much of each defect must be found."""


@dataclass(frozen=True)
class Saturation:
    """How much of a defect must be found for all of it to count as found; an entry of `defects_config.json`.

    Attributes:
        defect_name: what the defect is.
        pixel_value: the value of its pixels in a mask.
        saturation_threshold: a share of its area, if `relative_saturation`; else pixels of the mask, so that a data set
            resized needs them scaled by the change in area.
        relative_saturation: what `saturation_threshold` is.
    """

    defect_name: str
    pixel_value: Annotated[int, Meta(ge=1, le=255)]
    saturation_threshold: Annotated[float, Meta(gt=0)]
    relative_saturation: bool

    def __post_init__(self) -> None:
        if self.relative_saturation and self.saturation_threshold > 1:
            raise ValueError(f"Expected a relative `saturation_threshold` <= 1, got {self.saturation_threshold}")


@dataclass(frozen=True)
class Sample:
    """A labelled image.

    Attributes:
        path: the image.
        kind: "good", or the name of the defect.
        masks: files that mark its defects; none for a good image, or where there is no ground truth.
        saturations: what the data set says of its kinds of defect; the same for all its images, empty without the file.
    """

    path: Path
    kind: str
    masks: tuple[Path, ...] = ()
    saturations: tuple[Saturation, ...] = ()

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
        DataError: the folder does not exist or holds no image where good ones are expected, or its
            `defects_config.json` cannot be read or understood.
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
    mask = np.zeros(shape, bool)
    for _, pixels in _read_masks(sample, shape):
        mask |= pixels > 0
    return mask


def read_regions(sample: Sample, shape: tuple[int, int]) -> tuple[Region, ...]:
    """The annotated defects of an image, one a mask file, in one piece or several; none for a good image.

    Raises:
        DataError: a defective image has no mask; a mask does not mark one defect by one value, or the sample's
            saturations do not know the value.
        ImageError: a mask is damaged or of another size than the image, whose `shape` is (H, W).
    """
    known = {saturation.pixel_value: saturation for saturation in sample.saturations}
    return tuple(_region(path, pixels, known) for path, pixels in _read_masks(sample, shape))


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


def _read_masks(sample: Sample, shape: tuple[int, int]) -> Iterator[tuple[Path, NDArray[np.integer[Any]]]]:
    """Each mask file with its pixels, uint8 or uint16 [H, W], the greatest channel of a colour."""
    if sample.defective and not sample.masks:
        raise DataError(f"{sample.path}: has no ground truth", do="add its mask, or evaluate image scores alone")
    for path in sample.masks:
        pixels = read_image(path)
        pixels = pixels if pixels.ndim == 2 else pixels.max(2)
        if pixels.shape != shape:
            raise ImageError(
                f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, its image has {shape[1]}x{shape[0]}",
                do="make the mask as large as its image",
            )
        yield path, pixels


def _region(path: Path, pixels: NDArray[np.integer[Any]], known: Mapping[int, Saturation]) -> Region:
    value = int(pixels.max())
    marked = pixels == value
    area = int(np.count_nonzero(marked))
    if value == 0 or area != np.count_nonzero(pixels):
        raise DataError(
            f"{path}: marks {'several values' if value else 'nothing'}, where one defect has one value",
            do="mark each defect in a file of its own; if the masks were resized, do it without interpolation",
        )
    if value not in known:
        raise DataError(
            f"{path}: its pixel value {value} is not in the data set's {SATURATIONS}",
            do="add an entry with this pixel_value there, or correct the mask",
        )
    saturation = known[value]
    relative = saturation.relative_saturation
    return Region(marked, saturation_area(area, saturation.saturation_threshold, relative=relative))


_Saturations = Annotated[tuple[Saturation, ...], Meta(min_length=1)]


def _read_saturations(path: Path) -> tuple[Saturation, ...]:
    """The entries of a file that need not be there."""
    if not path.exists():
        return ()
    try:
        saturations = msgspec.json.decode(path.read_bytes(), type=_Saturations)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", do="check its permissions") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: is not valid: {error}",
            do="take it again from the data set, or remove it and do without sPRO",
        ) from error
    value, count = Counter(s.pixel_value for s in saturations).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: {count} entries have the pixel_value {value}", do="give each kind of defect its own")
    return saturations


def _test_samples(root: Path) -> tuple[Sample, ...]:
    test = root / "test"
    if not test.is_dir():
        return ()
    saturations = _read_saturations(root / SATURATIONS)
    samples = []
    for folder in sorted(p for p in test.iterdir() if p.is_dir()):
        for path in find_images([folder]):
            masks = () if folder.name == GOOD else _masks_of(root / "ground_truth" / folder.name, path.stem)
            samples.append(Sample(path, folder.name, masks, saturations))
    return tuple(samples)


def _masks_of(folder: Path, stem: str) -> tuple[Path, ...]:
    single = sorted(folder.glob(f"{glob.escape(stem)}_mask.*"))
    several = sorted((folder / stem).glob("*")) if (folder / stem).is_dir() else []
    return tuple(single or several)
