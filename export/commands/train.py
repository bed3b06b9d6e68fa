"""Learn good parts from good images and write a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from lineward.export.bank import METHODS as BANK_METHODS
from lineward.export.conversion import PRECISIONS
from lineward.export.datasets import open_dataset, readable
from lineward.export.held_out import AUTO, METHODS, images_to_hold_out
from lineward.export.presets import DEFAULT_PRESET, PRESETS
from lineward.export.training import AREA_LEVEL, Recipe, train
from lineward.runtime.bundle import decode_bundle, write_bundle
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import ConsoleProgress, print_error, print_table
from lineward.runtime.cli.info import describe_conversion
from lineward.runtime.cli.promise import describe_threshold
from lineward.runtime.errors import DataError
from lineward.runtime.manifest import MinimumArea

_DEFAULT = Recipe()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("data", type=Path, help="a folder of good images, or one laid out as MVTec AD or LOCO AD")
    parser.add_argument("-o", "--output", type=Path, help="the bundle to write (default: PRODUCT.lineward)")
    parser.add_argument("--product", help="what the images show (default: the folder's name)")
    parser.add_argument("--bundle-version", type=int, default=1, help="grows with every release (default: 1)")
    parser.add_argument(
        "--false-reject-rate",
        type=float,
        default=_DEFAULT.false_reject_rate,
        metavar="RATE",
        help="promised share of good parts rejected, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        help="keep that rate with this confidence, such as 0.95 (default: on average over calibrations)",
    )
    parser.add_argument(
        "--threshold-method",
        choices=METHODS,
        default=_DEFAULT.threshold_method,
        help="; ".join(f"{name}: {meaning}" for name, meaning in METHODS.items()) + " (default: %(default)s)",
    )
    parser.add_argument(
        "--min-area",
        type=int,
        metavar="N",
        help="reject a part too whose map has a connected area of N pixels or more above --area-level of the threshold",
    )
    parser.add_argument(
        "--area-level",
        type=float,
        default=AREA_LEVEL,
        metavar="SHARE",
        help="of the threshold, for --min-area (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the embedding graph; "
        + "; ".join(f"{name}: {meaning}" for name, meaning in PRECISIONS.items())
        + f" (default: {_DEFAULT.precision})",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="DROP",
        help="of image AUROC that a lower precision may cost, or there will be no bundle; on defects given, or planted "
        f"into held-out good images (default: {_DEFAULT.max_drop})",
    )
    parser.add_argument(
        "--region",
        metavar="MASK",
        help='what of the image counts: a mask image, white where the part is; or corners of a polygon, "x,y x,y x,y", '
        "in pixels or as fractions of the image (default: all)",
    )
    parser.add_argument(
        "--tiles",
        type=_tiles,
        metavar="ROWSxCOLUMNS",
        help="cut each image into so many overlapping tiles, for small defects on large images (default: none)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=_DEFAULT.overlap,
        help="of neighbouring tiles, as a share of a tile (default: %(default)s)",
    )
    parser.add_argument("--skip-unreadable", action="store_true", help="go on without images that cannot be read")
    parser.add_argument("--seed", type=int, default=_DEFAULT.seed)
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--preset", choices=PRESETS, default=DEFAULT_PRESET, help="what the rest starts from (default: %(default)s)"
    )
    recipe.add_argument("--backbone", help="efficientnet_lite0..2 or timm/MODEL")
    recipe.add_argument("--weights", type=Path, help="a .safetensors or .pth file of the backbone's weights")
    recipe.add_argument("--size", type=int, help="side of the input, in pixels")
    recipe.add_argument("--levels", type=int, nargs="+", help="strides of the feature levels")
    recipe.add_argument("--shrinkage", type=float, help="of the whitening")
    recipe.add_argument("--dimensions", type=int, help="kept by the whitening")
    recipe.add_argument("--tau", type=float, help="the lift; 0 is plain cosine")
    recipe.add_argument("--position", type=float, help="weight of a patch's place; 0 for parts that lie anywhere")
    recipe.add_argument("--rows", type=int, help="rows of the bank")
    recipe.add_argument("--bank-method", choices=BANK_METHODS)


def run(arguments: argparse.Namespace) -> int:
    """Train and write the bundle."""
    dataset = open_dataset(arguments.data)
    if not dataset.train:
        raise DataError(f"{arguments.data}: has no train/good", do="put good images there, or name their folder")
    product = arguments.product or dataset.name
    output = arguments.output or Path(f"{product}.lineward")
    if not output.parent.is_dir():
        raise DataError(f"{output.parent}: no such folder to write a bundle to", do="make it, or choose another")
    progress = ConsoleProgress()
    images = check_images(dataset.train, arguments.skip_unreadable, progress)
    held_out = check_images(dataset.validation, arguments.skip_unreadable, progress)
    defects = [sample.path for sample in dataset.test if sample.defective]
    recipe = recipe_of(arguments)
    data = train(
        images,
        product,
        held_out=held_out,
        defects=check_images(defects, arguments.skip_unreadable, progress),
        version=arguments.bundle_version,
        recipe=recipe,
        progress=progress,
    )
    write_bundle(output, data)
    print(f"wrote {output} ({len(data) / 1e6:.1f} MB)")
    manifest = decode_bundle(data, str(output)).manifest
    threshold = manifest.threshold
    print_table("", ("", ""), [*describe_threshold(threshold), *describe_conversion(manifest.conversion)])
    if threshold.folds and recipe.threshold_method == AUTO:
        enough = images_to_hold_out(threshold.false_reject_rate)
        print(
            f"{threshold.sample_size} images are few for this rate, so each judged a bank of others: that proves less; "
            f"with {enough} some would be held out, and the promise proven"
        )
    return PASSED


def check_images(paths: Sequence[Path], skip: bool, progress: ConsoleProgress) -> list[Path]:
    """Those that can be read, so that a damaged file is told of before the training, not in its middle."""
    if not paths:
        return []
    with progress.step("check images", len(paths)) as advance:
        return readable(paths, skip=skip, report=lambda error: print_error(str(error)), progress=advance)


def _tiles(text: str) -> tuple[int, int]:
    rows, times, columns = text.lower().partition("x")
    if not (times and rows.isdecimal() and columns.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: rows and columns of tiles, such as 2x3")
    return int(rows), int(columns)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The preset, with what was asked for otherwise."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Recipe) if field.name != "area"}
    given["area"] = None if arguments.min_area is None else MinimumArea(arguments.min_area, arguments.area_level)
    if given["tiles"] and given["position"] is None:
        given["position"] = 0.0  # a patch's place in a tile says nothing
    if given["levels"]:
        given["levels"] = tuple(given["levels"])
    return replace(PRESETS[arguments.preset], **{name: value for name, value in given.items() if value is not None})
