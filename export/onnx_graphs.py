"""The embedding graph as ONNX, written by torch."""

from __future__ import annotations

import io
import warnings

import onnx
import torch

from lineward.export.embedding import EmbeddingGraph, FeatureGraph
from lineward.export.similarity_graph import OPSET, finish


def export_embedding(graph: EmbeddingGraph | FeatureGraph, size: int) -> bytes:
    """Write the embedding graph as ONNX, or only that of its features.

    Args:
        graph: the torch module.
        size: side of the square input, in pixels.

    Returns:
        A model with input `images`, uint8 [N, size, size, 3], and output `embeddings`,
        float32 [N, patches, dimensions].
    """
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter by tracing is deprecated but whole, and needs no further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            file,  # type: ignore[arg-type]
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_axes={"images": {0: "N"}, "embeddings": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(file.getvalue())
    for node in model.graph.node:
        node.doc_string = ""
    finished = finish(model, "embedding")
    onnx.checker.check_model(finished, full_check=True)
    return finished
