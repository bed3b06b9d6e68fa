"""Sign a bundle, so that stations that trust the key accept it; or permit them to go back to it from a newer one."""

from __future__ import annotations

import argparse
from pathlib import Path

from lineward.export.passphrase import PASSPHRASE_VARIABLE, read_passphrase
from lineward.export.signing import SigningKey, open_key, permit_downgrade, read_key_file, sign_bundle
from lineward.runtime.atomic_write import replace_file
from lineward.runtime.cli import PASSED
from lineward.runtime.delivery.permit import encode_permit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", type=Path, required=True, metavar="NAME.key", help="made by `lineward key new`")
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help=f"else {PASSPHRASE_VARIABLE}, else asked for"
    )

    parser.add_argument(
        "--permit-downgrade",
        type=Path,
        metavar="FILE",
        help="write a permit to deploy this bundle over a newer one, for `lineward deploy --permit`; sign nothing else",
    )
    parser.add_argument("--station", metavar="NAME", help="the only station that the permit is for (default: any)")
    parser.add_argument("--why", default="", metavar="TEXT", help="of the permit, for the station's history")


def run(arguments: argparse.Namespace) -> int:
    """Sign in place; an older signature of the same key is replaced, those of other keys stay."""
    read_key_file(arguments.key)  # what is wrong with the file is said before anyone types a passphrase
    key = open_key(arguments.key, read_passphrase(arguments.passphrase_file))
    if arguments.permit_downgrade is not None:
        return _permit(arguments, key)
    signature = sign_bundle(arguments.bundle, key)
    print(f"{arguments.bundle}: signed by {key.public.name} (key {signature.key}), {signature.signed}")
    return PASSED


def _permit(arguments: argparse.Namespace, key: SigningKey) -> int:
    signed = permit_downgrade(arguments.bundle, key, arguments.station, arguments.why)
    replace_file(arguments.permit_downgrade, encode_permit(signed))
    where = signed.permit.station or "any station"
    print(
        f"{arguments.permit_downgrade}: permits version {signed.permit.version} of {signed.permit.product} on {where}"
    )
    return PASSED
