"""What the builder asks of TensorRT, and what it says when refused (real builds: test_rtx.py)."""

from __future__ import annotations

import logging

import pytest

from lineward.runtime.errors import EngineError
from lineward.runtime.tensorrt.builder import PlanOptions, build_plan
from tests.tensorrt_double import Bench, tensorrt_double

OPTIONS = PlanOptions(max_batch=4, workspace_bytes=1 << 20, builder_level=2)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_asked_of_tensorrt(bench: Bench) -> None:
    assert build_plan(tensorrt_double(bench), b"graph", OPTIONS) == b"a plan"
    one, four = (1, 4, 6, 3), (4, 4, 6, 3)
    assert bench.calls == [
        ("create_network", 1 << 1),
        ("parse", b"graph"),
        ("set_memory_pool_limit", "WORKSPACE", 1 << 20),
        ("clear_flag", "TF32"),
        ("set_shape", "images", one, one, four),
        ("build", 2),
    ]


def refused(bench: Bench) -> str:
    with pytest.raises(EngineError) as error:
        build_plan(tensorrt_double(bench), b"graph", OPTIONS)
    return str(error.value)


def test_a_refused_node_is_named_with_its_reason(bench: Bench) -> None:
    bench.parser_errors = [("/head/unique", "Unique", "no importer"), ("", "NonZero", "data dependent")]
    assert refused(bench) == (
        "TensorRT 10.3.0 refuses the graph: node '/head/unique' (Unique): no importer; "
        "node '(unnamed)' (NonZero): data dependent\n"
        "  -> Export the embedding graph again with this version of Lineward."
    )


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear"])
def test_a_refused_quantisation_says_how_to_quantise(bench: Bench, operator: str) -> None:
    bench.parser_errors = [("q", operator, "Non-zero zero point is not supported")]
    assert "every zero point 0" in refused(bench)


def test_a_refused_file_without_errors(bench: Bench) -> None:
    bench.faults = {"parse"}
    assert "TensorRT gave no reason" in refused(bench)


def test_a_failed_build_gives_the_error_and_not_the_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.faults = {"build"}
    with caplog.at_level(logging.WARNING, "lineward.tensorrt"):
        told = refused(bench)
    assert "cannot build: Could not find any implementation for node {ForeignNode}\n" in told
    assert [record.message for record in caplog.records] == ["tactic skipped"]


def test_a_machine_without_a_gpu(bench: Bench) -> None:
    bench.faults = {"builder"}
    assert "cannot start here: CUDA initialization failure with error: 35" in refused(bench)


def test_a_refused_profile(bench: Bench) -> None:
    bench.faults = {"profile"}
    assert "refuses batches of 1 to 4" in refused(bench)


def test_an_output_of_the_wrong_type(bench: Bench) -> None:
    bench.output = ("HALF", (-1, 6, 5))
    assert "Output 'embeddings' is DataType.HALF [-1, 6, 5], not float32 [N, P, C]" in refused(bench)


@pytest.mark.parametrize(
    "wrong", [{"max_batch": 0}, {"workspace_bytes": 0}, {"builder_level": 6}, {"builder_level": -1}]
)
def test_options_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(EngineError, match=rf"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        PlanOptions(**wrong)
