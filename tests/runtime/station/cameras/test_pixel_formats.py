from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.errors import CameraError
from lineward.runtime.station.cameras.pixel_formats import decode, pixel_format

CODES = {
    "Mono8": 0x01080001,
    "Mono10": 0x01100003,
    "Mono10Packed": 0x010C0004,
    "Mono10p": 0x010A0046,
    "Mono12": 0x01100005,
    "Mono12Packed": 0x010C0006,
    "Mono12p": 0x010C0047,
    "Mono14": 0x01100025,
    "Mono16": 0x01100007,
    "BayerRG8": 0x01080009,
    "BayerRG12Packed": 0x010C002B,
    "RGB8": 0x02180014,
    "BGR8": 0x02180015,
}


def bits(text):
    """Bytes from their bits, as the standard draws them: most significant first."""
    return np.array([int(byte, 2) for byte in text.split()], np.uint8)


@pytest.mark.parametrize(
    ("name", "width", "data", "samples"),
    [
        ("Mono8", 3, "00000001 10000000 11111111", [0x01, 0x80, 0xFF]),
        ("Mono10", 2, "11111111 00000011 00000001 00000000", [0b1111111111 << 6, 1 << 6]),
        ("Mono12", 2, "00110100 00000010 11111111 00001111", [0x234 << 4, 0xFFF << 4]),
        ("Mono14", 1, "00000001 00100000", [0b10000000000001 << 2]),
        ("Mono16", 2, "00110100 00010010 11111111 11111111", [0x1234, 0xFFFF]),
        # First sample's upper 8 bits, both samples' lower bits (the second's to the left), second's upper 8 bits.
        ("Mono10Packed", 2, "10000001 00010010 01111110", [0b1000000110 << 6, 0b0111111001 << 6]),
        ("Mono12Packed", 2, "10101011 00101100 11101111", [0xABC << 4, 0xEF2 << 4]),
        # Little-endian bit streams: the first sample begins at bit 0 of the first byte.
        ("Mono12p", 2, "10111100 00101010 11101111", [0xABC << 4, 0xEF2 << 4]),
        (
            "Mono10p",
            4,
            "00000001 00001010 10110000 11000000 10000000",
            [0b1000000001 << 6, 0b0000000010 << 6, 0b0000001011 << 6, 0b1000000011 << 6],
        ),
        ("RGB8", 1, "00000001 00000010 00000011", [1, 2, 3]),
        ("BGR8", 1, "00000001 00000010 00000011", [3, 2, 1]),
    ],
)
def test_samples_of_written_out_bits(name, width, data, samples):
    form = pixel_format(CODES[name])
    assert form.name == name
    found = decode(bits(data), form, width, 1)
    assert found.dtype == form.dtype
    assert found.shape == form.shape(width, 1)
    assert found.ravel().tolist() == samples


