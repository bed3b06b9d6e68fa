from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.export.region import read_region
from lineward.runtime.errors import DataError, ImageError, LinewardError

FRAME = (200, 400)  # rows, columns
SIZE = 80


def region(text):
    return read_region(str(text), FRAME, SIZE, SIZE)


@pytest.fixture
def mask(tmp_path):
    def write(pixels, name="mask.png"):
        path = tmp_path / name
        assert cv2.imwrite(str(path), pixels)
        return path

    return write


def halves(dtype=np.uint8, shape=FRAME):
    """White on the left."""
    pixels = np.zeros(shape, dtype)
    pixels[:, : shape[1] // 2] = np.iinfo(dtype).max
    return pixels


@pytest.mark.parametrize(
    "text",
    [
        "0,0 0.5,0 0.5,1 0,1",
        " 0,0  .5,0\t.5,1.0 0,1 ",
        "0,0 200,0 200,200 0,200",
        "0,0 2e2,0 200,200 0,200",
        "0,0 0.5,0 0.5,1 0,1 0,0",
    ],
)
def test_the_left_half_as_a_polygon(text):
    found = region(text)
    assert found[:, :40].all()
    assert not found[:, 40:].any()


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (halves(), "mask.png"),
        (halves(np.uint16), "mask.png"),
        (np.repeat(halves()[:, :, np.newaxis], 3, axis=2), "mask.png"),
        (halves(), "mask.jpg"),
        (halves(), "mask, 1.bmp"),
        (halves(shape=(100, 200)), "mask.png"),
        (halves(shape=(67, 134)), "mask.png"),
        (halves(shape=(400, 800)), "mask.png"),
    ],
)
def test_the_left_half_as_a_mask(pixels, name, mask):
    found = region(mask(pixels, name))
    assert found[:, :40].all()
    assert not found[:, 40:].any()


def test_white_alone_counts(mask):
    red = np.zeros((*FRAME, 3), np.uint8)
    red[:, :, 2] = 255
    red[50:100, 100:200] = 255
    expected = np.zeros((SIZE, SIZE), np.bool_)
    expected[20:40, 20:40] = True
    np.testing.assert_array_equal(region(mask(red)), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1", "1 corners"),
        ("0,0 1,1", "2 corners"),
        ("0,0 401,0 401,200", "leaves the image, which has 400x200 pixels"),
        ("0,0 0.5,0 0.5,-0.1", "leaves the image"),
        ("0,0 1e999,0 0.5,1", "leaves the image"),
        ("0,0 0.5,0 1.5,1 0,201", "leaves the image"),
        ("missing.png", "missing.png: cannot be read"),
        ("0,0 1,0 x,1", "cannot be read"),
        ("", "cannot be read"),
        (".", "cannot be read"),
    ],
)
def test_what_is_no_region(text, message):
    with pytest.raises((DataError, ImageError), match="region ") as caught:
        region(text)
    assert message in caught.value.what
    assert caught.value.do


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros(FRAME, np.uint8), "nothing of the image counts"),
        (np.full(FRAME, 127, np.uint8), "nothing of the image counts"),
        (halves(shape=(200, 200)), "200x200 pixels, but the images have 400x200"),
        (halves(shape=(400, 200)), "200x400 pixels, but the images have 400x200"),
        (halves(shape=(190, 400)), "400x190 pixels"),
    ],
)
def test_a_mask_that_does_not_serve(pixels, message, mask):
    with pytest.raises(DataError, match="mask") as caught:
        region(mask(pixels))
    assert message in caught.value.what


def test_a_speck_is_nothing(mask):
    speck = np.zeros((2000, 4000), np.uint8)
    speck[77, 77] = 255
    with pytest.raises(DataError, match="nothing of the image counts at 80x80 pixels"):
        read_region(str(mask(speck)), (2000, 4000), SIZE, SIZE)


def test_a_damaged_mask(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(b"\x89PNG no")
    with pytest.raises(ImageError, match=r"region .*not an image, or damaged"):
        region(path)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_whatever_is_typed_gives_a_region_or_an_error_of_ours(text):
    try:
        found = region(text)
    except LinewardError:
        return
    assert found.any()


low, high = st.floats(0, 0.4), st.floats(0.6, 1)


@given(st.tuples(st.tuples(low, low), st.tuples(high, low), st.tuples(high, high), st.tuples(low, high)))
def test_fractions_and_pixels_draw_alike(corners):
    fractions = " ".join(f"{x:.6f},{y:.6f}" for x, y in corners)
    pixels = " ".join(f"{x * 400:.4f},{y * 200:.4f}" for x, y in corners)
    assert np.mean(region(fractions) != region(pixels)) < 0.01
