"""Cosine nearest neighbour on NVIDIA GPUs: one fused kernel, launched through PyCUDA.

Importing this package needs neither PyCUDA nor a driver; `open_device` needs both.
"""

from lineward.runtime.cuda.device import Device, open_device
from lineward.runtime.cuda.similarity import FusedSimilarity, Pending

__all__ = ["Device", "FusedSimilarity", "Pending", "open_device"]
