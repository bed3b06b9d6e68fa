"""A bundle with another memory bank, and the similarity graph that goes with it."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from lineward.export.similarity_graph import similarity_graph
from lineward.runtime.bundle import BANK, BANK_TENSOR, SIMILARITY, Bundle, decode_bundle, encode_bundle, encode_tensor


def with_bank(bundle: Bundle, bank: NDArray[np.float32]) -> Bundle:
    """The bundle with another bank; its threshold and golden results are still those of the old one.

    Args:
        bundle: it is left as it is.
        bank: unit rows, float32 [rows, dimensions].
    """
    tensor = encode_tensor(BANK_TENSOR, bank)
    similarity = similarity_graph(bundle.manifest.grid, len(bank), len(tensor) - bank.nbytes)
    members = {**bundle.members, BANK: tensor, SIMILARITY: similarity}
    changed = msgspec.structs.replace(bundle.manifest, rows=len(bank))
    return decode_bundle(encode_bundle(changed, members), "the bundle with another bank")
