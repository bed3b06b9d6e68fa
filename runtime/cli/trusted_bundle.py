"""The bundle that a command of the device works with: accepted by this machine's keys, or with a loud warning."""

from __future__ import annotations

import argparse
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.cli.console import print_error
from lineward.runtime.trust import KEYS_FOLDER, KEYS_VARIABLE, AcceptAny, Trust, open_trust

_NOTICE = timedelta(days=30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the bundle and the folder of keys."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FOLDER",
        help=f"trusted public keys (default: {KEYS_VARIABLE}, else {KEYS_FOLDER} where it is there)",
    )


def read(arguments: argparse.Namespace) -> tuple[Bundle, Trust]:
    """Read the bundle that the arguments name, as this machine's keys allow.

    Raises:
        BundleError: it is damaged, or no signature on it counts.
        KeyFileError: the keys cannot be relied upon.
    """
    trust = open_trust(arguments.keys)
    if isinstance(trust, AcceptAny):
        warn_of_any()
    bundle = read_bundle(arguments.bundle, trust)
    _warn_of_expiry(bundle, trust)
    return bundle, trust


def warn_of_any() -> None:
    """Say loudly that there are no keys."""
    print_error(
        "WARNING: this machine has no trusted keys and accepts ANY bundle, whoever made it\n"
        f"  -> put the public key of who makes your bundles into {KEYS_FOLDER}, or name a folder of keys"
    )


def describe_signatures(bundle: Bundle, trust: Trust) -> list[tuple[str, str]]:
    """Each signature in words: by whom, when, until when the key is trusted, and whether it counts here."""
    if not bundle.signatures:
        return [("signature", "none")]
    if isinstance(trust, AcceptAny):
        return [
            ("signature", f"not checked, no trusted keys here: claims key {s.key}, {s.signed}")
            for s in bundle.signatures
        ]
    rows = []
    for judged in trust.judge(bundle.signatures, bundle.sha256, bundle.manifest.product):
        who = f"{judged.key.name}, key {judged.key.fingerprint}" if judged.key else f"key {judged.signature.key}"
        if judged.objection is None and judged.key:
            until = f"until the end of {judged.key.expires}, UTC" if judged.key.expires else "without end"
            rows.append(("signature", f"good: by {who}, signed {judged.signature.signed}, key trusted {until}"))
        else:
            rows.append(("signature", f"does not count: {who}: {judged.objection}"))
    return rows


def _warn_of_expiry(bundle: Bundle, trust: Trust) -> None:
    """Say it while there is time to sign again: once the last key has expired, the line would not start."""
    if isinstance(trust, AcceptAny):
        return
    judged = trust.judge(bundle.signatures, bundle.sha256, bundle.manifest.product)
    ends = [j.key.expires or date.max for j in judged if j.key and j.objection is None]
    last = max(ends, default=date.max)
    if last != date.max and last - datetime.now(timezone.utc).date() < _NOTICE:
        print_error(
            f"WARNING: this bundle is refused after {last}, when the key that signed it expires\n"
            "  -> sign it with a newer key: `lineward sign`"
        )
