"""Make one archive for a device: runtime, wheelhouse, station file, bundles, keys, systemd unit and an installer that
needs no network. docs/provisioning.md goes through it step by step."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from lineward.export.passphrase import PASSPHRASE_VARIABLE, read_passphrase
from lineward.export.provisioning.image import Station, write_image
from lineward.export.provisioning.target import TARGETS, find_target
from lineward.export.provisioning.wheelhouse import NO_LOCK, read_lock
from lineward.export.signing import SigningKey, open_key, read_key_file
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_error
from lineward.runtime.errors import SignatureError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--target", required=True, choices=sorted(TARGETS), help="the device's system")
    parser.add_argument("--station", required=True, type=Path, metavar="FILE.toml", help="the station file")
    parser.add_argument(
        "--bundle", required=True, type=Path, action="append", help="one for each of the station's jobs"
    )
    parser.add_argument("--keys", type=Path, metavar="FOLDER", help="public keys that the device is to trust")
    parser.add_argument("--key", type=Path, metavar="NAME.key", help="sign the archive's list of hashes with it")
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help=f"of the key; else {PASSPHRASE_VARIABLE}, else asked for"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.tar.gz", help="the archive")
    parser.add_argument("--python", metavar="3.N", help="the device's Python, for x86_64 (default: as here)")
    parser.add_argument("--wheel", type=Path, help="lineward's own wheel (default: made of what runs here)")
    parser.add_argument(
        "--add", type=Path, action="append", default=[], metavar="WHEEL", help="install this too, such as a PyCUDA"
    )
    parser.add_argument("--wheelhouse", type=Path, metavar="FOLDER", help="take wheels from here and fetch nothing")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="versions and hashes: a former requirements.lock")


def run(arguments: argparse.Namespace) -> int:
    """Write the archive and say what is in it, and what is not."""
    target = find_target(arguments.target, arguments.python)
    key = _open_key(arguments)
    image = write_image(
        arguments.output,
        target,
        Station(arguments.station, arguments.bundle, arguments.keys),
        wheel=arguments.wheel,
        added=arguments.add,
        wheelhouse=arguments.wheelhouse,
        lock=read_lock(arguments.lock, target) if arguments.lock else NO_LOCK,
        key=key,
    )
    print(f"{arguments.output}: {image.size / 1e6:.1f} MB, {len(image.wheels)} wheels, sha256 {image.sha256}")
    if key is not None:
        print(f"signed by {key.public.name} (key {key.public.fingerprint}): docs/provisioning.md says how to check it")
    print("the device needs, besides:")
    for need in image.needs:
        print(f"- {need}")
    if arguments.keys is None:
        print_error("WARNING: no keys are packed\n  -> name the folder of your public keys with --keys")
    return PASSED


def _open_key(arguments: argparse.Namespace) -> SigningKey | None:
    if arguments.key is None:
        return None
    read_key_file(arguments.key)  # what is wrong with the file is said before anyone types a passphrase
    key = open_key(arguments.key, read_passphrase(arguments.passphrase_file))
    if key.public.is_expired(datetime.now(timezone.utc).date()):
        raise SignatureError(
            f"the key {key.public.name} expired after {key.public.expires}", do="make a new one: `lineward key new`"
        )
    return key
