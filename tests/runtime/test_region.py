from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.bundle import REGION, decode_bundle
from lineward.runtime.errors import BundleError
from lineward.runtime.region import decode_region, encode_region, patches_within

MIDDLE = np.zeros((64, 64), np.bool_)
MIDDLE[16:40, 24:48] = True


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def huge():
    """A header that claims 4 billion pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 1 << 16, 1 << 16, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def values(*found):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[0, : len(found)] = found
    return pixels


def test_a_bundle_keeps_its_region(rebundle):
    bundle = decode_bundle(rebundle({REGION: encode_region(MIDDLE)}), "b.lineward")
    np.testing.assert_array_equal(bundle.region, MIDDLE)
    assert bundle.view.share == pytest.approx(24 * 24 / 64**2)


def test_a_bundle_without_a_region_counts_all(tiny):
    assert tiny.region is None
    assert tiny.view.share == 1
    assert tiny.view.counts.all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "8-bit gray PNG of 64x64 pixels"),
        (b"no picture", "8-bit gray PNG"),
        (encode_region(MIDDLE)[:60], "8-bit gray PNG"),
        (encode_region(MIDDLE[:63]), "8-bit gray PNG"),
        (encode_region(np.ones((128, 128), np.bool_)), "8-bit gray PNG"),
        (png(np.full((64, 64, 3), 255, np.uint8)), "8-bit gray PNG"),
        (png(np.full((64, 64), 65535, np.uint16)), "8-bit gray PNG"),
        (cv2.imencode(".jpg", MIDDLE.astype(np.uint8))[1].tobytes(), "8-bit gray PNG"),
        (huge(), "8-bit gray PNG"),
        (png(values(255, 254)), "0 and 255 alone"),
        (png(values(255, 1)), "0 and 255 alone"),
        (png(values()), "nothing of the image counts"),
    ],
)
def test_a_region_that_is_none(data, message, rebundle):
    with pytest.raises(BundleError, match=message) as caught:
        decode_bundle(rebundle({REGION: data}), "here.lineward")
    assert caught.value.what.startswith("here.lineward: region.png: ")


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_round_trip(height, width, data):
    bits = data.draw(st.binary(min_size=height * width, max_size=height * width).filter(any))
    region = (np.frombuffer(bits, np.uint8) > 0).reshape(height, width)
    np.testing.assert_array_equal(decode_region(encode_region(region), height, width, "r"), region)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_patch_counts_if_any_of_its_pixels_does(rows, columns, tall, wide, seed):
    region = np.random.default_rng(seed).random((rows * tall, columns * wide)) < 0.1
    expected = region.reshape(rows, tall, columns, wide).any((1, 3))
    np.testing.assert_array_equal(patches_within(region, rows, columns), expected)
