from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.errors import ImageError
from lineward.runtime.preprocessing import Preprocessing, preprocess


def random_frame(shape, dtype=np.uint8, seed=0, low=0, high=None):
    """The legacy generator gives the same numbers in every version of numpy and on every machine."""
    high = np.iinfo(dtype).max if high is None else high
    return np.random.RandomState(seed).randint(low, high + 1, shape).astype(dtype)


def halved(pixels):
    """Means of 2x2 pixels, a half rounded up."""
    wide = pixels.astype(np.int64)
    return ((wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2] + 2) >> 2).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3), (480, 640, 3), (100, 37), (8, 8, 3), (9, 500), (1000, 8, 3)])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 32), (8, 200)])
def test_shape_type_and_layout(shape, dtype, width, height):
    pixels = preprocess(random_frame(shape, dtype), Preprocessing(width=width, height=height))
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("shape", [(64, 64), (200, 150), (40, 50)])
def test_gray_is_repeated(shape):
    frame = random_frame(shape)
    pixels = preprocess(frame, Preprocessing(64, 64))
    colour = preprocess(np.stack([frame] * 3, axis=2), Preprocessing(64, 64))
    np.testing.assert_array_equal(pixels, colour)
    np.testing.assert_array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_sixteen_bits_give_their_high_byte():
    frame = random_frame((120, 90, 3), np.uint16)
    expected = preprocess((frame >> 8).astype(np.uint8), Preprocessing(64, 64))
    np.testing.assert_array_equal(preprocess(frame, Preprocessing(64, 64)), expected)


def test_a_frame_of_the_right_size_is_kept():
    frame = random_frame((48, 64, 3))
    np.testing.assert_array_equal(preprocess(frame, Preprocessing(width=64, height=48)), frame)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "colour"])
@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_multiples_by_a_power_of_two_are_exact_means(halvings, channels):
    frame = random_frame((24 << halvings, 40 << halvings, *channels))
    expected = frame
    for _ in range(halvings):
        expected = halved(expected)
    pixels = preprocess(frame, Preprocessing(width=40, height=24))
    np.testing.assert_array_equal(pixels if frame.ndim == 3 else pixels[:, :, 0], expected)


@pytest.mark.parametrize(
    ("block", "mean"),
    [((0, 0, 0, 1), 0), ((0, 0, 1, 1), 1), ((0, 1, 1, 1), 1), ((254, 255, 254, 255), 255), ((255, 255, 255, 252), 254)],
)
def test_halving_rounds_a_half_up(block, mean):
    frame = np.tile(np.array(block, np.uint8).reshape(2, 2), (8, 8))
    assert np.all(preprocess(frame, Preprocessing(8, 8)) == mean)


@pytest.mark.parametrize(
    "view",
    [
        lambda frame: frame[:, ::-1],
        lambda frame: frame[::-1],
        lambda frame: frame[:, :, ::-1],
        lambda frame: frame.transpose(1, 0, 2),
        lambda frame: frame[::2, ::3],
        np.asfortranarray,
    ],
    ids=["mirrored", "upside-down", "bgr", "turned", "strided", "fortran"],
)
@pytest.mark.parametrize("size", [64, 48])
def test_memory_layout_does_not_matter(view, size):
    frame = view(random_frame((64, 64, 3)))
    frame.flags.writeable = False
    spec = Preprocessing(size, size)
    np.testing.assert_array_equal(preprocess(frame, spec), preprocess(np.ascontiguousarray(frame), spec))


def test_the_frame_is_left_alone():
    frame = random_frame((100, 100, 3))
    before = frame.copy()
    preprocess(frame, Preprocessing(64, 64))
    np.testing.assert_array_equal(frame, before)


sides = st.integers(8, 300)


