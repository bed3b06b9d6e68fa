"""Make a key to sign bundles with, or show what a key is."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lineward.export.passphrase import PASSPHRASE_VARIABLE, read_passphrase
from lineward.export.signing import make_key, read_key_file
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_table
from lineward.runtime.public_key import PublicKey, read_public_key
from lineward.runtime.trust import KEYS_FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="write NAME.key, to keep, and NAME.pub, for stations")
    new.add_argument("name")
    new.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)")
    new.add_argument("--expires", type=_day, metavar="YYYY-MM-DD", help="last day, UTC, on which it is accepted")
    new.add_argument("--product", action="append", metavar="PRODUCT", help="signs this only; may be repeated")
    new.add_argument("--passphrase-file", type=Path, metavar="FILE", help=f"else {PASSPHRASE_VARIABLE}, else asked for")
    show = actions.add_parser("show", help="name, fingerprint and expiry of a NAME.pub or NAME.key")
    show.add_argument("file", type=Path)
    show.add_argument("--pem", action="store_true", help="the public key as PEM, for openssl")


def run(arguments: argparse.Namespace) -> int:
    """Make or show."""
    if arguments.action == "show":
        key = _read(arguments.file)
        if arguments.pem:
            print(_pem(key), end="")
        else:
            _print(key)
        return PASSED
    folder: Path = arguments.output
    passphrase = read_passphrase(arguments.passphrase_file, twice=True)
    products = tuple(arguments.product) if arguments.product else None
    _print(make_key(folder, arguments.name, passphrase, expires=arguments.expires, products=products))
    print(f"keep {folder / arguments.name}.key and its passphrase; they cannot be made again")
    print(f"copy {folder / arguments.name}.pub to every station, into {KEYS_FOLDER}")
    return PASSED


def _read(path: Path) -> PublicKey:
    return read_key_file(path).public if path.suffix == ".key" else read_public_key(path)


def _print(key: PublicKey) -> None:
    rows = [
        ("name", key.name),
        ("fingerprint", key.fingerprint),
        ("expires", f"after {key.expires}, UTC" if key.expires else "never"),
        ("products", ", ".join(key.products) if key.products is not None else "all"),
    ]
    print_table("", ("", ""), rows)


def _pem(key: PublicKey) -> str:
    public = Ed25519PublicKey.from_public_bytes(key.key)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2030-12-31") from error
