"""The shipped kernels on the CPU emulator."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tests.runtime.cuda.checks import CHECKS, Check, exact, integers, unit_rows
from tests.runtime.cuda.emulated import EmulatedKernels, LaunchError, compile_emulated

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the kernels cannot be emulated")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    return EmulatedKernels(compile_emulated("kernels.cpp", tmp_path_factory.mktemp("emulator") / "kernels.so"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_kernels(kernels: EmulatedKernels, check: Check) -> None:
    check(kernels)


@seed(0)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_shape_split_and_schedule_is_bit_equal_on_integers(kernels: EmulatedKernels, data: st.DataObject) -> None:
    nq, nb = data.draw(st.integers(1, 140), "nq"), data.draw(st.integers(1, 420), "nb")
    width = 32 * data.draw(st.integers(1, 5), "width / 32")
    splits, schedule = data.draw(st.integers(1, 6), "splits"), data.draw(st.integers(0, 999), "schedule")
    rng = np.random.default_rng(schedule)
    queries, bank = integers(rng, nq, width), integers(rng, nb, width)
    got, want = kernels.max(queries, bank, splits, schedule), exact(queries, bank)
    np.testing.assert_array_equal(got.similarity, want.max(axis=1).astype(np.float32))
    np.testing.assert_array_equal(got.index, want.argmax(axis=1))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(values=st.lists(st.tuples(st.floats(width=32), st.integers(0, 2**31 - 1)), min_size=1, max_size=8))
def test_the_largest_key_is_numpys_maximum(kernels: EmulatedKernels, values: list[tuple[float, int]]) -> None:
    values = sorted(values, key=lambda pair: pair[1])
    similarities = np.array([value for value, _ in values], np.float32)
    best = max((kernels.key(value, index) for value, index in values))
    first = int(np.argmax(similarities))
    assert best == kernels.key(float(similarities[first]), values[first][1])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=16))
def test_any_float_is_narrowed_as_numpy_does(kernels: EmulatedKernels, values: list[float]) -> None:
    rows = np.array([values], np.float32)
    with np.errstate(over="ignore"):
        want = rows.astype(np.float16)
    np.testing.assert_array_equal(kernels.narrow(rows, 32)[:, : rows.shape[1]], want)


class TestTheEmulatorItself:
    """It must be able to say no: each of these is a fault that a GPU would not report."""

    def test_reads_past_the_end_are_an_error(self, kernels: EmulatedKernels) -> None:
        rows = unit_rows(np.random.default_rng(0), 2, 40)
        keys = np.array([kernels.key(0.5, 2), kernels.key(0.5, 0)], np.uint64)
        with pytest.raises(LaunchError, match="out of bounds"):
            kernels.rescore(rows, rows, keys)

    def test_a_misaligned_width_is_an_error(self, kernels: EmulatedKernels) -> None:
        rows = np.ones((3, 36), np.float16)
        with pytest.raises(LaunchError, match="not 16-byte aligned"):
            kernels.max(rows, rows)

    def test_half_precision_tables_agree_with_numpy(self, kernels: EmulatedKernels) -> None:
        """Every half, as query times one, comes back as the float that it is."""
        halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
        halves = halves[np.isfinite(halves)][::7]
        queries = np.zeros((len(halves), 32), np.float16)
        queries[:, 0] = halves
        bank = np.zeros((1, 32), np.float16)
        bank[0, 0] = 1
        np.testing.assert_array_equal(kernels.max(queries, bank).similarity, halves.astype(np.float32))
