"""Which images are different ones: a copy is no further evidence, whatever its name and file format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lineward.runtime.images import read_image
from lineward.runtime.preprocessing import Frame

Fingerprinted = tuple[Path, str]
"""An image file, and the SHA-256 of its pixels."""


def distinct_images(paths: Iterable[Path]) -> list[Fingerprinted]:
    """Each different image once, in the order of their hashes, which no file name or format changes.

    Raises:
        ImageError: an image cannot be read.
    """
    first: dict[str, Path] = {}
    for path in sorted(paths):
        first.setdefault(pixels_sha256(read_image(path)), path)
    return [(first[digest], digest) for digest in sorted(first)]


def pixels_sha256(frame: Frame) -> str:
    """SHA-256 of an image's type, shape and pixels."""
    digest = hashlib.sha256(f"{frame.dtype} {frame.shape}\n".encode())
    digest.update(frame.tobytes())
    return digest.hexdigest()


def fingerprint(digests: Iterable[str]) -> str:
    """SHA-256 of the sorted hashes: one name for a set of images."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
