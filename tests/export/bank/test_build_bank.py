from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lineward.export import bank as bank_module
from lineward.export.bank import METHODS, build_bank
from lineward.runtime.errors import TrainingError

Rows = NDArray[np.float32]
IMAGES, PATCHES, DIMENSIONS = 30, 64, 10
RARE = np.eye(DIMENSIONS, dtype=np.float32)[-1]


def unit(rows: NDArray[np.float64]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def patches() -> Rows:
    """Patches around eight modes, the same in every image, and one patch in one image like no other."""
    rng = np.random.default_rng(0)
    modes = np.eye(8, DIMENSIONS)[rng.integers(8, size=(IMAGES, PATCHES))]
    embeddings = unit(modes + rng.normal(scale=0.05, size=modes.shape))
    embeddings[17, 40] = RARE
    return embeddings


@pytest.fixture
def build(patches: Rows) -> Callable[..., Rows]:
    def built(rows: int = 32, method: str = "two-halves", seed: int = 0) -> Rows:
        return build_bank(lambda: iter(patches), IMAGES, PATCHES, rows, method, seed)

    return built


@pytest.fixture(params=[None, IMAGES * 8 + 5, 40], ids=["all", "an eighth", "one an image"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for all patches, for eight of each image, and for one."""
    if request.param:
        monkeypatch.setattr(bank_module, "POOL_ROWS", request.param)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("rows", [2, 3, 17, 30])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_rows_asked_for_of_unit_length(build, method: str, rows: int):
    bank = build(rows, method)
    assert bank.shape == (rows, DIMENSIONS)
    assert bank.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("method", METHODS)
def test_a_seed_fixes_the_bank(build, method: str):
    np.testing.assert_array_equal(build(method=method, rows=16, seed=3), build(method=method, rows=16, seed=3))
    assert not np.array_equal(build(method=method, rows=16, seed=3), build(method=method, rows=16, seed=4))


@pytest.mark.parametrize("method", METHODS)
def test_the_bank_may_be_as_large_as_the_patches_are_many(build, method: str):
    assert len(build(IMAGES * PATCHES, method)) == IMAGES * PATCHES


@pytest.mark.parametrize("method", ["random", "k-centre"])
def test_rows_that_are_patches_are_different_patches(build, patches: Rows, method: str):
    known = {patch.tobytes() for patch in patches.reshape(-1, DIMENSIONS)}
    bank = [row.tobytes() for row in build(64, method)]
    assert set(bank) <= known
    assert len(set(bank)) == 64


def test_half_the_rows_are_centroids_and_half_are_patches(build, patches: Rows):
    known = {patch.tobytes() for patch in patches.reshape(-1, DIMENSIONS)}
    assert [row.tobytes() in known for row in build(33)[16:]] == [True] * 17
    assert not any(row.tobytes() in known for row in build(33)[:16])


@pytest.mark.usefixtures("pool")
def test_two_halves_remember_a_mode_seen_once(build):
    assert (build(24) @ RARE).max() > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_k_means_alone_forgets_a_mode_seen_once(build, seed: int):
    assert (build(24, "k-means", seed) @ RARE).max() < 0.9


@pytest.mark.parametrize("method", METHODS)
def test_the_common_modes_are_in_every_bank(build, method: str):
    modes = np.eye(8, DIMENSIONS, dtype=np.float32)
    assert (modes @ build(96, method).T).max(1).min() > 0.95


@pytest.mark.parametrize("rows", [-1, 0, 1, IMAGES * PATCHES + 1])
def test_rows_out_of_range_are_refused_with_the_range(build, rows: int):
    with pytest.raises(TrainingError, match=f"bank of {rows} rows") as caught:
        build(rows)
    assert f"from 2 to {IMAGES * PATCHES}" in caught.value.do


def test_more_rows_than_the_pool_holds_are_refused(build, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bank_module, "POOL_ROWS", IMAGES * 8 + 5)
    assert len(build(IMAGES * 8)) == IMAGES * 8
    with pytest.raises(TrainingError, match="cannot be chosen") as caught:
        build(IMAGES * 8 + 1)
    assert f"from 2 to {IMAGES * 8}" in caught.value.do


def test_an_unknown_method_lists_the_known_ones(build):
    with pytest.raises(TrainingError, match="no such bank method") as caught:
        build(method="greedy")
    assert all(method in caught.value.do for method in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_progress_ends_at_the_rows(patches: Rows, method: str):
    told: list[int] = []
    build_bank(lambda: iter(patches), IMAGES, PATCHES, 16, method, 0, told.append)
    assert told == sorted(told)
    assert told[-1] == 16
