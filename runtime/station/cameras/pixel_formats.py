"""GenICam pixel formats: from the bytes that a camera sends to a frame.

Codes and layouts: GenICam Pixel Format Naming Convention 2.4; "Packed" as in GigE Vision 2.0, section 27.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import CameraError
from lineward.runtime.preprocessing import Frame


class Layout(enum.Enum):
    """How the samples lie in memory; packed ones are little-endian bit streams if "p", GigE Vision's if "Packed"."""

    BYTES = ""
    P = "p"
    PACKED = "Packed"


@dataclass(frozen=True)
class PixelFormat:
    """A pixel format.

    Attributes:
        name: as GenICam names it.
        code: 32 bits; bits 16 to 23 are the bits that a pixel takes.
        depth: significant bits of a sample.
        layout: of the samples.
        colours: "Mono", the Bayer order of the first two rows' beginning ("RG", "GR", "GB", "BG"), "RGB" or "BGR".
    """

    name: str
    code: int
    depth: int
    layout: Layout
    colours: str

    @property
    def bits(self) -> int:
        """Bits that a pixel takes."""
        return self.code >> 16 & 0xFF

    @property
    def dtype(self) -> str:
        """Of a decoded frame."""
        return "uint8" if self.depth == 8 else "uint16"

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """Of a decoded frame."""
        return (height, width) if self.colours == "Mono" else (height, width, 3)


def pixel_format(code: int, name: str = "") -> PixelFormat:
    """The pixel format of a code.

    Raises:
        CameraError: it is not one of those that can be decoded.
    """
    if code not in _FORMATS:
        raise CameraError(
            f"pixel format {name or 'of the camera'} (0x{code:08X}) cannot be decoded",
            do=f"set camera.pixel_format to one of {', '.join(f.name for f in _FORMATS.values())}",
        )
    return _FORMATS[code]


