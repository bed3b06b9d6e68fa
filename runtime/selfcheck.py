"""What this device can do, and what could not be checked here: every line is measured, or says why not."""

from __future__ import annotations

import enum
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.bundle import Bundle
from lineward.runtime.cuda.cublas import beside_cublas
from lineward.runtime.cuda.device import Device, open_device
from lineward.runtime.cuda.similarity import GREATEST_LOSS, FusedSimilarity
from lineward.runtime.engines import ENGINES, TENSORRT, open_engine
from lineward.runtime.engines.tensorrt import import_tensorrt
from lineward.runtime.errors import EngineError, LinewardError, first_line
from lineward.runtime.golden import check_golden
from lineward.runtime.images import decode_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import Preprocessing, preprocessed_sha256

PREPROCESSED_SHA256 = "7f2cb0d25cf71c26ac957092bb228d246125cd8f6aa124d1ef651460052cca21"
"""Of a seeded frame of 480x640 pixels brought to 256x256: integer arithmetic, the same on every machine."""
SHAPES = ((1, 1, 32), (17, 129, 96), (65, 1000, 153), (784, 2048, 153), (1024, 4096, 384))
"""Queries, bank rows and dimensions that the kernel is run with: single, ragged and usual ones."""
CUBLAS_SHAPE = (1024, 16384, 160)
"""The same, for the comparison with cuBLAS."""
_PACKAGES = ("lineward", "numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "tensorrt", "pycuda")
_RUNS = 100


class Outcome(str, enum.Enum):
    """How a check ended; what could not be checked is no failure, and no success either."""

    OK = "ok"
    FAILED = "FAILED"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    subject: str
    outcome: Outcome
    finding: str


def selfcheck(bundle: Bundle | None) -> Iterator[Check]:
    """Check this device.

    Args:
        bundle: whose golden images are scored through every engine; without one that is not checked.
    """
    yield Check("machine", Outcome.OK, machine())
    yield Check("packages", Outcome.OK, ", ".join(_versions()))
    yield _attempt("preprocessing", _check_preprocessing)
    yield _attempt("TensorRT", lambda: f"{import_tensorrt().__version__} can be imported", absent=EngineError)
    yield from _check_kernel()
    for name in ENGINES:
        if bundle is None:
            yield Check(f"engine {name}", Outcome.NOT_CHECKED, "no bundle was given: lineward selfcheck BUNDLE")
        else:
            yield _check_engine(bundle, name)


def machine() -> str:
    """Processor, system and, on a Jetson, its release."""
    release = Path("/etc/nv_tegra_release")
    jetson = f", {release.read_text().splitlines()[0].strip('# ')}" if release.exists() else ""
    return f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}{jetson}"


