"""Image files: which there are, and what is in them."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import DataError, ImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".jp2"})


def read_image(path: str | Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read an image file as the camera would have delivered it.

    Orientation tags are not applied and an alpha channel is dropped.

    Returns:
        uint8 or uint16, [H, W] for a gray image or [H, W, 3] in RGB order for a colour one.

    Raises:
        ImageError: the file is missing, empty, damaged, or neither 8 nor 16 bits deep.
    """
    return decode_image(read_file(Path(path)), str(path))


def decode_image(data: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode an image held in memory; `name` stands for it in errors. See `read_image`."""
    pixels = _decode(data, name)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{name}: pixels of type {pixels.dtype} are not supported",
            do="save it with 8 or 16 bits a channel",
        )
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 2:  # gray with alpha
        return np.ascontiguousarray(pixels[:, :, 0])
    return np.ascontiguousarray(pixels[:, :, 2::-1])


def read_file(path: Path) -> bytes:
    """Read a whole image file.

    Raises:
        ImageError: it is missing or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror})", do="check the path and its permissions"
        ) from error


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a gray [H, W] or RGB [H, W, 3] uint8 image as PNG.

    Raises:
        ImageError: the file cannot be written.
    """
    try:
        path.write_bytes(encode_png(image))
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written ({error.strerror})", do="check the folder and its free space"
        ) from error


def encode_png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode a gray [H, W] or RGB [H, W, 3] image without loss."""
    bgr = image if image.ndim == 2 else image[:, :, ::-1]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(bgr))[1])


def find_images(places: Iterable[str | Path]) -> list[Path]:
    """List the image files that files, folders (searched in depth) and globs name, without repeats.

    A file named directly is listed whatever its suffix, so that a wrong one is reported, not lost.

    Raises:
        DataError: a place does not exist, or holds no image.
    """
    found: dict[Path, None] = {}
    for place in places:
        try:
            files = _images_of(str(place))
        except OSError as error:
            raise DataError(
                f"{place}: cannot be searched ({error.strerror})", do="check the path and its permissions"
            ) from error
        if not files:
            raise DataError(f"{place}: no image found there", do="name an image, a folder of images or a glob")
        found.update(dict.fromkeys(files))
    return list(found)


def _images_of(place: str) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if path.exists():
        return [path]
    return sorted(Path(p) for p in glob.glob(place, recursive=True) if Path(p).is_file())  # noqa: PTH207


def _decode(data: bytes, name: str) -> NDArray[Any]:
    pixels = None
    if data and not _is_cut_jpeg(data):
        with contextlib.suppress(cv2.error):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError(f"{name}: not an image, or damaged ({len(data)} bytes)", do="replace or remove it")
    return pixels


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG lacks its end, which OpenCV 4 would fill with gray: no end of image after the last scan begins."""
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
