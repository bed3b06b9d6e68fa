"""The shipped launcher, run through real PyCUDA on the fake driver: one scenario per process.

test_fake_driver.py starts `python -m tests.runtime.cuda.scenarios NAME` with libcuda.so.1 replaced. There the
GPU is emulated, memory is bounded and dirty, and work happens only when something waits for it.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lineward.runtime.cuda import Device, FusedSimilarity, open_device
from lineward.runtime.cuda import module as module_file
from lineward.runtime.cuda.cublas import beside_cublas
from lineward.runtime.errors import EngineError
from lineward.runtime.selfcheck import SHAPES, check_shape
from tests.runtime.cuda.checks import exact, integers, unit_rows


def count(what: str) -> int:
    """Ask the fake driver: bytes allocated, to_host or to_device; contexts retained or current; refusals."""
    ask = ctypes.CDLL(None).lineward_fake_count
    ask.restype = ctypes.c_size_t
    return int(ask(what.encode()))


def on_device(fused: FusedSimilarity, device: Device, rows: NDArray[Any]) -> Any:
    """Write rows to new device memory on the shared stream, as TensorRT would: not there yet on return."""
    with device.current():
        memory = device.cuda.mem_alloc(rows.nbytes)
        device.cuda.memcpy_htod_async(memory, rows, fused.stream)
    return memory


def assert_nearest(
    got: tuple[NDArray[np.float32], NDArray[np.int64]],
    queries: NDArray[np.floating],
    bank: NDArray[np.float32],
) -> None:
    similarity, index = got
    want = exact(queries, bank)
    assert similarity.dtype == np.float32
    assert index.dtype == np.int64
    np.testing.assert_allclose(similarity, want[np.arange(len(queries)), index], rtol=0, atol=1e-6)
    np.testing.assert_allclose(similarity, want.max(axis=1), rtol=0, atol=2**-9)
    assert (index == want.argmax(axis=1)).mean() > 0.95


def answers_are_right_and_only_results_come_back() -> None:
    rng = np.random.default_rng(0)
    for q, m, c, capacity in [
        (1, 1, 1, 1),
        (70, 300, 96, 100),
        (33, 129, 45, 33),
        (50, 700, 160, 20),
        (448, 640, 32, 448),
    ]:
        bank, queries = unit_rows(rng, m, c), unit_rows(rng, q, c)
        before = count("to_host")
        with FusedSimilarity(bank, capacity=capacity) as fused:
            assert_nearest(fused.similarity(queries), queries, bank)
            assert count("current") == 0
            assert count("to_host") - before == 8 * q
            assert fused.device_bytes == count("allocated")
        assert count("allocated") == 0
        assert count("contexts") == 1


def integer_results_are_bit_equal() -> None:
    rng = np.random.default_rng(1)
    bank, queries = (integers(rng, n, 40).astype(np.float32) for n in (500, 130))
    bank[250:] = bank[:250]
    want = exact(queries, bank)
    with FusedSimilarity(bank) as fused:
        similarity, index = fused.similarity(queries)
        np.testing.assert_array_equal(similarity, want.max(axis=1).astype(np.float32))
        np.testing.assert_array_equal(index, want.argmax(axis=1))
        assert fused.similarity(queries[:0])[1].shape == (0,)


def device_pointers_share_the_stream_and_two_results_wait() -> None:
    rng = np.random.default_rng(2)
    bank = unit_rows(rng, 200, 64)
    device = open_device()
    fused = FusedSimilarity(bank, capacity=80, device=device)
    assert isinstance(fused.stream_handle, int)
    first, second = unit_rows(rng, 80, 64), unit_rows(rng, 50, 64).astype(np.float16)
    memory = [on_device(fused, device, rows) for rows in (first, second)]
    pending = [fused.enqueue(int(memory[0]), 80), fused.enqueue(int(memory[1]), 50, "float16")]
    with pytest.raises(EngineError, match="have not been read"):
        fused.enqueue(int(memory[0]), 80)
    assert_nearest(pending[1].result(), second, bank)
    assert_nearest(pending[0].result(), first, bank)
    with pytest.raises(EngineError, match="already read"):
        pending[0].result()
    for _ in range(3):
        assert_nearest(fused.enqueue(int(memory[0]), 80).result(), first, bank)
    fused.close()
    fused.close()
    assert fused.device_bytes == 0
    with pytest.raises(EngineError, match="closed"):
        fused.enqueue(int(memory[0]), 80)
    with pytest.raises(EngineError, match="closed"):
        fused.similarity(first)
    with device.current():
        memory.clear()
    assert count("allocated") == 0


def another_thread_may_use_it() -> None:
    rng = np.random.default_rng(5)
    bank, queries = unit_rows(rng, 150, 64), unit_rows(rng, 20, 64)
    fused = FusedSimilarity(bank)

    def use() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with fused:
            return fused.similarity(queries)

    with ThreadPoolExecutor(1) as pool:
        assert_nearest(pool.submit(use).result(), queries, bank)
    assert count("allocated") == 0
    assert count("current") == 0


def nan_is_never_a_score() -> None:
    rng = np.random.default_rng(3)
    bank, queries = unit_rows(rng, 150, 33), unit_rows(rng, 9, 33)
    queries[4, 32] = np.nan
    with FusedSimilarity(bank) as fused:
        similarity, _ = fused.similarity(queries)
    np.testing.assert_array_equal(np.isnan(similarity), np.arange(9) == 4)


def the_selfcheck_agrees() -> None:
    for shape in SHAPES[:2]:
        assert "as numpy, exact cases to the bit" in check_shape(open_device(), *shape)


def the_selfcheck_finds_a_wrong_similarity() -> None:
    right = FusedSimilarity.similarity
    for wrong in (lambda s, i: (s * 0.99, i), lambda s, i: (s + 1e-4, i), lambda s, i: (s, i + 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FusedSimilarity, "similarity", lambda self, q, wrong=wrong: wrong(*right(self, q)))
            with pytest.raises(EngineError, match="report this"):
                check_shape(open_device(), 17, 129, 96)


class CupyArray(np.ndarray[Any, Any]):
    """As much of CuPy's array as the comparison uses, in numpy."""

    def get(self) -> NDArray[Any]:
        return np.asarray(self)


