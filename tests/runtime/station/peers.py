"""Real peers on this machine, started by the tests that need them."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FAKE_CAMERA = "arv-fake-gv-camera-0.8"
FAKE_CAMERA_ID = "Aravis-Fake-GV01"
_GVCP_PORT = 3956
_DISCOVERY = bytes([0x42, 0x01, 0x00, 0x02, 0x00, 0x00, 0x00, 0x01])  # GVCP: discovery, acknowledge, request 1


class FakeGigeCamera:
    """The GigE Vision camera that comes with Aravis, on 127.0.0.1."""

    def __init__(self, lost_per_thousand: int) -> None:
        self._lost = lost_per_thousand
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [FAKE_CAMERA, "-i", "127.0.0.1", "-r", str(self._lost)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 15
        while not _answers():
            assert self._process.poll() is None, f"{FAKE_CAMERA} ended at once"
            assert time.monotonic() < end, f"{FAKE_CAMERA} does not answer"

    def kill(self) -> None:
        """End it without a word to anybody (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def fake_gige_camera(lost_per_thousand: int = 0) -> Iterator[FakeGigeCamera]:
    """A GigE Vision camera on loopback, found as `FAKE_CAMERA_ID`; killed at the end.

    Only one can have the port of GigE Vision, so other test runs on this machine wait their turn.

    Args:
        lost_per_thousand: packets that it loses.
    """
    require_aravis()
    if shutil.which(FAKE_CAMERA) is None:
        pytest.skip(f"{FAKE_CAMERA} is not installed (aravis-tools)")
    camera = FakeGigeCamera(lost_per_thousand)
    with gige_port():
        try:
            camera.start()
            yield camera
        finally:
            camera.kill()


@contextlib.contextmanager
def gige_port() -> Iterator[None]:
    """Hold the port of GigE Vision on loopback, against other test runs on this machine."""
    with (Path(tempfile.gettempdir()) / "lineward-tests-gige.lock").open("a") as lock:
        end = time.monotonic() + 300
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < end, "another test run holds the port of GigE Vision, or this one twice"
                time.sleep(0.1)
        yield


def require_aravis() -> None:
    """Skip the test that asks where Aravis or its binding is missing."""
    gi = pytest.importorskip("gi", reason="PyGObject is not installed")
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip("Aravis 0.8 is not installed")


def _answers() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        try:
            asking.sendto(_DISCOVERY, ("127.0.0.1", _GVCP_PORT))
            return asking.recv(1024)[:4] == bytes([0x00, 0x00, 0x00, 0x03])
        except ConnectionError:  # nobody has the port yet
            time.sleep(0.05)
            return False
        except TimeoutError:
            return False
