from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from lineward.runtime.bundle import EMBEDDING, SIMILARITY, decode_bundle
from lineward.runtime.engines.onnxruntime import EmbeddingSession, OnnxRuntimeEngine
from lineward.runtime.errors import EngineError
from lineward.runtime.inspection import Reason, Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import preprocess

FLOAT, UINT8, INT64, STRING, DOUBLE = 1, 2, 7, 8, 11
BANK_OUTSIDE = ("bank.safetensors", (64, 15))


@pytest.fixture(scope="module")
def images(tiny, golden_frames):
    noise = np.random.RandomState(0).randint(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    return np.concatenate([np.stack([preprocess(f, tiny.manifest.preprocessing) for f in golden_frames]), noise])


def by_numpy(bundle, images):
    """The definition of patch scores: 1 - max cosine."""
    grid = bundle.manifest.grid
    embeddings = EmbeddingSession(bundle.members[EMBEDDING], grid).embed(images)
    similarity = (embeddings.astype(np.float64) @ bundle.bank.T.astype(np.float64)).max(2)
    return (1 - similarity).reshape(len(images), grid.rows, grid.columns)


@pytest.fixture
def similarity_of(onnx_model):
    """A similarity graph that ends otherwise: each patch's cosines are summed with a weight, then cast."""

    def build(weight, *, cast=None, gives=FLOAT, bank=BANK_OUTSIDE, **more):
        last = "summed" if cast or more else "similarity"
        nodes = [
            ("Reshape", ["embeddings", "rows"], "queries", {}),
            ("Gemm", ["queries", "bank"], "cosines", {"transB": 1}),
            ("MatMul", ["cosines", "weights"], "sums", {}),
            ("Reshape", ["sums", "flat"], last, {}),
        ]
        if cast:
            nodes.append(("Cast", [last], "similarity", {"to": cast}))
        nodes += [("Add", [last, name], "similarity", {}) for name in more]
        constants = {
            "rows": np.array([-1, 15], np.int64),
            "flat": np.array([-1], np.int64),
            "weights": np.full((64, 1), weight, np.float32),
            "bank": bank,
            **more,
        }
        return onnx_model(
            nodes,
            takes=("embeddings", FLOAT, ["N", 64, 15]),
            gives=("similarity", gives, ["Q"]),
            constants=constants,
        )

    return build


@pytest.fixture
def embedding_of(onnx_model):
    """An embedding graph that gives the image's bytes, in some type and shape."""

    def build(element, shape):
        return onnx_model(
            [("Cast", ["images"], "cast", {"to": element}), ("Reshape", ["cast", "shape"], "embeddings", {})],
            takes=("images", UINT8, ["N", 64, 64, 3]),
            gives=("embeddings", element, ["N", *shape[1:]]),
            constants={"shape": np.array(shape, np.int64)},
        )

    return build


@pytest.fixture
def engine_with(rebundle):
    def build(members):
        return OnnxRuntimeEngine(decode_bundle(rebundle(members), "other.lineward"))

    return build


def test_scores_are_one_less_the_greatest_cosine(tiny, images):
    scores = OnnxRuntimeEngine(tiny).score(images)
    assert scores.shape == (5, 8, 8)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_numpy(tiny, images), rtol=0, atol=1e-5)
    assert scores.min() >= -1e-6


def test_embeddings_are_of_unit_length(tiny, images):
    embeddings = EmbeddingSession(tiny.members[EMBEDDING], tiny.manifest.grid).embed(images)
    assert embeddings.shape == (5, 64, 15)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=2), 1, atol=1e-5)


def test_the_bank_outlives_the_bundle(tiny, tiny_bytes, images):
    """The session refers to the bank's memory and does not copy it."""
    bundle = decode_bundle(tiny_bytes, "tiny.lineward")
    engine = OnnxRuntimeEngine(bundle)
    del bundle
    gc.collect()
    clutter = [np.full(tiny.bank.shape, 7, np.float32) for _ in range(1000)]  # over memory that was let go
    np.testing.assert_allclose(engine.score(images), by_numpy(tiny, images), rtol=0, atol=1e-5)
    assert len(clutter) == 1000


def test_memory_layout_of_images_does_not_matter(tiny, images):
    engine = OnnxRuntimeEngine(tiny)
    np.testing.assert_array_equal(engine.score(images[::-1, :, ::-1])[::-1], engine.score(images[:, :, ::-1].copy()))


@pytest.mark.parametrize("graph", [b"", b"garbage", b"\0" * 1000, b"\x08\x08\x3a\x00"])
@pytest.mark.parametrize("member", [EMBEDDING, SIMILARITY])
def test_bytes_that_are_no_graph(member, graph, engine_with):
    with pytest.raises(EngineError) as caught:
        engine_with({member: graph})
    assert "graph" in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.do


@pytest.mark.parametrize(
    "shape",
    [(1, 32, 32, 3), (1, 64, 64), (1, 3, 64, 64), (1, 64, 64, 4), (64, 64, 3), (2, 65, 64, 3)],
)
def test_images_of_another_size(shape, tiny):
    with pytest.raises(EngineError, match="check that the image size is the bundle's"):
        OnnxRuntimeEngine(tiny).score(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8])
def test_images_of_another_type(dtype, tiny):
    with pytest.raises(EngineError):
        OnnxRuntimeEngine(tiny).score(np.zeros((1, 64, 64, 3), dtype))


def test_nan_from_a_graph_rejects_the_part(rebundle, similarity_of, golden_frames):
    bundle = decode_bundle(rebundle({SIMILARITY: similarity_of(math.nan)}), "nan.lineward")
    inspection = Inspector(bundle).inspect(golden_frames[0])
    assert inspection.verdict is Verdict.REJECT
    assert inspection.reason is Reason.SCORE_INVALID
    assert math.isnan(inspection.score)


