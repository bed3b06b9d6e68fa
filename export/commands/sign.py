"""Sign a bundle, so that stations that trust the key accept it."""

from __future__ import annotations

import argparse
from pathlib import Path

from lineward.export.passphrase import PASSPHRASE_VARIABLE, read_passphrase
from lineward.export.signing import open_key, read_key_file, sign_bundle
from lineward.runtime.cli import PASSED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", type=Path, required=True, metavar="NAME.key", help="made by `lineward key new`")
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help=f"else {PASSPHRASE_VARIABLE}, else asked for"
    )


def run(arguments: argparse.Namespace) -> int:
    """Sign in place; an older signature of the same key is replaced, those of other keys stay."""
    read_key_file(arguments.key)  # what is wrong with the file is said before anyone types a passphrase
    key = open_key(arguments.key, read_passphrase(arguments.passphrase_file))
    signature = sign_bundle(arguments.bundle, key)
    print(f"{arguments.bundle}: signed by {key.public.name} (key {signature.key}), {signature.signed}")
    return PASSED
