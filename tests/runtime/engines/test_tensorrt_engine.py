"""The runtime half of the TensorRT engine against doubles that compute as late as a GPU may."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lineward.runtime.engines.tensorrt import TensorRTEngine, patch_scores
from lineward.runtime.errors import EngineError, ImageError
from lineward.runtime.tensorrt.builder import PlanOptions
from lineward.runtime.tensorrt.plan import load_cached_plan, load_plan, plan_key
from lineward.runtime.tensorrt.plan_cache import PlanCache, PlanKey
from tests.tensorrt_double import (
    FRAME,
    MAX_BATCH,
    PATCHES,
    Bench,
    SimilarityDouble,
    bank,
    device_double,
    embeddings_of,
    tensorrt_double,
)

GRID = (2, 3)
KEY = PlanKey("graph", "float16", "10.3.0", "8.7", "")


def frames(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (count, *FRAME), dtype=np.uint8)


def engine_on(bench: Bench, grid: tuple[int, int] = GRID) -> TensorRTEngine:
    plan = load_plan(tensorrt_double(bench), b"a plan")
    return TensorRTEngine(device_double(bench), plan, bank(), grid, partial(SimilarityDouble, bench))


def expected(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return 1 - (embeddings_of(images) @ bank().T).max(axis=-1).reshape(-1, *GRID)


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(0, 4 * MAX_BATCH + 1), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_scores_of_any_number_of_frames(counts: list[int], seed: int) -> None:
    bench = Bench()
    engine = engine_on(bench)
    for count in counts:
        images = frames(count, seed + count)
        scores = engine.score(images)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected(images), atol=1e-6)
    assert bench.depth == 0


def test_one_batch_is_one_chain_on_one_stream() -> None:
    bench = Bench()
    engine = engine_on(bench)
    addresses = dict(call[1:] for call in bench.calls if call[0] == "set_tensor_address")
    bench.calls.clear()
    engine.score(frames(2))
    (stream,) = bench.streams
    assert len(set(addresses.values())) == 2
    assert bench.calls == [
        ("htod", addresses["images"], 2 * 72, stream),
        ("set_input_shape", "images", (2, *FRAME)),
        ("execute", stream),
        ("similarity", addresses["embeddings"], 2 * PATCHES),
        ("result", 2 * PATCHES),
    ]


def test_batches_are_as_large_as_the_plan_allows_and_read_in_order() -> None:
    bench = Bench()
    engine_on(bench).score(frames(7))
    assert [call[2][0] for call in bench.calls if call[0] == "set_input_shape"] == [3, 3, 1]
    assert [call[2] for call in bench.calls if call[0] == "similarity"] == [18, 18, 6]
    assert [call[1] for call in bench.calls if call[0] == "result"] == [18, 18, 6]


def test_two_batches_are_in_flight_before_the_first_is_waited_for() -> None:
    bench = Bench()
    engine_on(bench).score(frames(3 * MAX_BATCH))
    order = [name for name in bench.names() if name in ("execute", "result")]
    assert order == ["execute", "execute", "result", "execute", "result", "result"]


def test_a_frame_that_is_not_finite_scores_nan_and_leaves_the_others_alone() -> None:
    images = frames(5)
    images[3] = 255
    scores = engine_on(Bench()).score(images)
    assert np.isnan(scores[3]).all()
    np.testing.assert_allclose(scores, expected(images), atol=1e-6)
    assert np.isfinite(np.delete(scores, 3, axis=0)).all()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("similarity", "results have not been read"),
        ("execute", "cannot execute 3 frames"),
        ("shape", "cannot execute 3 frames"),
        ("copy", "illegal memory access"),
    ],
)
def test_a_failed_execution_is_an_error_and_leaves_nothing_in_flight(fault: str, told: str) -> None:
    bench = Bench()
    engine = engine_on(bench)
    bench.faults = {fault}
    with pytest.raises(EngineError, match=told):
        engine.score(frames(3))
    assert bench.depth == 0
    assert [stream.waiting for stream in bench.streams.values()] == [[]]
    bench.faults = set()
    np.testing.assert_allclose(engine.score(frames(8)), expected(frames(8)), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_a_failure_with_other_batches_in_flight(batch: int) -> None:
    bench = Bench()
    engine = engine_on(bench)
    bench.faults = {f"execute {batch}"}
    with pytest.raises(EngineError, match="cannot execute 3 frames"):
        engine.score(frames(4 * MAX_BATCH))
    assert [stream.waiting for stream in bench.streams.values()] == [[]]
    np.testing.assert_allclose(engine.score(frames(8, seed=5)), expected(frames(8, seed=5)), atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("context", "cannot make an execution context"),
        ("memory", "out of memory"),
        ("address of images", "refuses the buffer of"),
        ("address of embeddings", "refuses the buffer of"),
    ],
)
def test_an_engine_that_cannot_be_set_up(fault: str, told: str) -> None:
    bench = Bench(faults={fault})
    with pytest.raises(EngineError, match=told):
        engine_on(bench)
    assert bench.depth == 0


@pytest.mark.parametrize(
    "images",
    [frames(1)[0], frames(1)[:, :3], frames(1).astype(np.float32), frames(1)[..., :2]],
    ids=lambda i: str(i.shape),
)
def test_frames_of_another_kind(images: Any) -> None:
    bench = Bench()
    engine = engine_on(bench)
    bench.calls.clear()
    with pytest.raises(ImageError, match=r"the plan takes uint8 \[N, 4, 6, 3\]"):
        engine.score(images)
    assert bench.calls == []


def test_a_grid_that_does_not_fit() -> None:
    with pytest.raises(EngineError, match="gives 6 patches of 5 channels; the grid is 2 x 4"):
        engine_on(Bench(), grid=(2, 4))


def test_a_bank_that_does_not_fit() -> None:
    plan = load_plan(tensorrt_double(Bench()), b"a plan")
    with pytest.raises(EngineError, match=r"and the bank \[40, 4\]"):
        TensorRTEngine(device_double(Bench()), plan, bank()[:, 1:], GRID)


@pytest.mark.parametrize(
    ("similarity", "score"),
    [(0.25, 0.75), (1, 0), (-1, 2), (1 + 1e-6, 0), (-1 - 1e-6, 2)],
)
def test_a_score_is_one_minus_the_cosine(similarity: float, score: float) -> None:
    (found,) = patch_scores(np.float32([similarity]))
    assert found == np.float32(score)
    assert found.dtype == np.float32


@pytest.mark.parametrize("similarity", [np.nan, np.inf, -np.inf, 1.01, -1.01, 1e30])
def test_what_is_no_cosine_has_no_score(similarity: float) -> None:
    assert np.isnan(patch_scores(np.float32([similarity]))).all()


def test_closing_frees_what_was_allocated() -> None:
    bench = Bench()
    with engine_on(bench):
        bench.calls.clear()
    assert bench.calls == [("close",), *(("free", address) for address in bench.memory)]
    assert bench.depth == 0


def test_a_refused_plan_gives_the_reason() -> None:
    with pytest.raises(EngineError, match="refuses the plan: Version tag does not match"):
        load_plan(tensorrt_double(Bench()), b"of another TensorRT")


@pytest.mark.parametrize("output", [("HALF", (-1, 6, 5)), ("FLOAT", (-1, 30))])
def test_a_plan_of_something_else(output: tuple[str, tuple[int, ...]]) -> None:
    with pytest.raises(EngineError, match="an embedding plan takes uint8"):
        load_plan(tensorrt_double(Bench(output=output)), b"a plan")


def test_a_cached_plan_that_tensorrt_refuses_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = PlanCache(tmp_path)
    cache.plan(KEY, lambda: b"of another TensorRT")
    bench = Bench()
    assert load_cached_plan(tensorrt_double(bench), cache, KEY, lambda: b"a plan").max_batch == MAX_BATCH
    assert bench.calls == [("deserialise", b"of another TensorRT"), ("deserialise", b"a plan")]
    assert cache.load(KEY) == b"a plan"
    assert "Version tag does not match" in caplog.text


def test_the_key_of_a_plan_names_all_that_it_depends_on() -> None:
    trt = tensorrt_double(Bench())
    key = plan_key(trt, b"graph", "float16", (8, 7), PlanOptions(max_batch=2))
    assert (key.precision, key.tensorrt, key.capability) == ("float16", "tensorrt_double 10.3.0", "8.7")
    assert key.graph == hashlib.sha256(b"graph").hexdigest()
    assert key == plan_key(trt, b"graph", "float16", (8, 7), PlanOptions(max_batch=2))
    for other in (PlanOptions(), PlanOptions(2, builder_level=4), PlanOptions(2, workspace_bytes=1 << 20)):
        assert key.name != plan_key(trt, b"graph", "float16", (8, 7), other).name


def test_a_sound_cached_plan_is_not_built(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.plan(KEY, lambda: b"a plan")
    bench = Bench()
    load_cached_plan(tensorrt_double(bench), cache, KEY, pytest.fail)
    assert bench.calls == [("deserialise", b"a plan")]


def test_a_new_plan_that_tensorrt_refuses_is_an_error(tmp_path: Path) -> None:
    bench = Bench(faults={"deserialise"})
    with pytest.raises(EngineError, match="refuses the plan"):
        load_cached_plan(tensorrt_double(bench), PlanCache(tmp_path), KEY, lambda: b"a plan")
    assert bench.names() == ["deserialise"]