def decode(data: NDArray[np.uint8], form: PixelFormat, width: int, height: int, line_padding: int = 0) -> Frame | None:
    """Decode an image.

    Samples of more than 8 bits are scaled to the full range of uint16, so that their high byte is the 8-bit image.

    Args:
        data: uint8 [bytes], as sent; more than the image takes is left alone.
        form: its pixel format.
        width: pixels of a line.
        height: lines.
        line_padding: bytes after each line.

    Returns:
        A view of `data` where its bytes are the frame's already; None if there are too few.
    """
    lines = _lines(data, form, width, height, line_padding)
    if lines is None:
        return None
    if form.colours in ("RGB", "BGR"):
        pixels = lines.reshape(height, width, 3)
        return pixels if form.colours == "RGB" else np.ascontiguousarray(pixels[:, :, ::-1])
    samples = _samples(lines, form, width * height // len(lines)).reshape(height, width)
    return samples if form.colours == "Mono" else _demosaiced(samples, form.colours)


def _demosaiced(samples: Any, order: str) -> Any:
    return cv2.cvtColor(samples, _DEMOSAICING[order])


def _lines(
    data: NDArray[np.uint8], form: PixelFormat, width: int, height: int, padding: int
) -> NDArray[np.uint8] | None:
    """The image's bytes, uint8 [lines, bytes]: one long line where none is padded, for packed samples run on then."""
    if not padding:
        size = -(-width * height * form.bits // 8)
        return data[:size].reshape(1, size) if len(data) >= size else None
    size = -(-width * form.bits // 8)
    if len(data) < (size + padding) * height:
        return None
    return np.ascontiguousarray(data[: (size + padding) * height].reshape(height, size + padding)[:, :size])


def _samples(lines: NDArray[np.uint8], form: PixelFormat, count: int) -> Frame:
    """The first `count` samples of each line, uint8 or uint16 at full range."""
    if form.layout is Layout.BYTES:
        if form.depth == 8:
            return lines
        wide = lines.view("<u2").astype(np.uint16, copy=False)
        return wide if form.depth == 16 else wide << np.uint16(16 - form.depth)
    group = _GROUPS[form.layout, form.depth]
    fill = -lines.shape[1] % group.size
    padded = np.pad(lines, ((0, 0), (0, fill))) if fill else lines
    grouped = padded.reshape(len(lines), -1, group.size).astype(np.uint16)
    samples = np.stack([_place(grouped, sample) for sample in group.samples], axis=-1)
    return samples.reshape(len(lines), -1)[:, :count]


def _place(grouped: NDArray[np.uint16], sample: tuple[tuple[int, int, int], ...]) -> NDArray[np.uint16]:
    """A sample put together from bits of bytes, its most significant bit at bit 15."""
    value = np.zeros(grouped.shape[:2], np.uint16)
    for byte, mask, shift in sample:
        bits = grouped[:, :, byte] & np.uint16(mask)
        value |= bits << np.uint16(shift) if shift >= 0 else bits >> np.uint16(-shift)
    return value


@dataclass(frozen=True)
class _Group:
    """The smallest number of bytes that hold whole samples, and for each sample: byte, mask and left shift of bits."""

    size: int
    samples: tuple[tuple[tuple[int, int, int], ...], ...]


_GROUPS = {
    (Layout.PACKED, 10): _Group(3, (((0, 0xFF, 8), (1, 0x03, 6)), ((2, 0xFF, 8), (1, 0x30, 2)))),
    (Layout.PACKED, 12): _Group(3, (((0, 0xFF, 8), (1, 0x0F, 4)), ((2, 0xFF, 8), (1, 0xF0, 0)))),
    (Layout.P, 12): _Group(3, (((0, 0xFF, 4), (1, 0x0F, 12)), ((1, 0xF0, 0), (2, 0xFF, 8)))),
    (Layout.P, 10): _Group(
        5,
        (
            ((0, 0xFF, 6), (1, 0x03, 14)),
            ((1, 0xFC, 4), (2, 0x0F, 12)),
            ((2, 0xF0, 2), (3, 0x3F, 10)),
            ((3, 0xC0, 0), (4, 0xFF, 8)),
        ),
    ),
}

# OpenCV names a Bayer order by the second row's second and third pixel; these aliases name it as cameras do.
_DEMOSAICING = {
    "RG": cv2.COLOR_BayerRGGB2RGB,
    "GR": cv2.COLOR_BayerGRBG2RGB,
    "GB": cv2.COLOR_BayerGBRG2RGB,
    "BG": cv2.COLOR_BayerBGGR2RGB,
}

_MONO = {
    "Mono8": 0x01080001,
    "Mono10": 0x01100003,
    "Mono10Packed": 0x010C0004,
    "Mono10p": 0x010A0046,
    "Mono12": 0x01100005,
    "Mono12Packed": 0x010C0006,
    "Mono12p": 0x010C0047,
    "Mono14": 0x01100025,
    "Mono16": 0x01100007,
}
# Of each Bayer layout, the codes in the orders GR, RG, GB, BG.
_BAYER = {
    "8": (0x01080008, 0x01080009, 0x0108000A, 0x0108000B),
    "10": (0x0110000C, 0x0110000D, 0x0110000E, 0x0110000F),
    "10Packed": (0x010C0026, 0x010C0027, 0x010C0028, 0x010C0029),
    "10p": (0x010A0056, 0x010A0058, 0x010A0054, 0x010A0052),
    "12": (0x01100010, 0x01100011, 0x01100012, 0x01100013),
    "12Packed": (0x010C002A, 0x010C002B, 0x010C002C, 0x010C002D),
    "12p": (0x010C0057, 0x010C0059, 0x010C0055, 0x010C0053),
    "16": (0x0110002E, 0x0110002F, 0x01100030, 0x01100031),
}


def _format(name: str, code: int, kind: str, colours: str) -> PixelFormat:
    """A format whose kind is its depth and layout, such as "12Packed"."""
    digits = kind.rstrip("Packedp")
    return PixelFormat(name, code, int(digits), Layout(kind[len(digits) :]), colours)


_FORMATS = {
    form.code: form
    for form in (
        *(_format(name, code, name[len("Mono") :], "Mono") for name, code in _MONO.items()),
        *(
            _format(f"Bayer{order}{kind}", code, kind, order)
            for kind, codes in _BAYER.items()
            for order, code in zip(("GR", "RG", "GB", "BG"), codes, strict=True)
        ),
        PixelFormat("RGB8", 0x02180014, 8, Layout.BYTES, "RGB"),
        PixelFormat("BGR8", 0x02180015, 8, Layout.BYTES, "BGR"),
    )
}
