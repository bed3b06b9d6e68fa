"""HTML pages that need nothing but a browser: templates, and pictures packed into them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from lineward.runtime.errors import DataError

_PICTURE = 320  # greatest side, in pixels
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, and what it shows."""

    caption: str
    uri: str


def render(template: str, **values: object) -> str:
    """A page of a template in this folder; every value is text in it, never markup."""
    environment = Environment(
        loader=FunctionLoader(lambda name: files("lineward.export").joinpath(name).read_text("utf-8")),
        autoescape=True,
        finalize=_legible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def write_page(path: Path, html: str) -> None:
    """Write a page; one that is there is overwritten.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: the report cannot be written ({error.strerror})", do="check the folder and its free space"
        ) from error


def picture(caption: str, pixels: NDArray[np.uint8]) -> Picture:
    """Pack pixels, uint8 [H, W, 3] RGB."""
    data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), _JPEG)[1].tobytes()
    return Picture(caption, f"data:image/jpeg;base64,{base64.b64encode(data).decode()}")


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels, gray or RGB, with no side longer than a picture's."""
    height, width = pixels.shape[:2]
    scale = _PICTURE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _legible(value: object) -> object:
    """Text with control, direction and undecodable characters, which file names may hold, spelled out."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value  # what a macro made of such text is markup
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