@pytest.mark.parametrize("weight", [1.0, -1.0, 1e30, math.inf, -math.inf])
def test_cosines_beyond_one_pass_no_part(weight, engine_with, similarity_of, images):
    with pytest.raises(EngineError, match="gave cosines from"):
        engine_with({SIMILARITY: similarity_of(weight)}).score(images)


@pytest.mark.parametrize(("element", "kind"), [(DOUBLE, "double"), (INT64, "int64"), (STRING, "string")])
def test_a_similarity_of_another_type(element, kind, engine_with, similarity_of, images):
    engine = engine_with({SIMILARITY: similarity_of(0, cast=element, gives=element)})
    with pytest.raises(EngineError, match=f"gave tensor\\({kind}\\)"):
        engine.score(images)


def test_a_similarity_of_another_shape(engine_with, onnx_model, images):
    graph = onnx_model(
        [
            ("Reshape", ["embeddings", "rows"], "queries", {}),
            ("Gemm", ["queries", "bank"], "similarity", {"transB": 1}),
        ],
        takes=("embeddings", FLOAT, ["N", 64, 15]),
        gives=("similarity", FLOAT, ["Q", 64]),
        constants={"rows": np.array([-1, 15], np.int64), "bank": BANK_OUTSIDE},
    )
    with pytest.raises(EngineError, match=r"gave \[\d+, 64\] values for (64|128|320) patches"):
        engine_with({SIMILARITY: graph}).score(images)


@pytest.mark.parametrize("shape", [(-1, 64, 192), (-1, 48, 256), (-1, 64, 64, 3), (-1,)], ids=str)
def test_an_embedding_of_another_shape(shape, engine_with, embedding_of, images):
    with pytest.raises(EngineError, match="the embedding graph gave"):
        engine_with({EMBEDDING: embedding_of(FLOAT, shape)}).score(images)


def test_an_embedding_of_another_type(engine_with, embedding_of, images):
    with pytest.raises(EngineError, match=r"the embedding graph gave tensor\(double\)"):
        engine_with({EMBEDDING: embedding_of(DOUBLE, (-1, 64, 192))}).score(images)


@pytest.mark.parametrize(
    "location", ["{file}", "four.bin", "../{folder}/four.bin", "*/_ORT_MEM_ADDR_/*", "missing.bin"]
)
@pytest.mark.parametrize("inside", [False, True], ids=["bank-given", "bank-in-the-graph"])
def test_a_graph_takes_nothing_from_outside_the_bundle(
    location, inside, tiny, engine_with, similarity_of, images, tmp_path, monkeypatch
):
    """Else a file that no hash covers would decide verdicts, and onnxruntime 1.23 would read any address in memory."""
    file = tmp_path / "four.bin"
    np.full(64, 0.5, np.float32).tofile(file)
    monkeypatch.chdir(tmp_path)
    outside = (location.format(file=file, folder=tmp_path.name), (64,))
    bank = tiny.bank if inside else BANK_OUTSIDE
    with pytest.raises(EngineError):
        engine_with({SIMILARITY: similarity_of(0, bank=bank, outside=outside)}).score(images[:1])


def test_a_bank_that_does_not_fit_the_graph(engine_with, similarity_of):
    with pytest.raises(EngineError, match="refuses the graph"):
        engine_with({SIMILARITY: similarity_of(0, bank=("bank.safetensors", (32, 15)))})


def test_a_graph_that_does_not_take_the_bank(engine_with, tiny, similarity_of):
    with pytest.raises(EngineError, match="or not those it should"):
        engine_with({SIMILARITY: similarity_of(0, bank=tiny.bank)})


@pytest.fixture
def takes_strips(onnx_model):
    """A similarity graph that takes so many patches at a time."""

    def build(*shape):
        return onnx_model(
            [
                ("Reshape", ["embeddings", "rows"], "queries", {}),
                ("Gemm", ["queries", "bank"], "cosines", {"transB": 1}),
                ("ReduceMax", ["cosines"], "similarity", {"axes": [1], "keepdims": 0}),
            ],
            takes=("embeddings", FLOAT, shape),
            gives=("similarity", FLOAT, ["Q"]),
            constants={"rows": np.array([-1, 15], np.int64), "bank": BANK_OUTSIDE},
        )

    return build


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 5, 8, 9, 100])
@pytest.mark.parametrize("patches", [1, 8, 64])
def test_threads_share_an_image_strip_by_strip(threads, patches, tiny, rebundle, takes_strips, images):
    bundle = decode_bundle(rebundle({SIMILARITY: takes_strips("N", patches, 15)}), "strips.lineward")
    engine = OnnxRuntimeEngine(bundle, threads)
    for some in (images, images[:1]):
        np.testing.assert_allclose(engine.score(some), by_numpy(tiny, some), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [("N", "P", 15), ("N", 64), ("N", 64, 15, 1), ("N",), (), ("N", 0, 15)], ids=str)
def test_a_similarity_graph_that_takes_something_else(shape, engine_with, takes_strips):
    with pytest.raises(EngineError, match=r"takes|refuses"):
        engine_with({SIMILARITY: takes_strips(*shape)})


def test_a_similarity_graph_for_another_grid(engine_with, takes_strips, images):
    with pytest.raises(EngineError, match="takes 7 patches at a time, and 64 are no multiple of it"):
        engine_with({SIMILARITY: takes_strips("N", 7, 15)}).score(images[:1])


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads(threads, tiny, images):
    np.testing.assert_allclose(
        OnnxRuntimeEngine(tiny, threads).score(images), by_numpy(tiny, images), rtol=0, atol=1e-5
    )
