"""What the kernels owe, as plain functions of an `EmulatedKernels`.

test_emulator.py runs them on the shipped kernels, mutations.py on faulty ones: a check that passes there too
is not worth having.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.runtime.cuda.emulated import EmulatedKernels

Check = Callable[[EmulatedKernels], None]

# (queries, bank rows, width, splits): one of each, around the tile sizes 64 x 128 x 32, splits that do not
# divide the tiles, and splits of which the last has nothing to do (640 rows are 5 tiles: 2 + 2 + 1 + none).
SHAPES = [
    (1, 1, 32, 1),
    (64, 128, 32, 1),
    (63, 127, 96, 1),
    (65, 129, 64, 1),
    (100, 300, 96, 2),
    (100, 300, 128, 3),
    (5, 640, 64, 4),
    (17, 1000, 384, 4),
    (128, 257, 160, 8),
]


def unit_rows(rng: np.random.Generator, n: int, width: int) -> NDArray[np.float32]:
    rows = rng.standard_normal((n, width)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def integers(rng: np.random.Generator, n: int, width: int) -> NDArray[np.float16]:
    """Whole numbers: products and sums are exact in float32 in any order, so results are bit-equal."""
    return rng.integers(-8, 9, (n, width)).astype(np.float16)


def exact(queries: NDArray[np.floating], bank: NDArray[np.floating]) -> NDArray[np.float64]:
    """All similarities, in float64."""
    with np.errstate(invalid="ignore"):
        return queries.astype(np.float64) @ bank.astype(np.float64).T


def expect(kernels: EmulatedKernels, queries: NDArray[np.float16], bank: NDArray[np.float16], splits: int) -> None:
    """Bit-equality with numpy.max and numpy.argmax, NaN included."""
    got, want = kernels.max(queries, bank, splits), exact(queries, bank)
    np.testing.assert_array_equal(got.similarity, want.max(axis=1).astype(np.float32))
    np.testing.assert_array_equal(got.index, want.argmax(axis=1))


def unit_similarities_are_right(kernels: EmulatedKernels) -> None:
    for seed, (nq, nb, width, splits) in enumerate(SHAPES):
        rng = np.random.default_rng(seed)
        queries = unit_rows(rng, nq, width).astype(np.float16)
        bank = unit_rows(rng, nb, width).astype(np.float16)
        got, want = kernels.max(queries, bank, splits, seed), exact(queries, bank)
        np.testing.assert_allclose(got.similarity, want.max(axis=1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(want[np.arange(nq), got.index], want.max(axis=1), rtol=0, atol=2e-6)


def integer_results_are_bit_equal(kernels: EmulatedKernels) -> None:
    for seed, (nq, nb, width, splits) in enumerate(SHAPES):
        rng = np.random.default_rng(seed)
        expect(kernels, integers(rng, nq, width), integers(rng, nb, width), splits)


def every_row_can_win(kernels: EmulatedKernels) -> None:
    """Each query has one nearest row: a swapped lane, row or tile shows as a wrong index."""
    rng = np.random.default_rng(0)
    codes = rng.choice(np.array([-1, 1], np.float16), (300, 64))
    order = rng.permutation(300)
    got = kernels.max(codes[order], codes, splits=2)
    np.testing.assert_array_equal(got.index, order)
    np.testing.assert_array_equal(got.similarity, np.full(300, 64, np.float32))


def every_component_counts(kernels: EmulatedKernels) -> None:
    """Query k and bank row k have only component k, of its own size."""
    sizes = np.arange(1, 97, dtype=np.float16)
    diagonal = np.diag(sizes)
    got = kernels.max(diagonal, np.eye(96, dtype=np.float16))
    np.testing.assert_array_equal(got.similarity, sizes.astype(np.float32))
    np.testing.assert_array_equal(got.index, np.arange(96))


def ties_go_to_the_lowest_index(kernels: EmulatedKernels) -> None:
    """Equal rows at every distance that matters: in a lane, a quad, a warp, a tile, a split, and beyond."""
    rng = np.random.default_rng(3)
    queries = integers(rng, 30, 64)
    for splits, distance in [(1, 1), (1, 2), (1, 8), (1, 64), (1, 128), (2, 256), (3, 300)]:
        half = integers(rng, distance, 64)
        expect(kernels, queries, np.concatenate([half, half, half])[: 3 * distance - 1], splits)
    same = np.broadcast_to(integers(rng, 1, 64), (700, 64)).copy()
    for splits in (1, 3):
        assert (kernels.max(queries, same, splits).index == 0).all()


def negative_similarities_beat_padding(kernels: EmulatedKernels) -> None:
    """Rows past the end of the bank are zeros, and zero is more than any similarity here."""
    rng = np.random.default_rng(4)
    for nq, nb, width, splits in SHAPES:
        expect(kernels, np.abs(integers(rng, nq, width)) + 1, -np.abs(integers(rng, nb, width)) - 1, splits)


def nan_in_a_query_is_its_result(kernels: EmulatedKernels) -> None:
    rng = np.random.default_rng(5)
    queries, bank = integers(rng, 70, 64), integers(rng, 300, 64)
    queries[[0, 13, 64], [0, 63, 40]] = np.nan
    queries[33, 5] = -np.float16(np.nan)
    got, clean = kernels.max(queries, bank, 2), exact(queries, bank).max(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(got.similarity)), [0, 13, 33, 64])
    np.testing.assert_array_equal(got.similarity, clean.astype(np.float32))
    assert (got.index[[0, 13, 33, 64]] == 0).all()


def nan_in_the_bank_is_never_outvoted(kernels: EmulatedKernels) -> None:
    """Wherever the NaN rows lie, every query's result is NaN, at the first of them."""
    rng = np.random.default_rng(6)
    queries = integers(rng, 20, 32)
    for splits, rows in [
        (1, [0]),
        (1, [299]),
        (1, [77, 79]),
        (1, [10, 11, 138]),
        (2, [120, 290]),
        (3, [200, 201]),
    ]:
        bank = integers(rng, 300, 32)
        bank[rows, 3] = np.nan
        expect(kernels, queries, bank, splits)
    opposed = integers(rng, 300, 32)
    opposed[40] = 0
    opposed[40, :2] = np.inf, -np.inf
    expect(kernels, np.ones((20, 32), np.float16), opposed, 1)


