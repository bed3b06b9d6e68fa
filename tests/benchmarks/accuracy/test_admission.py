from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.accuracy import admission
from benchmarks.accuracy.admission import WithSupport, supported_points
from lineward.export.bank import build_bank
from lineward.runtime.cli.console import NoProgress

Rows = NDArray[np.float32]

# Unit vectors with coordinates in quarters: their inner products are exact, in whatever order they are summed.
LATTICE = (
    np.array([v for v in itertools.product(range(-3, 4), repeat=5) if sum(x * x for x in v) == 16], np.float32) / 4
)


def supported_reference(candidates: Rows, start: Rows, count: int, origins: NDArray[np.intp]) -> Rows:
    """The farthest of all each time; what no other image shows waits until nothing else is left."""
    to_start = (candidates @ start.T).max(1)
    order = np.argsort(to_start, kind="stable")
    candidates, to_start, origins = candidates[order], to_start[order], origins[order]
    nearest, left, picks, refused = to_start.copy(), list(range(len(candidates))), [], []
    while left and len(picks) < count:
        best = min(left, key=lambda i: (nearest[i], i))
        left.remove(best)
        supporters = [
            i
            for i in range(len(candidates))
            if origins[i] != origins[best] and candidates[i] @ candidates[best] > nearest[best] >= to_start[i]
        ]
        if supporters:
            picks.append(candidates[best])
            nearest = np.maximum(nearest, candidates @ candidates[best])
        else:
            refused.append(candidates[best])
    return np.array((picks + refused[::-1])[:count])


@settings(max_examples=150, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(LATTICE) - 1), min_size=3, max_size=60),
    images=st.integers(2, 5),
    share=st.floats(0, 1),
    block=st.sampled_from([1, 2, 3, 7, 16384]),
)
def test_what_one_image_alone_shows_comes_last(chosen: list[int], images: int, share: float, block: int):
    rows = LATTICE[chosen]
    start, candidates = rows[:1], rows[1:]
    origins = np.arange(len(candidates)) % images
    count = max(1, round(share * len(candidates)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "_BLOCK", block)
        picks = supported_points(candidates, start, count, origins)
    np.testing.assert_array_equal(picks, supported_reference(candidates, start, count, origins))


def test_the_bank_of_the_product_then_lacks_what_one_image_shows():
    images = np.random.default_rng(0).normal((1, 0, 0, 0), (0, 0.3, 0.3, 0), (3, 64, 4)).astype(np.float32)
    images[2, 5] = 0, 0, 0, 1
    images /= np.linalg.norm(images, axis=2, keepdims=True)
    banks = []

    class Square:
        setting = type("Setting", (), {"side": 8})

    def system(_material, seed, _progress):
        banks.append(build_bank(lambda: images, 3, 64, rows=16, seed=seed))

    for each in (system, WithSupport(system), system):
        each(Square, 0, NoProgress())
    assert [bool((bank[:, 3] == 1).any()) for bank in banks] == [True, False, True]