def stream(values, depth):
    """A little-endian bit stream."""
    number = sum(int(value) << (depth * place) for place, value in enumerate(values))
    return np.frombuffer(number.to_bytes(-(-len(values) * depth // 8), "little"), np.uint8)


@given(st.data(), st.sampled_from([10, 12]), st.integers(1, 9), st.integers(1, 4))
def test_a_bit_stream_of_any_size_comes_back(data, depth, width, height):
    values = data.draw(st.lists(st.integers(0, 2**depth - 1), min_size=width * height, max_size=width * height))
    found = decode(stream(values, depth), pixel_format(CODES[f"Mono{depth}p"]), width, height)
    assert found.shape == (height, width)
    assert (found >> (16 - depth)).ravel().tolist() == values


@given(st.data(), st.sampled_from([10, 12]), st.integers(1, 9), st.integers(2, 4), st.integers(1, 5))
def test_padded_lines_are_whole_bytes_each(data, depth, width, height, padding):
    lines = [data.draw(st.lists(st.integers(0, 2**depth - 1), min_size=width, max_size=width)) for _ in range(height)]
    sent = np.concatenate([np.append(stream(line, depth), np.full(padding, 0xAA, np.uint8)) for line in lines])
    found = decode(sent, pixel_format(CODES[f"Mono{depth}p"]), width, height, padding)
    assert (found >> (16 - depth)).tolist() == lines


def test_padding_of_whole_samples():
    sent = np.array([1, 2, 9, 3, 4, 9], np.uint8)
    assert decode(sent, pixel_format(CODES["Mono8"]), 2, 2, 1).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("name", sorted(CODES))
@pytest.mark.parametrize("padding", [0, 4])
def test_too_few_bytes_are_no_image(name, padding):
    form = pixel_format(CODES[name])
    size = (4 * form.bits // 8 + padding) * 2
    assert decode(np.zeros(size, np.uint8), form, 4, 2, padding) is not None
    assert decode(np.zeros(size - 1, np.uint8), form, 4, 2, padding) is None


def test_bytes_that_are_the_frame_are_not_copied():
    data = np.arange(24, dtype=np.uint8)
    for name in ("Mono8", "Mono16", "RGB8"):
        form = pixel_format(CODES[name])
        assert np.shares_memory(decode(data, form, 2, 2), data)


ORDERS = {"GR": 0x01080008, "RG": 0x01080009, "GB": 0x0108000A, "BG": 0x0108000B}
DEEP = {
    "BayerGR10": (0x0110000C, 10),
    "BayerRG10": (0x0110000D, 10),
    "BayerGB10": (0x0110000E, 10),
    "BayerBG10": (0x0110000F, 10),
    "BayerGR12": (0x01100010, 12),
    "BayerRG12": (0x01100011, 12),
    "BayerGB12": (0x01100012, 12),
    "BayerBG12": (0x01100013, 12),
    "BayerGR16": (0x0110002E, 16),
    "BayerRG16": (0x0110002F, 16),
    "BayerGB16": (0x01100030, 16),
    "BayerBG16": (0x01100031, 16),
}


def mosaic(order, colour):
    """What a sensor with that Bayer order sees of a plain colour: the order names the first row's first two pixels."""
    first, second = order
    rows = {"G": {"R": "BG", "B": "RG"}.get(second), "R": "GB", "B": "GR"}[first]
    tile = np.array([[colour["RGB".index(c)] for c in order], [colour["RGB".index(c)] for c in rows]])
    return np.tile(tile, (4, 4))


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("colour", [(200, 20, 60), (10, 220, 90), (5, 30, 240)])
def test_red_stays_red(order, colour):
    sent = mosaic(order, colour).astype(np.uint8)
    found = decode(sent.ravel(), pixel_format(ORDERS[order], f"Bayer{order}8"), 8, 8)
    assert (found == colour).all()


@pytest.mark.parametrize("name", sorted(DEEP))
def test_deep_mosaics_are_scaled_to_16_bits(name):
    code, depth = DEEP[name]
    form = pixel_format(code)
    assert (form.name, form.dtype) == (name, "uint16")
    colour = np.array([3, 1, 2]) << (depth - 2)
    sent = mosaic(name[5:7], colour).astype("<u2").view(np.uint8)
    assert (decode(sent.ravel(), form, 8, 8) == colour << (16 - depth)).all()


def test_a_mosaic_of_a_picture_is_near_the_picture():
    """Red at one side, blue at the other: a mirrored or shifted order would swap them somewhere."""
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (32, 1)), np.full((32, 32), 90, np.uint8), np.tile(ramp[::-1], (32, 1))], axis=2)
    raw = picture[:, :, 1].copy()
    raw[0::2, 0::2], raw[1::2, 1::2] = picture[0::2, 0::2, 0], picture[1::2, 1::2, 2]
    found = decode(raw.ravel(), pixel_format(ORDERS["RG"]), 32, 32)
    assert cv2.absdiff(found, picture)[2:-2, 2:-2].max() <= 10


def test_packed_mosaics_are_unpacked_first():
    form = pixel_format(CODES["BayerRG12Packed"])
    samples = mosaic("RG", (0xABC, 0x123, 0x456)).ravel().reshape(-1, 2)
    packed = [(a >> 4, (b & 15) << 4 | a & 15, b >> 4) for a, b in samples.tolist()]
    found = decode(np.array(packed, np.uint8).ravel(), form, 8, 8)
    assert (found == np.array([0xABC0, 0x1230, 0x4560])).all()


def test_an_unknown_format_is_named_with_those_that_are_known():
    with pytest.raises(CameraError, match=r"YUV422_8.*0x02100032") as error:
        pixel_format(0x02100032, "YUV422_8")
    assert "Mono12p" in error.value.do
    assert "BayerBG10Packed" in error.value.do


def test_the_codes_are_those_of_aravis():
    gi = pytest.importorskip("gi", reason="PyGObject is not installed")
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip("Aravis 0.8 is not installed")
    from gi.repository import Aravis

    names = [n for n in dir(Aravis) if n.startswith(("PIXEL_FORMAT_MONO", "PIXEL_FORMAT_BAYER"))]
    checked = 0
    for name in names:
        if name.endswith("SIGNED"):
            continue
        words = name[len("PIXEL_FORMAT_") :].split("_")
        expected = "".join(
            w if w.isdigit() or w in ("RG", "GR", "GB", "BG") else w.lower() if w.endswith("P") else w.capitalize()
            for w in words
        )
        assert pixel_format(getattr(Aravis, name)).name == expected
        checked += 1
    assert checked >= 35