def infinities_are_numbers(kernels: EmulatedKernels) -> None:
    bank = np.zeros((130, 32), np.float16)
    bank[:, 0] = -np.inf
    nobody = kernels.max(np.ones((3, 32), np.float16), bank)
    assert np.isnan(nobody.similarity).all()
    assert (nobody.index == -1).all()
    bank[129, 0] = np.inf
    expect(kernels, np.ones((3, 32), np.float16), bank, 1)


def schedule_and_splits_change_nothing(kernels: EmulatedKernels) -> None:
    rng = np.random.default_rng(7)
    queries, bank = unit_rows(rng, 70, 96).astype(np.float16), unit_rows(rng, 700, 96).astype(np.float16)
    bank[350:] = bank[:350]
    want = kernels.max(queries, bank).keys
    for seed, splits in enumerate([1, 1, 2, 3, 4, 5, 6, 9]):
        np.testing.assert_array_equal(kernels.max(queries, bank, splits, seed).keys, want)


def shared_memory_has_no_bank_conflicts(kernels: EmulatedKernels) -> None:
    rng = np.random.default_rng(8)
    assert kernels.max(integers(rng, 64, 64), integers(rng, 128, 64)).bank_conflicts == 0


def no_tile_is_multiplied_twice_or_in_vain(kernels: EmulatedKernels) -> None:
    """However the bank is split: 64 instructions (16 x 8 x 16) per 64 queries, 128 rows and 16 components."""
    rng = np.random.default_rng(12)
    queries, bank = integers(rng, 65, 64), integers(rng, 520, 64)
    for splits in (1, 2, 3, 4, 7):
        assert kernels.max(queries, bank, splits).tile_products == 2 * 5 * 4 * 64


def keys_order_as_numbers_then_indices(kernels: EmulatedKernels) -> None:
    rising = [-np.inf, -3e38, -1.5, -1.0, -1e-45, 0.0, 1e-45, 0.999, 1.0, 3e38, np.inf, np.nan]
    keys = [kernels.key(value, index) for value in rising for index in (2**31 - 2, 5, 0)]
    assert keys == sorted(set(keys))
    assert min(keys) > 0
    assert kernels.key(-0.0, 9) == kernels.key(0.0, 9)
    assert kernels.key(-np.nan, 9) == kernels.key(np.nan, 9)


