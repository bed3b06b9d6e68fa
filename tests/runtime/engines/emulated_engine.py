"""The TensorRT engine with a double of TensorRT, on real PyCUDA and the shipped kernel, on the emulated GPU.

test_tensorrt_emulated.py starts it in a process of its own, with libcuda.so.1 replaced.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.cuda.device import Device, open_device
from lineward.runtime.engines.tensorrt import TensorRTEngine
from lineward.runtime.tensorrt.plan import load_plan
from tests.tensorrt_double import FRAME, MAX_BATCH, Bench, bank, embeddings_of, tensorrt_double


class OnDriver(Bench):
    """The double's plan reads and writes the memory of a driver; only one stream is ever used."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device, self.written = device, []

    def use(self, stream: Any) -> None:
        self.stream = stream
        self.streams = {stream.handle: self}

    def enqueue(self, work: Any) -> None:
        self.stream.synchronize()
        work()

    def read(self, address: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        frames = np.empty(shape, np.uint8)
        self.device.cuda.memcpy_dtoh(frames, address)
        return frames

    def write(self, address: int, values: NDArray[np.float32]) -> None:
        self.written.append(values)  # alive until the copy has run
        self.device.cuda.memcpy_htod_async(address, values, self.stream)


def main() -> None:
    device = open_device()
    bench = OnDriver(device)
    rng = np.random.default_rng(0)
    with TensorRTEngine(device, load_plan(tensorrt_double(bench), b"a plan"), bank(), (2, 3)) as engine:
        bench.use(engine._similarity.stream)
        for count in (0, 1, MAX_BATCH, 3 * MAX_BATCH + 1):
            images = rng.integers(0, 255, (count, *FRAME), dtype=np.uint8)
            images[count // 2 :][:1] = 255  # not finite
            similarity = (embeddings_of(images) @ bank().T).max(axis=-1).reshape(-1, 2, 3)
            np.testing.assert_allclose(engine.score(images), 1 - similarity, atol=2**-9)
            assert np.isnan(similarity).any() == (count > 0)


if __name__ == "__main__":
    main()
