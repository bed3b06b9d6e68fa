"""The device's half of Lineward: reads a bundle, scores images, decides."""

from lineward.runtime import telemetry as telemetry  # before onnxruntime is imported
from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.errors import LinewardError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Inspection, Reason, Verdict
from lineward.runtime.inspector import Inspector

__all__ = [
    "Bundle",
    "Inspection",
    "Inspector",
    "LinewardError",
    "Reason",
    "Verdict",
    "read_bundle",
    "read_image",
]