def narrowing_rounds_to_nearest_even_and_pads_with_zeros(kernels: EmulatedKernels) -> None:
    rng = np.random.default_rng(9)
    special = np.array([0, -0.0, 6e-8, 3e-8, -2.98e-8, 65504, 65519, 65520, -1e9, np.inf, np.nan, 1 + 2**-11])
    for n, width, padded, blocks in [
        (1, 1, 32, 1),
        (5, 31, 32, 2),
        (7, 33, 64, 3),
        (3, 64, 64, 9),
        (9, 160, 160, 4),
    ]:
        rows = rng.standard_normal((n, width)).astype(np.float32)
        rows.flat[: special.size] = special[: rows.size]
        with np.errstate(over="ignore"):
            want = np.pad(rows.astype(np.float16), ((0, 0), (0, padded - width)))
        for given in (rows, want[:, :width].copy()):
            got = kernels.narrow(given, padded, blocks)
            np.testing.assert_array_equal(got, want)
            finite = ~np.isnan(want)
            np.testing.assert_array_equal(got.view(np.uint16)[finite], want.view(np.uint16)[finite])


def keys_for(
    kernels: EmulatedKernels, similarity: NDArray[np.floating], index: NDArray[np.integer]
) -> NDArray[np.uint64]:
    pairs = zip(similarity, index, strict=True)
    return np.array([kernels.key(float(s), int(m)) for s, m in pairs], np.uint64)


def rescoring_is_the_winners_float32_dot_product(kernels: EmulatedKernels) -> None:
    rng = np.random.default_rng(10)
    for nq, nb, width in [(1, 1, 1), (2, 3, 31), (5, 9, 33), (7, 20, 160)]:
        bank, index = unit_rows(rng, nb, width), rng.integers(0, nb, nq)
        keys = keys_for(kernels, rng.uniform(-1, 1, nq), index)
        for queries in (unit_rows(rng, nq, width), unit_rows(rng, nq, width).astype(np.float16)):
            got, at = kernels.rescore(queries, bank, keys)
            want = (queries.astype(np.float64) * bank[index]).sum(axis=1)
            np.testing.assert_allclose(got, want, rtol=0, atol=3e-7)
            np.testing.assert_array_equal(at, index)


def rescoring_never_turns_nan_into_a_number(kernels: EmulatedKernels) -> None:
    rows = np.ones((3, 40), np.float32)
    keys = np.array([0, kernels.key(np.nan, 1), kernels.key(0.5, 1)], np.uint64)
    similarity, index = kernels.rescore(rows, rows, keys)
    np.testing.assert_array_equal(similarity, np.array([np.nan, np.nan, 40], np.float32))
    np.testing.assert_array_equal(index, [-1, 1, 1])
    rows[2, 39] = np.nan
    assert np.isnan(kernels.rescore(rows, rows, keys)[0][2])


def scores_owe_nothing_to_half_precision(kernels: EmulatedKernels) -> None:
    """The three kernels in a row, on near-duplicate rows that halves can hardly tell apart."""
    rng = np.random.default_rng(11)
    centre = unit_rows(rng, 1, 45)
    bank = unit_rows(rng, 150, 45) * np.float32(0.003) + centre
    queries = unit_rows(rng, 40, 45) * np.float32(0.003) + centre
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    winners = kernels.max(kernels.narrow(queries, 64), kernels.narrow(bank, 64), splits=2)
    similarity, index = kernels.rescore(queries, bank, winners.keys)
    want = exact(queries, bank)
    np.testing.assert_allclose(similarity, want[np.arange(40), index], rtol=0, atol=3e-7)
    loss = want.max(axis=1) - similarity
    assert loss.max() <= 2**-9
    assert loss.min() >= -3e-7


CHECKS: list[Check] = [
    every_component_counts,
    every_row_can_win,
    ties_go_to_the_lowest_index,
    nan_in_a_query_is_its_result,
    nan_in_the_bank_is_never_outvoted,
    infinities_are_numbers,
    shared_memory_has_no_bank_conflicts,
    no_tile_is_multiplied_twice_or_in_vain,
    keys_order_as_numbers_then_indices,
    narrowing_rounds_to_nearest_even_and_pads_with_zeros,
    rescoring_is_the_winners_float32_dot_product,
    rescoring_never_turns_nan_into_a_number,
    scores_owe_nothing_to_half_precision,
    negative_similarities_beat_padding,
    schedule_and_splits_change_nothing,
    integer_results_are_bit_equal,
    unit_similarities_are_right,
]


def main(library: str) -> None:
    """Run every check on one compiled library; the first that fails ends the process."""
    kernels = EmulatedKernels(Path(library))
    for check in CHECKS:
        try:
            check(kernels)
        except Exception as error:
            reason = (str(error).strip() or "assertion failed").splitlines()[0]
            sys.exit(f"{check.__name__}: {type(error).__name__}: {reason}")


if __name__ == "__main__":
    main(sys.argv[1])
