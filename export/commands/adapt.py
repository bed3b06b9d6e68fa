"""Add new good images to a bundle, such as a new shade or light, without training anew; write its next version."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lineward.export.adaptation import Adapted, adapt
from lineward.runtime.bundle import Bundle, write_bundle
from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.cli.journal import count_changes, find_journal, inspect_saved, print_changed
from lineward.runtime.cli.promise import describe_threshold
from lineward.runtime.errors import DataError
from lineward.runtime.images import find_images
from lineward.runtime.inspector import Inspector
from lineward.runtime.station.journal_reader import JournalReader, SavedImage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    trusted_bundle.add_arguments(parser)
    parser.add_argument("images", nargs="+", help="new good parts: files, folders (searched in depth) or globs")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: beside the bundle, with its version"
    )
    parser.add_argument("--bundle-version", type=int, help="default: the next")
    parser.add_argument(
        "--journal",
        type=Path,
        metavar="STATION_FILE",
        help="list which past verdicts, of parts whose images the station kept, the new bundle would change",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images that are held out")


def run(arguments: argparse.Namespace) -> int:
    """Adapt, show what is different, and write the new bundle; the old one is left as it is."""
    bundle, _ = trusted_bundle.read(arguments)
    paths = find_images(arguments.images)
    version = arguments.bundle_version or bundle.manifest.version + 1
    output: Path = arguments.output or arguments.bundle.with_name(f"{arguments.bundle.stem}-v{version}.lineward")
    if output.exists():
        raise DataError(f"{output}: is there already", do="name another file with --output")
    history = _history(arguments.journal, bundle) if arguments.journal else None
    adapted = adapt(bundle, paths, version=version, seed=arguments.seed, progress=ConsoleProgress())
    write_bundle(output, adapted.data)
    print_table("", ("", "before", "after"), _differences(bundle, adapted))
    if history:
        _print_history(history, adapted.bundle)
    print_table("", ("", ""), describe_threshold(adapted.bundle.manifest.threshold))
    if adapted.full:
        print("the new images ask for more rows than there is room for: better train anew with all images")
    print(f"wrote {output}, unsigned: sign it (`lineward sign`) before stations that check signatures take it")
    return PASSED


@dataclass(frozen=True)
class _History:
    """Images that a station kept of parts inspected with the bundle, relative to its folder."""

    folder: Path
    images: list[SavedImage]


def _history(station: Path, bundle: Bundle) -> _History:
    """What the journal has of this very bundle: other products' parts, and other versions', are no evidence."""
    with closing(JournalReader(find_journal(station))) as reader:
        images = [image for image in reader.images() if image.row is not None and image.row.bundle == bundle.sha256]
        return _History(reader.path.parent, images)


def _print_history(history: _History, bundle: Bundle) -> None:
    if not history.images:
        print("the journal has no images of parts inspected with this bundle: [images] in the station file keeps some")
        return
    with ConsoleProgress().step("inspect past parts", len(history.images)) as advance:
        rescored = list(inspect_saved(Inspector(bundle), history.folder, history.images, advance))
    print_changed(rescored, bundle.manifest.threshold.value)
    print(f"past parts, {count_changes(rescored)}")


def _differences(bundle: Bundle, adapted: Adapted) -> list[tuple[str, str, str]]:
    was, now = bundle.manifest, adapted.bundle.manifest
    held_out = len(adapted.plan.held_out)
    rows = [
        ("version", str(was.version), str(now.version)),
        ("rows of the bank", str(was.rows), f"{now.rows} (+{now.rows - was.rows})"),
        ("images behind it", str(was.origin.images), f"{now.origin.images} (+{len(adapted.plan.bank)})"),
        ("threshold", f"{was.threshold.value:.4f}", f"{now.threshold.value:.4f}"),
        ("threshold of the new images alone", "", f"{adapted.own.value:.4f}"),
        (f"of {held_out} new images, rejected", str(adapted.rejected_before), str(adapted.rejected_after)),
    ]
    for before, after in zip(was.golden, now.golden, strict=True):
        rows.append((before.image, f"{before.image_score:.4f}", f"{after.image_score:.4f}"))
    return rows
