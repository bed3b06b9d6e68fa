from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import decode_image, encode_png, find_images, read_image, write_png

LOSSLESS, LOSSY = 0, 16


def smooth(channels, dtype=np.uint8, size=(40, 56)):
    """A smooth picture, so that lossy formats stay near it; channels differ, so that a swap would show."""
    noise = np.random.RandomState(0).randint(0, 256, (*size, channels)).astype(np.float64)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3).reshape(*size, channels)
    picture = (blurred + 60 * np.arange(channels) - 60).clip(0, 255)
    scaled = picture * (257 if dtype == np.uint16 else 1)
    return scaled.astype(dtype)[:, :, 0] if channels == 1 else scaled.astype(dtype)


def encoded(image, suffix):
    bgr = image if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(bgr))
    assert done
    return data.tobytes()


def png(width, height, depth, colour, rows, *chunks):
    """A PNG by hand, of kinds that OpenCV does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    filtered = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


@pytest.mark.parametrize(
    ("suffix", "channels", "dtype", "tolerance"),
    [
        (".png", 1, np.uint8, LOSSLESS),
        (".png", 3, np.uint8, LOSSLESS),
        (".png", 1, np.uint16, LOSSLESS),
        (".png", 3, np.uint16, LOSSLESS),
        (".jpg", 1, np.uint8, LOSSY),
        (".jpg", 3, np.uint8, LOSSY),
        (".bmp", 1, np.uint8, LOSSLESS),
        (".bmp", 3, np.uint8, LOSSLESS),
        (".tiff", 1, np.uint8, LOSSLESS),
        (".tiff", 3, np.uint8, LOSSLESS),
        (".tiff", 1, np.uint16, LOSSLESS),
        (".tiff", 3, np.uint16, LOSSLESS),
        (".webp", 3, np.uint8, LOSSLESS),
        (".pgm", 1, np.uint8, LOSSLESS),
        (".pgm", 1, np.uint16, LOSSLESS),
        (".ppm", 3, np.uint8, LOSSLESS),
        (".ppm", 3, np.uint16, LOSSLESS),
        (".jp2", 1, np.uint8, LOSSY),
        (".jp2", 3, np.uint8, LOSSY),
    ],
)
def test_formats_give_the_pixels_in_rgb_order(suffix, channels, dtype, tolerance, tmp_path):
    image = smooth(channels, dtype)
    path = tmp_path / f"part{suffix}"
    path.write_bytes(encoded(image, suffix))
    pixels = read_image(path)
    assert pixels.dtype == dtype
    assert pixels.shape == image.shape
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_alpha_is_dropped(suffix):
    colour = smooth(3)
    alpha = np.full((*colour.shape[:2], 1), 128, np.uint8)
    pixels = decode_image(encoded(np.concatenate([colour, alpha], axis=2), suffix), "part")
    np.testing.assert_array_equal(pixels, colour)


PALETTE = b"".join(bytes(colour) for colour in [(250, 10, 20), (30, 240, 40), (50, 60, 230), (1, 2, 3)])
INDICES = np.array([[0, 1, 2, 3, 0, 1, 2, 3]] * 8, dtype=np.uint8)


def test_palette_becomes_rgb():
    data = png(8, 8, 8, 3, [row.tobytes() for row in INDICES], (b"PLTE", PALETTE))
    expected = np.frombuffer(PALETTE, np.uint8).reshape(4, 3)[INDICES]
    np.testing.assert_array_equal(decode_image(data, "palette.png"), expected)


def test_palette_with_transparency_becomes_rgb():
    data = png(8, 8, 8, 3, [row.tobytes() for row in INDICES], (b"PLTE", PALETTE), (b"tRNS", bytes([0, 255, 128, 255])))
    pixels = decode_image(data, "palette.png")
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_array_equal(pixels[:, 1], [(30, 240, 40)] * 8)


def test_one_bit_png_is_black_and_white():
    data = png(8, 8, 1, 0, [b"\xf0"] * 8)
    np.testing.assert_array_equal(np.unique(decode_image(data, "bits.png")), [0, 255])


def test_gray_with_alpha_keeps_its_gray():
    rows = [bytes(v for column in range(8) for v in (10 * row + column, 200)) for row in range(8)]
    pixels = decode_image(png(8, 8, 8, 4, rows), "gray-alpha.png")
    gray = np.array([[10 * row + column for column in range(8)] for row in range(8)], dtype=np.uint8)
    np.testing.assert_array_equal(pixels if pixels.ndim == 2 else pixels[:, :, 0], gray)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_tiff_is_refused(dtype):
    with pytest.raises(ImageError, match="not supported") as caught:
        decode_image(encoded(smooth(1).astype(dtype), ".tiff"), "depth.tiff")
    assert "depth.tiff" in caught.value.what
    assert "8 or 16 bits" in caught.value.do


@pytest.mark.parametrize("data", [b"", b"\0", b"no image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"P5\n"])
def test_what_is_no_image_is_named(data, tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="not an image, or damaged") as caught:
        read_image(path)
    assert str(path) in caught.value.what
    assert caught.value.do == "replace or remove it"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".pgm", ".ppm", ".jp2"])
def test_truncated_image_is_refused(suffix, share):
    whole = encoded(smooth(1 if suffix == ".pgm" else 3), suffix)
    assert decode_image(whole, "part").size
    with pytest.raises(ImageError, match="part: not an image, or damaged"):
        decode_image(whole[: int(len(whole) * share)], "part")


def test_jpeg_padded_after_its_end_is_read():
    whole = encoded(smooth(3), ".jpg")
    np.testing.assert_array_equal(decode_image(whole + b"\0" * 512, "camera.jpg"), decode_image(whole, "part.jpg"))


def test_missing_file_and_folder_are_named(tmp_path):
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be read") as caught:
            read_image(path)
        assert str(path) in caught.value.what
        assert "check the path" in caught.value.do


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (1, np.uint16), (3, np.uint16)])
def test_png_round_trip(channels, dtype):
    image = smooth(channels, dtype)
    np.testing.assert_array_equal(decode_image(encode_png(image), "part"), image)


def test_write_png_into_a_missing_folder_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match="cannot be written"):
        write_png(tmp_path / "missing" / "part.png", smooth(3))
    write_png(tmp_path / "part.png", smooth(3))
    np.testing.assert_array_equal(read_image(tmp_path / "part.png"), smooth(3))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_image_or_an_image_error(data):
    with contextlib.suppress(ImageError):
        assert decode_image(data, "part").dtype in (np.uint8, np.uint16)


# ---- find_images ---------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    for name in ("b.png", "a.JPG", "notes.txt", "deep/er/c.tiff", "deep/d.bmp", "deep/e.csv", "other/f.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("named", "found"),
    [
        (["."], ["a.JPG", "b.png", "deep/d.bmp", "deep/er/c.tiff", "other/f.webp"]),
        (["deep"], ["deep/d.bmp", "deep/er/c.tiff"]),
        (["notes.txt"], ["notes.txt"]),
        (["*.png"], ["b.png"]),
        (["deep/**/*.tiff"], ["deep/er/c.tiff"]),
        (["?.*"], ["a.JPG", "b.png"]),
        (["b.png", "a.JPG"], ["b.png", "a.JPG"]),
        (["b.png", "./b.png", "*.png", "."], ["b.png", "a.JPG", "deep/d.bmp", "deep/er/c.tiff", "other/f.webp"]),
        ([Path("other")], ["other/f.webp"]),
    ],
    ids=str,
)
def test_find_images(named, found):
    assert find_images(named) == [Path(name) for name in found]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("place", ["missing.png", "missing", "*.gif", "empty", "folder.png", "x" * 300, "a\0b"])
def test_a_place_without_images_is_named(place):
    with pytest.raises(DataError) as caught:
        find_images(["b.png", place])
    assert place in caught.value.what
    assert caught.value.do


def test_no_places_no_images():
    assert find_images([]) == []
