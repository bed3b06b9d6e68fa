"""The engine that runs everywhere: onnxruntime, on the CPU or with another of its execution providers.

Two graphs: the embedding, and the similarity to the bank (Gemm with the bank's rows as constant, transposed right
operand, then a maximum). The bank's bytes stay in `bank.safetensors`; the similarity graph names them as an external
initializer, and they are handed over when the session is made.

Convolutions share an image layer by layer, as onnxruntime does it. Patches need nothing of each other: each thread
finds the similarity of its own.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lineward.runtime.bundle import BANK_TENSOR, EMBEDDING, SIMILARITY, Bundle
from lineward.runtime.engines.crew import Crew, a_processor_each, on
from lineward.runtime.engines.providers import OPTIONS, require_provider
from lineward.runtime.errors import EngineError, first_line
from lineward.runtime.manifest import Grid
from lineward.runtime.stages import Stage, StageEnded, nobody

CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_GREATEST_COSINE = 1.01  # 1, and room for rounding


class OnnxRuntimeEngine:
    """Embedding and similarity by onnxruntime.

    Args:
        bundle: what to run.
        threads: threads to use; by default one for each core this process may use.
        provider: onnxruntime's name of where to run.
        ended: hears the embedding end, for measuring.

    Raises:
        EngineError: onnxruntime refuses a graph, or cannot run it there.
    """

    def __init__(
        self, bundle: Bundle, threads: int | None = None, provider: str = CPU, ended: StageEnded = nobody
    ) -> None:
        self._grid, self._ended = bundle.manifest.grid, ended
        self._embedding = EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid, threads, provider)
        self._similarity = SimilaritySession(bundle.members[SIMILARITY], bundle.bank, threads, provider)
        _give_back_memory()

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Patch scores; see `Engine`.

        Raises:
            EngineError: the images do not fit the graph, or it gave something other than the scores it owes.
        """
        embeddings = self._embedding.embed(images)
        self._ended(Stage.EMBEDDING)
        similarity = self._similarity.greatest(embeddings)
        # A cosine beyond 1 would pass any part. NaN is let through, to be rejected with its own reason.
        if np.any(np.abs(similarity) > _GREATEST_COSINE):
            raise EngineError(
                f"the similarity graph gave cosines from {similarity.min():.3g} to {similarity.max():.3g}",
                do="take the bundle again from where it was made",
            )
        return (np.float32(1) - similarity).reshape(-1, self._grid.rows, self._grid.columns)


class EmbeddingSession:
    """The embedding graph alone, for the engine and for building a bank with the very graph that ships.

    Args:
        graph: `embedding.onnx`.
        grid: the patches it must give.
        threads: as for `OnnxRuntimeEngine`.
        provider: as for `OnnxRuntimeEngine`.
    """

    def __init__(self, graph: bytes, grid: Grid, threads: int | None = None, provider: str = CPU) -> None:
        self._session = open_session(graph, session_options(threads), provider=provider)
        self._processors = _processors(threads, provider)
        self._shape = (grid.rows * grid.columns, grid.dimensions)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit patch embeddings, float32 [N, patches, dimensions], of images, uint8 [N, height, width, 3].

        Raises:
            EngineError: the images do not fit the graph, or it gave another shape.
        """
        value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images))
        with on(self._processors):
            embeddings = _floats(_run(self._session, {"images": value}), "embedding")
        if list(embeddings.shape()) != [len(images), *self._shape]:
            raise EngineError(
                f"the embedding graph gave {embeddings.shape()}, its manifest says {[len(images), *self._shape]}",
                do="take the bundle again from where it was made",
            )
        return embeddings.numpy()  # type: ignore[no-any-return]


class SimilaritySession:
    """The similarity graph alone, with its bank.

    Args:
        graph: `similarity.onnx`.
        bank: float32 [rows, dimensions].
        threads: as for `OnnxRuntimeEngine`.
        provider: as for `OnnxRuntimeEngine`.
    """

    def __init__(
        self, graph: bytes, bank: NDArray[np.float32], threads: int | None = None, provider: str = CPU
    ) -> None:
        self._bank = ort.OrtValue.ortvalue_from_numpy(bank)  # refers to the memory: both live as long as the session
        options = session_options(1)
        options.add_external_initializers([BANK_TENSOR], [self._bank])
        self._session = open_session(graph, options, external=1, provider=provider)
        match [node.shape for node in self._session.get_inputs()]:
            case [[_, int(patches), _]] if patches > 0:
                self._patches = patches
            case other:
                raise EngineError(
                    f"the similarity graph takes {other}, not [N, patches, dimensions]",
                    do="take the bundle again from where it was made",
                )
        self._processors = _processors(threads, provider)
        self._crew = Crew(_count(threads) if provider == CPU else 1, self._processors)

    def greatest(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The greatest inner product of each embedding with the bank's rows, float32 [N * patches].

        Args:
            embeddings: float32 [N, patches, dimensions].

        Raises:
            EngineError: the embeddings do not fit the graph, or it gave something other than float32.
        """
        patches = embeddings.shape[0] * embeddings.shape[1]
        if patches % self._patches:
            raise EngineError(
                f"the similarity graph takes {self._patches} patches at a time, and {patches} are no multiple of it",
                do="take the bundle again from where it was made",
            )
        strips = embeddings.reshape(-1, self._patches, embeddings.shape[2])
        with on(self._processors):
            found = self._crew.each(self._of, _parts(strips, self._crew.size))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _of(self, strips: NDArray[np.float32]) -> NDArray[np.float32]:
        embeddings = ort.OrtValue.ortvalue_from_numpy(strips)
        similarity = _floats(_run(self._session, {"embeddings": embeddings}), "similarity")
        patches = len(strips) * self._patches
        if similarity.shape() != [patches]:
            raise EngineError(
                f"the similarity graph gave {similarity.shape()} values for {patches} patches",
                do="take the bundle again from where it was made",
            )
        return similarity.numpy()  # type: ignore[no-any-return]


