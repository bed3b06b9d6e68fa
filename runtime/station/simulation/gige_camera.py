"""A GigE Vision camera on this machine that shows given images: Aravis's own simulated camera, with another scene."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import CameraError
from lineward.runtime.station.cameras.genicam import find_cameras, load_aravis, load_library, pointer_of

_LOOKS_A_SECOND = 1000.0  # how often the camera looks for a trigger
_SOFTWARE = 1  # in the register of the trigger source
_Scene = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)


class GigeCamera:
    """A camera that shows the next image at each exposure, and the last one for ever.

    It exposes by software trigger, freely, or when `expose` says that a part crossed its trigger line. Only one can
    live on a network interface, for cameras share one UDP port.

    Args:
        images: uint8 [H, W], or [H, W, 3] for a client that sets the pixel format "RGB8".
        shape: H, W of the images, 2048 x 2048 at most.
        interface: address of the network interface.
        serial: its id is "Aravis-Fake-<serial>".

    Raises:
        CameraError: there is a camera on this interface already.
        MissingExtraError: Aravis or its binding is not installed.
    """

    def __init__(
        self,
        images: Iterable[NDArray[np.uint8]],
        shape: tuple[int, int],
        interface: str = "127.0.0.1",
        serial: str = "Lineward",
    ) -> None:
        self._aravis = aravis = load_aravis()
        self._images: Iterator[NDArray[np.uint8]] = iter(images)
        self._image = np.zeros(shape, np.uint8)
        self._lock = threading.Lock()
        self._exposures = 0
        self.id = f"Aravis-Fake-{serial}"
        # Two could have the same port, and would answer by turns.
        there = [found.id for found in find_cameras() if found.address == interface]
        self._server: Any = None if there else aravis.GvFakeCamera.new(interface, serial)
        if self._server is None or not self._server.is_running():
            who = there[0] if there else "another program"
            raise CameraError(f"{interface}: no camera can be simulated beside {who}", do="end that one first")
        self._camera: Any = self._server.get_fake_camera()
        self._camera.write_register(aravis.FAKE_CAMERA_REGISTER_WIDTH, shape[1])
        self._camera.write_register(aravis.FAKE_CAMERA_REGISTER_HEIGHT, shape[0])
        self._camera.set_trigger_frequency(_LOOKS_A_SECOND)
        # Not through the binding, which would let go of the function as soon as it is set.
        self._scene = _Scene(self._show)
        self._set_scene(self._scene)

    @property
    def exposures(self) -> int:
        """Frames sent since it was made."""
        with self._lock:
            return self._exposures

    def expose(self) -> None:
        """Expose one frame if a trigger line is its source, as if a part had crossed it."""
        # The simulated camera has no line: it is fired by software, behind the back of its client.
        self._camera.write_register(self._aravis.FAKE_CAMERA_REGISTER_TRIGGER_SOURCE, _SOFTWARE)
        self._camera.write_register(self._aravis.FAKE_CAMERA_REGISTER_TRIGGER_SOFTWARE, 1)

    def close(self) -> None:
        """Leave the network. May be called twice."""
        if self._server is not None:
            self._set_scene(None)  # waits for the frame under way
            self._camera = self._server = None

    def _set_scene(self, scene: Any) -> None:
        setter = load_library().arv_fake_camera_set_fill_pattern
        setter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        setter.restype = None
        setter(pointer_of(self._camera), ctypes.cast(scene, ctypes.c_void_p) if scene else None, None)

    def _show(self, buffer: int, _data: int, _exposure: int, _gain: int, _pixel_format: int) -> None:
        """Fill a frame; called by the camera's thread."""
        with self._lock:
            self._exposures += 1
            self._image = next(self._images, self._image)
        address = load_library().arv_buffer_get_data(buffer, ctypes.byref(ctypes.c_size_t()))
        pixels = np.ascontiguousarray(self._image)
        ctypes.memmove(address, pixels.ctypes.data, min(self._camera.get_payload(), pixels.nbytes))
