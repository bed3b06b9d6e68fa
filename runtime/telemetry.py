"""onnxruntime's telemetry is off: its wheels (1.32, Linux too) report to their maker over HTTPS unless told not to.

It has to be told before it is imported, so this is imported before everything else of the runtime. Who wants it sets
`ORT_DISABLE_TELEMETRY=0`.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