def session_options(threads: int | None = None) -> Any:
    """Options that serve a device with other work to do between two triggers."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = _count(threads)
    if others := a_processor_each(_count(threads))[1:]:  # counted from 1; as onnxruntime does when it counts threads
        affinities = ";".join(str(processor + 1) for processor in others)
        options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Two sessions with spinning workers would burn each other's cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Q/DQ is computed as written: onnxruntime's INT8 kernels saturate on x86 without VNNI, and embeddings were far off.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def open_session(graph: bytes, options: Any, external: int = 0, provider: str = CPU) -> Any:
    """A session that runs where it was asked to.

    Args:
        graph: an ONNX model.
        options: see `session_options`.
        external: tensors of the graph that the options provide.
        provider: onnxruntime's name of where to run.

    Raises:
        EngineError: the graph is damaged, needs what this onnxruntime does not have, or what is not in the bundle, or
            cannot run there.
    """
    # onnxruntime would read any other from a file of that name, or (1.23) from any address in memory.
    if graph.count(b"location") != external:
        raise EngineError(
            "the graph takes tensors from outside the bundle, or not those it should",
            do="take the bundle again from where it was made",
        )
    providers = [(name, OPTIONS.get(name, {})) for name in dict.fromkeys([provider, CPU])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a provider that is missing is named by require_provider
            session = ort.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise EngineError(
            f"onnxruntime {ort.__version__} refuses the graph: {first_line(error)}",
            do="take the bundle again from where it was made, or update onnxruntime",
        ) from error
    require_provider(session, provider)
    return session


def _count(threads: int | None) -> int:
    return threads or len(os.sched_getaffinity(0))


def _processors(threads: int | None, provider: str) -> list[int]:
    return a_processor_each(_count(threads)) if provider == CPU else []


def _give_back_memory() -> None:
    """Give the system what making a session left free: onnxruntime copies the bank more than once on the way.

    glibc would keep it; with another C library nothing happens.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _run(session: Any, inputs: dict[str, Any]) -> Any:
    try:
        return session.run_with_ort_values(None, inputs)
    except Exception as error:
        raise EngineError(
            f"onnxruntime could not run the graph: {first_line(error)}",
            do="check that the image size is the bundle's, and that memory is free",
        ) from error


def _floats(outputs: Any, graph: str) -> Any:
    """The first output, if it is a float32 tensor."""
    kind = outputs[0].data_type() if outputs else "nothing"
    if kind != "tensor(float)":
        raise EngineError(
            f"the {graph} graph gave {kind}, not tensor(float)", do="take the bundle again from where it was made"
        )
    return outputs[0]


def _parts(strips: NDArray[np.float32], most: int) -> list[NDArray[np.float32]]:
    """Strips in about equal parts."""
    count = min(most, len(strips))
    edges = [len(strips) * part // count for part in range(count + 1)]
    return [strips[start:end] for start, end in pairwise(edges)]