@settings(max_examples=80, deadline=None)
@given(
    height=sides,
    width=sides,
    to_height=st.integers(8, 96),
    to_width=st.integers(8, 96),
    low=st.integers(0, 255),
    span=st.integers(0, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_output_stays_within_the_input(height, width, to_height, to_width, low, span, seed):
    frame = random_frame((height, width), seed=seed, low=low, high=min(255, low + span))
    pixels = preprocess(frame, Preprocessing(width=to_width, height=to_height))
    assert frame.min() <= pixels.min()
    assert pixels.max() <= frame.max()


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, value=st.integers(0, 65535), deep=st.booleans(), target=st.integers(8, 96))
def test_constant_frames_stay_constant(height, width, value, deep, target):
    frame = np.full((height, width), value if deep else value >> 8, np.uint16 if deep else np.uint8)
    assert np.all(preprocess(frame, Preprocessing(target, target)) == value >> 8)


@pytest.mark.parametrize(
    ("shape", "dtype", "width", "height", "sha256"),
    [
        ((256, 256, 3), np.uint8, 256, 256, "2b98fa69606c4c58e7116b57fb5558664bdf3b6e8f78f06237608c402402a36a"),
        ((512, 512, 3), np.uint8, 256, 256, "0563338b5bd36b576fc4cd9ed74e535cac3dab62b80295a62ff8f59c5c781ac3"),
        ((1024, 1024), np.uint8, 256, 256, "b3c0eb127bf36d85ebae7732652d78ad480fdb0de231d24102a104b033c9ebce"),
        ((480, 640, 3), np.uint8, 256, 256, "e9fb1858e1cdc00398904a52e3d409e980ab6eb8607c6539253bdb65b1a94092"),
        ((900, 1200), np.uint8, 320, 224, "892fc6318d54d839302394b7176a29a15f0bf372cbad10db25e02721c70511be"),
        ((1001, 777, 3), np.uint8, 64, 96, "dde97a7880188af64eac22840e8347ed24d4677e2f0f09d0d11f702875ecf53b"),
        ((100, 130, 3), np.uint8, 64, 64, "8b55079c5022664f39af8de3684c0ce89f0765f5c106f8426dbb362c790990f3"),
        ((50, 61), np.uint8, 256, 256, "f7878b740c6b4596549ecd88354e334cef08cc702bb391f6ac0f334580b93b9f"),
        ((37, 900, 3), np.uint8, 128, 128, "7dbc99cbc6215c6ef6aa3a6cc359dfef3f805a43f488077231e2797a77a1964e"),
        ((300, 200, 3), np.uint16, 128, 96, "8f9791357ed2b59094cd0db5d374785d89f9f24c565629550c36f5f7d10e5e8e"),
        ((1200, 1600), np.uint16, 448, 448, "fea703abf38792044e65cacf24042d149a0166a5e68546cf0e4317e725327b70"),
    ],
)
def test_bits_are_the_same_on_every_machine(shape, dtype, width, height, sha256):
    """A bank learned on one processor serves on another only while this holds; no version of OpenCV may break it."""
    pixels = preprocess(random_frame(shape, dtype, seed=1), Preprocessing(width=width, height=height))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == sha256


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (None, "NoneType"),
        ([[1, 2], [3, 4]], "list"),
        ("part.png", "str"),
        (np.zeros((64, 64), np.float32), "float32"),
        (np.zeros((64, 64), np.int16), "int16"),
        (np.zeros((64, 64), bool), "bool"),
        (np.zeros((64, 64), ">u2"), ">u2"),
        (np.zeros(64, np.uint8), "(64,)"),
        (np.zeros((64, 64, 1), np.uint8), "(64, 64, 1)"),
        (np.zeros((64, 64, 4), np.uint8), "(64, 64, 4)"),
        (np.zeros((3, 64, 64), np.uint8), "(3, 64, 64)"),
        (np.zeros((1, 64, 64, 3), np.uint8), "(1, 64, 64, 3)"),
        (np.zeros((7, 64), np.uint8), "64x7"),
        (np.zeros((64, 7, 3), np.uint8), "7x64"),
        (np.zeros((0, 0), np.uint8), "0x0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_frames_that_cannot_be_inspected(frame, what):
    with pytest.raises(ImageError) as caught:
        preprocess(frame, Preprocessing(64, 64))
    assert what in caught.value.what
    assert caught.value.do.startswith("pass ")
