"""A process that reads bundles as a device does, may write no file, and gets no more memory than it is given.

    python -m benchmarks.hostile.device KEYS_FOLDER EXTRA_BYTES

It takes the path of a bundle a line, and answers with a line of JSON: what became of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hostile.material import TINY
from lineward.runtime.bundle import Bundle, decode_bundle, read_bundle
from lineward.runtime.cli import main as lineward
from lineward.runtime.errors import LinewardError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import decode_image
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.trust import open_trust

_WATCHED = ("os.", "shutil.", "subprocess.", "socket.", "tempfile.")
_HARMLESS = (
    "os.listdir",
    "os.scandir",
    "os.walk",
    "os.fwalk",
    "os.putenv",
    "os.unsetenv",
    "os.getxattr",
    "os.listxattr",
)


class Watch:
    """Hears of every file opened for writing, every file or folder changed, program started and connection made."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & 0o1103):
                self.heard.append(f"open {path!r} {mode} {flags:#o}")
        elif event.startswith(_WATCHED) and event not in _HARMLESS:
            self.heard.append(f"{event} {arguments!r}"[:200])


class Device:
    """What reads, checks and inspects."""

    def __init__(self, keys: Path) -> None:
        self.keys, self.trust = keys, open_trust(keys)
        self.good = decode_bundle(TINY.read_bytes(), "tiny")
        self.watch = Watch()
        self.frame = decode_image(self.good.members[self.good.manifest.golden[1].image], "defect")

    def take(self, path: Path) -> dict[str, Any]:
        """What becomes of a bundle: read, opened, golden images, one inspection; if refused, `lineward verify`."""
        self.watch.heard.clear()
        began = time.monotonic()
        answer: dict[str, Any] = {}
        try:
            bundle = read_bundle(path, self.trust)
            inspector = Inspector(bundle)
            check_golden(bundle, inspector)
            inspection = inspector.inspect(self.frame)
            passed = bool(np.isfinite(inspection.score) and 0 <= inspection.score <= inspection.threshold)
            closed = passed == (inspection.verdict is Verdict.PASS)
            answer |= {"outcome": "accepted", "same": self.is_same(bundle), "closed": closed}
        except LinewardError as error:
            answer |= {"outcome": "refused", "error": type(error).__name__, "what": error.what[:300], "do": error.do}
            answer |= self.verify(path)
        except BaseException as error:  # whatever it is, it is what this looks for
            answer |= {"outcome": "uncaught", "error": type(error).__name__, "what": str(error)[:300]}
        answer |= {"seconds": time.monotonic() - began, "heard": list(self.watch.heard)}
        return answer

    def verify(self, path: Path) -> dict[str, Any]:
        """The command's exit code, and whether it showed a traceback or nothing at all."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: int | str = lineward(["verify", "--keys", str(self.keys), str(path)])
            except BaseException as error:
                code = f"uncaught {type(error).__name__}"
        said = err.getvalue()
        return {"exit": code, "traceback": "Traceback" in out.getvalue() + said, "says": "\n  -> " in said}

    def is_same(self, bundle: Bundle) -> bool:
        """Whether it is, member for member, the bundle that was signed."""
        good = self.good
        return (bundle.sha256, bundle.manifest, dict(bundle.members)) == (
            good.sha256,
            good.manifest,
            dict(good.members),
        )


def _limit(extra: int) -> None:
    """No file may grow, and no more memory than now and `extra` bytes besides."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(keys: Path, extra: int) -> None:
    """Answer each line."""
    # What libraries print to standard output is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    device = Device(keys)
    for warm in range(2):
        device.take(Path(sys.stdin.readline().rstrip("\n")))
        if not warm:
            _limit(extra)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(device.take(Path(line.rstrip("\n")))), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
