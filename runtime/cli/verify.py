"""Check a bundle: signatures, format, sizes, hashes, bank, and that this device gives the golden results."""

from __future__ import annotations

import argparse

from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import print_table
from lineward.runtime.golden import check_golden
from lineward.runtime.inspector import Inspector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    trusted_bundle.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, and print what was checked."""
    bundle, trust = trusted_bundle.read(arguments)
    golden = check_golden(bundle, Inspector(bundle))
    manifest = bundle.manifest
    rows = [
        ("format", f"{manifest.format}, manifest valid"),
        ("members", f"{len(bundle.members)}, sizes and SHA-256 as in the manifest"),
        ("bank", f"{manifest.rows} rows of unit length, {manifest.grid.dimensions} dimensions"),
        *((g.image, f"patch scores within {g.deviation:.1e} (allowed {g.tolerance:.0e})") for g in golden),
        *trusted_bundle.describe_signatures(bundle, trust),
    ]
    print_table("", ("checked", "found"), rows)
    return PASSED
