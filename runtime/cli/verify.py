"""Check a bundle: format, sizes, hashes, bank, and that this device gives the golden results."""

from __future__ import annotations

import argparse
from pathlib import Path

from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_table
from lineward.runtime.golden import check_golden
from lineward.runtime.inspector import Inspector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path)


def run(arguments: argparse.Namespace) -> int:
    """Check, and print what was checked."""
    bundle = read_bundle(arguments.bundle)
    golden = check_golden(bundle, Inspector(bundle))
    manifest = bundle.manifest
    rows = [
        ("format", f"{manifest.format}, manifest valid"),
        ("members", f"{len(bundle.members)}, sizes and SHA-256 as in the manifest"),
        ("bank", f"{manifest.rows} rows of unit length, {manifest.grid.dimensions} dimensions"),
        *((g.image, f"patch scores within {g.deviation:.1e} (allowed {g.tolerance:.0e})") for g in golden),
        ("signature", "not checked: this version does not sign bundles yet"),
    ]
    print_table("", ("checked", "found"), rows)
    return PASSED
