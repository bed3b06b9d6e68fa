from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lineward.export import similarity_graph as graphs
from lineward.export.similarity_graph import similarity_graph
from lineward.runtime.bundle import BANK, BANK_TENSOR, SIMILARITY, encode_tensor
from lineward.runtime.manifest import Grid, Split

Rows = NDArray[np.float32]


def unit(rows: NDArray[Any]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def bank_rows(rows: int, dimensions: int, seed: int) -> Rows:
    drawn = np.random.default_rng(seed).normal(size=(rows, dimensions))
    drawn[:, -1] = 2.0
    return unit(drawn)


def embeddings_of(grid: Grid, images: int, seed: int, spread: float = 1.0) -> Rows:
    """Unit embeddings, some much longer than others before normalising, that share what the grid's split says."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(images, grid.rows, grid.columns, grid.dimensions))
    if grid.split:
        drawn *= spread ** rng.normal(size=(images, grid.rows, grid.columns, 1))
        block, own = grid.split.block, grid.split.own
        coarse = drawn[:, ::block, ::block, own:]
        coarse[..., -1] = 2.0
        drawn[..., own:] = coarse.repeat(block, axis=1).repeat(block, axis=2)
    return unit(drawn).reshape(images, -1, grid.dimensions)


def open_similarity(grid: Grid, bank: Rows, options: onnxruntime.SessionOptions) -> tuple[Any, Any]:
    """A session, and the bank that must live as long."""
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    value = onnxruntime.OrtValue.ortvalue_from_numpy(bank)
    options.add_external_initializers([BANK_TENSOR], [value])
    model = similarity_graph(grid, len(bank), 80)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), value


def strips_of(grid: Grid, embeddings: Rows) -> Rows:
    rows = grid.split.block if grid.split else 1
    return embeddings.reshape(-1, rows * grid.columns, grid.dimensions)


def run(grid: Grid, bank: Rows, embeddings: Rows) -> Rows:
    session, _bank = open_similarity(grid, bank, onnxruntime.SessionOptions())
    (similarity,) = session.run(None, {"embeddings": strips_of(grid, embeddings)})
    return similarity  # type: ignore[no-any-return]


def greatest(embeddings: Rows, bank: Rows) -> NDArray[np.float64]:
    return (embeddings.reshape(-1, bank.shape[1]).astype(np.float64) @ bank.T.astype(np.float64)).max(1)


@pytest.mark.parametrize(
    ("grid", "rows", "images"),
    [
        (Grid(1, 1, 2), 1, 1),
        (Grid(8, 8, 13), 64, 1),
        (Grid(4, 4, 153), 257, 3),
        (Grid(4, 6, 155, Split(42, 2)), 1, 1),
        (Grid(8, 8, 155, Split(42, 2)), 2049, 3),
        (Grid(8, 4, 20, Split(3, 4)), 100, 2),
    ],
)
def test_beside_the_bank_that_the_graph_names_it_is_the_greatest_inner_product(
    tmp_path: Path, grid: Grid, rows: int, images: int
):
    bank = bank_rows(rows, grid.dimensions, 0)
    file = encode_tensor(BANK_TENSOR, bank)
    (tmp_path / BANK).write_bytes(file)
    (tmp_path / SIMILARITY).write_bytes(similarity_graph(grid, rows, len(file) - bank.nbytes))
    onnx.checker.check_model(tmp_path / SIMILARITY, full_check=True)
    # onnxruntime finds the bank by itself beside the graph, in the place that the graph names.
    session = onnxruntime.InferenceSession(tmp_path / SIMILARITY, providers=["CPUExecutionProvider"])
    embeddings = embeddings_of(grid, images, seed=1)
    (given,) = session.run(None, {"embeddings": strips_of(grid, embeddings)})
    np.testing.assert_allclose(given, greatest(embeddings, bank), rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    block=st.sampled_from([2, 3, 4]),
    own=st.integers(1, 9),
    shared=st.integers(2, 9),
    rows=st.integers(1, 40),
    most=st.integers(1, 16),
    images=st.integers(1, 3),
    spread=st.sampled_from([1.0, 10.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_split_changes_no_similarity(
    height: int, width: int, block: int, own: int, shared: int, rows: int, most: int, images: int, spread, seed: int
):
    plain = Grid(height * block, width * block, own + shared)
    split = Grid(plain.rows, plain.columns, plain.dimensions, Split(own, block))
    bank = bank_rows(rows, plain.dimensions, seed)
    embeddings = embeddings_of(split, images, seed, spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "BLOCK_ROWS", most)
        found = [run(grid, bank, embeddings) for grid in (plain, split)]
    np.testing.assert_allclose(found[0], greatest(embeddings, bank), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", [None, Split(3, 2)])
@pytest.mark.parametrize("patch", range(16))
def test_an_embedding_that_is_no_number_has_no_similarity_and_may_only_take_its_block_along(
    patch: int, split: Split | None
):
    grid = Grid(4, 4, 8, split)
    bank = bank_rows(50, 8, 0)
    embeddings = embeddings_of(grid, 1, seed=0)
    expected = greatest(embeddings, bank)
    embeddings[0, patch] = np.nan
    given = run(grid, bank, embeddings)
    assert np.isnan(given[patch])
    row, column = np.divmod(np.arange(16), 4)
    elsewhere = (row // 2 != patch // 4 // 2) | (column // 2 != patch % 4 // 2)
    np.testing.assert_allclose(given[elsewhere], expected[elsewhere], rtol=0, atol=1e-5)
    assert np.isnan(given[~elsewhere]).sum() in (1, 4)


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 2048, 5000])
def test_blocks_hold_every_row_once_and_no_more_than_they_may(rows: int):
    blocks = list(graphs._blocks(rows))
    assert [row for start, end in blocks for row in range(start, end)] == list(range(rows))
    assert max(end - start for start, end in blocks) <= graphs.BLOCK_ROWS
    assert len(blocks) == -(-rows // graphs.BLOCK_ROWS)


@pytest.mark.parametrize("split", [None, Split(40, 2)])
def test_onnxruntime_multiplies_one_block_after_another_without_cutting_the_bank_anew(
    tmp_path: Path, split: Split | None
):
    """So the products of one block are gone before the next, and memory does not grow with the bank."""
    grid = Grid(4, 4, 153, split)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session, bank = open_similarity(grid, bank_rows(5000, 153, 0), options)
    session.run(None, {"embeddings": strips_of(grid, embeddings_of(grid, 1, seed=0))})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    products = [node["op_name"] for node in ran if node["op_name"] in ("Gemm", "ReduceMax")]
    block = {"Gemm": 5, "ReduceMax": 4} if split else {"Gemm": 1, "ReduceMax": 1}
    size = sum(block.values())
    assert [Counter(products[i : i + size]) for i in range(0, len(products), size)] == [block] * 5
    cut = [shape for node in ran if node["op_name"] == "Slice" for shape in node["input_type_shape"][0].values()]
    assert list(bank.shape()) not in cut