def cupy_double(wrong: float = 0.0) -> Any:
    """As much of CuPy as the comparison uses; `wrong` is added to what it computes with."""
    pool = SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: 0)
    return SimpleNamespace(
        float16=np.float16,
        asarray=lambda rows, dtype: (rows + np.float32(wrong)).astype(dtype).view(CupyArray),
        get_default_memory_pool=lambda: pool,
    )


def the_kernel_agrees_with_cublas() -> None:
    rng = np.random.default_rng(5)
    bank, queries = unit_rows(rng, 300, 33), unit_rows(rng, 70, 33)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy_double())
        assert "70 x 300 x 33: kernel " in beside_cublas(open_device(), queries, bank)
        patch.setitem(sys.modules, "cupy", cupy_double(wrong=0.01))
        with pytest.raises(EngineError, match="disagree"):
            beside_cublas(open_device(), queries, bank)


def wrong_arguments_are_refused() -> None:
    rows = np.ones((4, 8), np.float32)
    for bad in (rows[0], rows.astype(np.float64), rows[:0], rows[:, :0], rows * np.float32(np.nan)):
        with pytest.raises(EngineError, match="the bank"):
            FusedSimilarity(bad)
    with pytest.raises(EngineError, match="capacity is 0"):
        FusedSimilarity(rows, capacity=0)
    with FusedSimilarity(rows, capacity=2) as fused:
        for bad in (rows[0], rows.astype(np.float16), rows[:, :7]):
            with pytest.raises(EngineError, match="queries are"):
                fused.similarity(bad)
        for number in (0, 3):
            with pytest.raises(EngineError, match="not 1 to 2"):
                fused.enqueue(0, number)
        with pytest.raises(EngineError, match="embeddings are int8"):
            fused.enqueue(0, 1, "int8")  # type: ignore[arg-type]


def a_failed_launch_is_an_error() -> None:
    with FusedSimilarity(np.ones((4, 8), np.float32)) as fused:
        pending = fused.enqueue(4096, 1)  # no such memory
        with pytest.raises(EngineError, match="CUDA failed on emulated GPU"):
            pending.result()


def loaded_from(origin: str) -> None:
    rows = unit_rows(np.random.default_rng(4), 60, 32)
    with FusedSimilarity(rows) as fused:
        assert fused.origin == origin
        np.testing.assert_array_equal(fused.similarity(rows)[1], np.arange(60))


def nothing_loads() -> None:
    with pytest.raises(EngineError) as caught:
        FusedSimilarity(np.ones((4, 8), np.float32))
    for origin in ("fused_max.sm_87.cubin: ", "fused_max.ptx: ", "nvcc: "):
        assert origin in caught.value.what
    assert count("allocated") == 0
    assert count("current") == 0


def a_damaged_file_is_passed_over() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cuda"
        shutil.copytree(module_file.HERE, folder)
        cubin = folder / "fused_max.sm_87.cubin"
        content = bytearray(cubin.read_bytes())
        content[1000] ^= 1
        cubin.write_bytes(content)
        device = open_device()
        with device.current():
            kernels = module_file.load_kernels(device, folder)
            assert kernels.origin == "fused_max.ptx"
            assert "damaged" in kernels.refused[0]
            del kernels


def refused_with(words: str) -> None:
    """No FusedSimilarity here, but a reason in words, and nothing left behind."""
    with pytest.raises(EngineError) as caught:
        FusedSimilarity(np.ones((2000, 256), np.float32))
    assert words in caught.value.what, str(caught.value)
    assert caught.value.do
    if hasattr(ctypes.CDLL(None), "lineward_fake_count"):
        assert count("allocated") == 0
        assert count("current") == 0


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
