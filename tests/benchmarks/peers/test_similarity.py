"""Every peer that is installed gives the same similarities; the others skip by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import similarity
from benchmarks.peers.growth import exponent
from lineward.runtime.bundle import EMBEDDING, Bundle
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.images import decode_image
from lineward.runtime.preprocessing import preprocess


@pytest.fixture(scope="module")
def files(tiny: Bundle, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The bundle, its bank, and the embeddings of its golden image."""
    folder = tmp_path_factory.mktemp("peers")
    golden = tiny.manifest.golden[0].image
    pixels = preprocess(decode_image(tiny.members[golden], golden), tiny.manifest.preprocessing)
    embeddings = EmbeddingSession(tiny.members[EMBEDDING], tiny.manifest.grid).embed(pixels[np.newaxis])[0]
    np.save(folder / "bank.npy", tiny.bank)
    np.save(folder / "queries.npy", embeddings)
    return tiny_path, folder / "bank.npy", folder / "queries.npy"


@pytest.mark.parametrize(
    ("name", "package"),
    [
        (similarity.OURS, "onnxruntime"),
        ("onnxruntime, Gemm and ReduceMax", "onnxruntime"),
        ("OpenVINO", "openvino"),
        ("torch matmul + amax", "torch"),
        ("torch.cdist + min", "torch"),
        ("faiss IndexFlatIP", "faiss"),
        ("numpy", "numpy"),
    ],
)
def test_everyone_gives_the_same(files: tuple[Path, Path, Path], name: str, package: str):
    pytest.importorskip(package, reason=f"{package} is not installed: `make peers` has it")
    contender = similarity.contenders(*files)[name]
    found = contender.make(*contender.arguments)()
    _, bank, queries = files
    np.testing.assert_allclose(found, (np.load(queries) @ np.load(bank).T).max(1), atol=1e-5)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_an_exponent_is_the_slope_of_the_logarithms(power: float):
    sizes = [256, 1024, 4096]
    assert exponent(sizes, [3e-6 * size**power for size in sizes]) == pytest.approx(power)