def _versions() -> Iterator[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"no {package}"


def _attempt(subject: str, check: Callable[[], str], absent: type[Exception] | None = None) -> Check:
    """Run a check; an error of the type `absent` says that the thing is not there to be checked."""
    try:
        return Check(subject, Outcome.OK, check())
    except LinewardError as error:
        outcome = Outcome.NOT_CHECKED if absent and isinstance(error, absent) else Outcome.FAILED
        return Check(subject, outcome, f"{error.what}; {error.do}")
    except Exception as error:  # a driver may raise anything, and the report must go on
        return Check(subject, Outcome.FAILED, f"{type(error).__name__}: {first_line(error)}")


def _check_preprocessing() -> str:
    frame = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype(np.uint8)
    digest = preprocessed_sha256(frame, Preprocessing(256, 256))
    if digest != PREPROCESSED_SHA256:
        raise EngineError(
            f"a seeded frame gives other pixels here ({digest[:12]})", do="do not inspect on this device; report this"
        )
    return "a seeded frame gives the very pixels it gives everywhere"


def _check_kernel() -> Iterator[Check]:
    try:
        device = open_device()
    except EngineError as error:
        yield Check("fused kernel", Outcome.NOT_CHECKED, f"{error.what}; {error.do}")
        return
    major, minor = device.capability
    yield Check("GPU", Outcome.OK, f"{device.name}, compute capability {major}.{minor}")
    for queries, rows, dimensions in SHAPES:
        name = f"fused kernel {queries} x {rows} x {dimensions}"
        yield _attempt(name, lambda q=queries, r=rows, d=dimensions: check_shape(device, q, r, d))  # type: ignore[misc]
    yield _check_cublas(device)


def _check_cublas(device: Device) -> Check:
    """The kernel's time and memory beside cuBLAS'; without CuPy that is not checked."""
    subject = "fused kernel beside cuBLAS"
    if importlib.util.find_spec("cupy") is None:
        return Check(subject, Outcome.NOT_CHECKED, "CuPy is not installed: pip install cupy-cuda12x or cupy-cuda13x")
    queries, rows, dimensions = CUBLAS_SHAPE
    rng = np.random.RandomState(0)
    bank, wanted = _unit(rng, rows, dimensions), _unit(rng, queries, dimensions)
    return _attempt(subject, lambda: beside_cublas(device, wanted, bank))


def check_shape(device: Device, queries: int, rows: int, dimensions: int) -> str:
    """Run the kernel on a device and compare with numpy: unit rows to 1e-5, exact arithmetic to the bit.

    The second case has rows of a single 1, whose products any order of summation gives exactly; equal rows make ties.

    Returns:
        What was found, with the time of one search.

    Raises:
        EngineError: a similarity or an index differs, or the device failed.
    """
    rng = np.random.RandomState(0)
    bank, wanted = _unit(rng, rows, dimensions), _unit(rng, queries, dimensions)
    with FusedSimilarity(bank, capacity=queries, device=device) as fused:
        similarity, _ = fused.similarity(wanted)
        seconds = _median_seconds(lambda: fused.similarity(wanted))
        memory = fused.device_bytes
    expected = (wanted @ bank.T).max(1)
    # fp16 may pick a row within 2^-9 of the best: too strict, never too lenient.
    if not (np.all(similarity <= expected + 1e-5) and np.all(similarity >= expected - GREATEST_LOSS)):
        raise EngineError("similarities differ from numpy's", do="do not inspect with this GPU; report this")
    _check_exact(device, rng, queries, rows, dimensions)
    return f"as numpy, exact cases to the bit; {seconds * 1e3:.2f} ms with both copies, {memory / 2**20:.1f} MiB"


def _check_exact(device: Device, rng: np.random.RandomState, queries: int, rows: int, dimensions: int) -> None:
    identity = np.eye(dimensions, dtype=np.float32)
    bank, wanted = identity[rng.randint(0, dimensions, rows)], identity[rng.randint(0, dimensions, queries)]
    with FusedSimilarity(bank, capacity=queries, device=device) as fused:
        similarity, index = fused.similarity(wanted)
    products = wanted @ bank.T
    if not (np.array_equal(similarity, products.max(1)) and np.array_equal(index, products.argmax(1))):
        raise EngineError("exact products are not to the bit", do="do not inspect with this GPU; report this")


def _check_engine(bundle: Bundle, name: str) -> Check:
    subject = f"engine {name}"
    if not bundle.manifest.golden:
        return Check(subject, Outcome.NOT_CHECKED, "the bundle has no golden images")
    try:
        _need_parts(bundle, name)
    except EngineError as error:
        return Check(subject, Outcome.NOT_CHECKED, f"{error.what}; {error.do}")
    return _attempt(subject, lambda: _golden_and_time(bundle, name))


def _need_parts(bundle: Bundle, name: str) -> None:
    """What is not on this device cannot be checked; an engine whose parts are all there must open."""
    if name == TENSORRT:
        import_tensorrt()
        open_device()
    elif name != "cpu":
        open_engine(bundle, name)


def _golden_and_time(bundle: Bundle, name: str) -> str:
    inspector = Inspector(bundle, open_engine(bundle, name))
    slack = GREATEST_LOSS if name == TENSORRT else 0.0
    results = check_golden(bundle, inspector, slack)
    image = bundle.manifest.golden[0].image
    frame = decode_image(bundle.members[image], image)
    seconds = sorted(inspector.inspect(frame).seconds for _ in range(_RUNS))
    worst = max(result.deviation for result in results)
    times = f"p50 {seconds[_RUNS // 2] * 1e3:.1f} ms, p99 {seconds[_RUNS * 99 // 100] * 1e3:.1f} ms of {_RUNS}"
    return f"{len(results)} golden images within {worst:.1e}; frame to verdict {times}"


def _unit(rng: np.random.RandomState, rows: int, dimensions: int) -> NDArray[np.float32]:
    values = rng.standard_normal((rows, dimensions))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


def _median_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(11):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[5]
