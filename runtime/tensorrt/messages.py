"""What TensorRT says while it works: errors are kept for the exception, the rest goes to Python's logging.

TensorRT reports failure by returning None or False and explains itself only to its logger.
"""

from __future__ import annotations

import logging
from collections import deque
from types import ModuleType

from lineward.runtime.tensorrt.api import ILogger

LOG = logging.getLogger("lineward.tensorrt")
KEPT = 4


class Messages:
    """A TensorRT logger that remembers its last few errors.

    Args:
        trt: the TensorRT module (`tensorrt` or `tensorrt_rtx`).
    """

    def __init__(self, trt: ModuleType) -> None:
        self._levels = {
            trt.ILogger.INTERNAL_ERROR: logging.ERROR,
            trt.ILogger.ERROR: logging.ERROR,
            trt.ILogger.WARNING: logging.WARNING,
            trt.ILogger.INFO: logging.DEBUG,
        }
        self._errors: deque[str] = deque(maxlen=KEPT)
        recorder = type("Recorder", (trt.ILogger,), {"log": lambda _, severity, text: self._take(severity, text)})
        self.logger: ILogger = recorder()

    def _take(self, severity: object, text: str) -> None:
        level = self._levels.get(severity, logging.NOTSET)
        if level >= logging.ERROR:
            self._errors.append(text.strip())
        elif level:
            LOG.log(level, "%s", text)

    def reason(self) -> str:
        """The last errors in one line; a plain statement when TensorRT gave none."""
        return "; ".join(self._errors) or "TensorRT gave no reason"
