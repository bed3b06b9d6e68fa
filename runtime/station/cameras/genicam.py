"""GigE Vision and USB3 Vision cameras, through Aravis 0.8 and GObject introspection."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import CameraError, MissingExtraError
from lineward.runtime.station.cameras.pixel_formats import PixelFormat, decode, pixel_format
from lineward.runtime.station.configuration import CameraTrigger, GenicamCamera, TriggerTable
from lineward.runtime.station.records import Capture

SOFTWARE = "Software"
_SLICE = 0.1  # seconds of waiting, after which a lost or closed camera is noticed
_NO_ID = 2**64 - 1  # written into a buffer before its use: without leader packet, Aravis leaves the last use's id there
_LEAST_SOCKET_BUFFER = 2**22  # bytes
_MOST_LOST = 2**15  # frames; a greater gap in the camera's numbers means that it counts anew


@dataclass(frozen=True)
class Found:
    """A camera that answered.

    Attributes:
        id: for `camera.id` in the station file.
        vendor: its maker.
        model: its model.
        serial: its serial number.
        address: where it is: an IP address, or a USB device.
        protocol: "GigEVision" or "USB3Vision".
    """

    id: str
    vendor: str
    model: str
    serial: str
    address: str
    protocol: str


@dataclass(frozen=True)
class Offer:
    """What a camera lets one choose; a range is None where it has no such setting.

    Attributes:
        pixel_formats: names.
        trigger_sources: names.
        sensor: width and height in pixels; None where the camera does not tell.
        exposure: least and greatest exposure time, seconds.
        gain: least and greatest gain, in the camera's unit.
    """

    pixel_formats: tuple[str, ...]
    trigger_sources: tuple[str, ...]
    sensor: tuple[int, int] | None
    exposure: tuple[float, float] | None
    gain: tuple[float, float] | None


@dataclass(frozen=True)
class Statistics:
    """Of the stream since the last start.

    Attributes:
        completed: frames that arrived whole.
        failures: frames that arrived incomplete.
        underruns: frames lost because no buffer was free.
    """

    completed: int
    failures: int
    underruns: int


def find_cameras() -> list[Found]:
    """Ask the network and the USB for cameras; takes about a second.

    Raises:
        MissingExtraError: Aravis or its binding is not installed.
    """
    aravis = load_aravis()
    aravis.update_device_list()
    return [
        Found(
            aravis.get_device_id(i),
            aravis.get_device_vendor(i) or "",
            aravis.get_device_model(i) or "",
            aravis.get_device_serial_nbr(i) or "",
            aravis.get_device_address(i) or "",
            aravis.get_device_protocol(i) or "",
        )
        for i in range(aravis.get_n_devices())
    ]


def open_genicam(table: GenicamCamera, trigger: TriggerTable | None) -> Genicam:
    """Open and set up a camera of a station file; see `open_camera`. Without trigger it runs freely."""
    aravis = load_aravis()
    chosen = _choose(table.id)
    with _speaking_to(chosen):
        device = aravis.Camera.new(chosen)
        name = f"{device.get_vendor_name()} {device.get_model_name()} ({chosen})"
    if device.is_gv_device() and not device.get_device().is_controller():
        raise CameraError(f"{name}: another program controls it", do="end it, or wait until it lets go")
    try:
        with _speaking_to(name):
            _set_up(device, name, table, trigger)
            form = pixel_format(device.get_pixel_format(), device.get_pixel_format_as_string())
            region = device.get_region()
    except CameraError:
        _let_go(device)
        raise
    return Genicam(device, name, form, (region.width, region.height), table.buffers)


class Genicam:
    """A camera that is set up.

    Args:
        device: the Aravis camera.
        name: what it is, for people.
        form: pixel format of its frames.
        size: width and height of its frames.
        buffers: frames that may wait for `capture`.
    """

    def __init__(self, device: Any, name: str, form: PixelFormat, size: tuple[int, int], buffers: int) -> None:
        self.name = name
        self.shape = form.shape(*size)
        self.dtype = form.dtype
        self.pixel_format = form.name
        self._device = device
        self._form = form
        self._buffers = buffers
        self._stream: Any = None
        self._lent: Any = None
        self._numbers = FrameNumbers(name)
        self._started_ns = 0
        self._lock = threading.Lock()  # for what `start` and `close` replace while `capture` waits
        self._lost = threading.Event()
        # Emitted by the thread that keeps the heartbeat, about 5 s after a camera has gone silent.
        lost = self._lost
        self._control_lost = device.get_device().connect("control-lost", lambda _: lost.set())

    def start(self) -> None:
        """Begin anew, with a new stream: what still arrives for the old one goes nowhere."""
        device = self._alive()
        with self._losing(), _speaking_to(self.name):
            self._drop_stream(device)
            payload = device.get_payload()
            stream = _open_stream(device, self.name, payload)
            for _ in range(self._buffers):
                _push(stream, load_aravis().Buffer.new_allocate(payload))
            with self._lock:
                self._numbers = FrameNumbers(self.name)
                self._started_ns = time.monotonic_ns()
                self._stream = stream
            device.start_acquisition()

    def fire(self) -> None:
        """Expose one frame: a round trip to the camera, or CameraError within about 3 s if it is silent."""
        device = self._alive()
        with self._losing(), _speaking_to(self.name):
            device.software_trigger()

    def capture(self, seconds: float) -> Capture | None:
        """The next frame; its pixels lie in the driver's memory, which goes back with the next call.

        Other threads go on while this waits: GObject introspection lets go of the interpreter's lock in each call.
        """
        end_ns = time.monotonic_ns() + round(seconds * 1e9)
        left = seconds
        while True:
            self._alive()
            with self._lock:
                stream = self._stream
                self._give_back()
            wait = max(0.0, min(left, _SLICE))
            if stream is None:  # not started yet
                self._lost.wait(wait)
            elif (buffer := stream.timeout_pop_buffer(round(wait * 1e6))) and (found := self._take(stream, buffer)):
                return found
            left = (end_ns - time.monotonic_ns()) / 1e9
            if left <= 0:
                self._alive()
                return None

    def close(self) -> None:
        """Stop and let go of the camera; one that is lost keeps this waiting for about 5 s."""
        with self._lock:
            device, self._device = self._device, None
        if device is None:
            return
        with contextlib.suppress(CameraError), _speaking_to(self.name):
            self._drop_stream(device)
        with self._lock:
            self._lent = None
        device.get_device().disconnect(self._control_lost)
        if not self._lost.is_set():
            _let_go(device)

    def offer(self) -> Offer:
        """What it lets one choose."""
        device = self._alive()
        with _speaking_to(self.name):
            return Offer(
                _pixel_formats(device),
                _trigger_sources(device),
                _sensor(device),
                _exposure(device),
                _gain(device),
            )

    def statistics(self) -> Statistics:
        """Of the stream since the last start."""
        with self._lock:
            stream = self._stream
        if stream is None:
            return Statistics(0, 0, 0)
        names = ("n_completed_buffers", "n_failures", "n_underruns")
        return Statistics(*(stream.get_info_uint64_by_name(name) for name in names))

    def _alive(self) -> Any:
        """The device, as long as there is one."""
        device = self._device
        if device is None:
            raise CameraError(f"{self.name}: closed", do="open it again")
        if self._lost.is_set():
            raise CameraError(f"{self.name}: no longer answers", do="check its power, cable and network")
        return device

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """A camera that leaves a command unanswered is lost, and not spoken to again: each try takes seconds."""
        try:
            yield
        except CameraError:
            self._lost.set()
            raise

    def _take(self, stream: Any, buffer: Any) -> Capture | None:
        """The capture of a buffer, or None if the stream it came from was replaced meanwhile."""
        with self._lock:
            if stream is not self._stream:
                return None
            self._lent = buffer
            frame_id, received_ns = buffer.get_frame_id(), buffer.get_system_timestamp()
            number = self._numbers.number(None if frame_id == _NO_ID else frame_id)
            now = time.monotonic_ns()
            began_ns = min(max(_monotonic_ns(received_ns), self._started_ns), now) if received_ns else now
        whole = buffer.get_status() == load_aravis().BufferStatus.SUCCESS
        return Capture(number, began_ns, self._pixels(buffer) if whole else None)

    def _pixels(self, buffer: Any) -> Any:
        code = buffer.get_image_pixel_format()
        form = self._form if code == self._form.code else pixel_format(code)
        padding = buffer.get_image_padding().x_padding
        return decode(_view(buffer), form, buffer.get_image_width(), buffer.get_image_height(), padding)

    def _give_back(self) -> None:
        if self._lent is not None and self._stream is not None:
            _push(self._stream, self._lent)
        self._lent = None

    def _drop_stream(self, device: Any) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
            self._lent = None  # frames that are still looked at keep their memory; see `_view`
        if stream is not None and not self._lost.is_set():
            device.stop_acquisition()


class FrameNumbers:
    """Counts exposures by the frame ids of a camera, which tell what was lost between two frames.

    Ids of 16 bits (GigE Vision) go from 65535 to 1; those of 64 bits (extended ids, USB3 Vision) do not wrap.
    The first frame that arrives is number 0: one lost before it cannot be told from the camera's counting on.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = 0
        self._known: tuple[int, int] | None = None  # the last frame id that arrived, and its number

    def number(self, frame_id: int | None) -> int:
        """The number of the frame that came after all those before.

        Args:
            frame_id: of the frame; None if the packet that tells it was lost: then it counts as the next one.

        Raises:
            CameraError: the id does not follow the last one.
        """
        number = self._next
        if frame_id is not None:
            if self._known is not None:
                number = max(number, self._known[1] + self._step(self._known[0], frame_id))
            self._known = frame_id, number
        self._next = number + 1
        return number

    def _step(self, last: int, frame_id: int) -> int:
        step = frame_id - last
        if step < 0 and last <= 0xFFFF:
            step += 0xFFFF
        if not 0 < step < _MOST_LOST:
            raise CameraError(
                f"{self._name}: its frame {last} was followed by frame {frame_id}",
                do="it seems to have started anew: check its power and cable",
            )
        return step


@cache
def load_aravis() -> Any:
    """The binding, imported where it is used: a station with another camera needs none.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except ImportError as error:
        raise MissingExtraError(
            "a GenICam camera needs PyGObject, which is not installed", do="pip install 'lineward[genicam]'"
        ) from error
    except ValueError as error:
        raise MissingExtraError(
            "a GenICam camera needs Aravis 0.8 and its introspection data, which are not installed",
            do="apt install gir1.2-aravis-0.8",
        ) from error
    return Aravis


@contextlib.contextmanager
def _speaking_to(name: str) -> Iterator[None]:
    """Turn the errors of GLib into ours."""
    from gi.repository import GLib

    try:
        yield
    except GLib.Error as error:
        raise CameraError(f"{name}: {error.message}", do="check its power, cable and network") from error


def _choose(wanted: str) -> str:
    """The id of the camera that is meant.

    Raises:
        CameraError: there is none, or it is not clear which.
    """
    found = [camera.id for camera in find_cameras()]
    if wanted in found or _is_address(wanted):
        return wanted
    if not wanted and len(found) == 1:
        return found[0]
    listed = f"found: {', '.join(found)}" if found else "no GenICam camera answers"
    if wanted:
        raise CameraError(f"camera {wanted!r} is not there ({listed})", do="check camera.id, its power and its network")
    if found:
        raise CameraError(f"more than one camera ({listed})", do="set camera.id to the one that is meant")
    raise CameraError(listed, do="check the camera's power, cable and network; `lineward cameras` lists what is found")


def _is_address(text: str) -> bool:
    """Whether a camera is named by its IP address, as one must be that broadcasts do not reach."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    return False


def _let_go(device: Any) -> None:
    """End the control of a GigE Vision camera now, and not when the last object that knows it is gone."""
    if device.is_gv_device():
        with contextlib.suppress(CameraError), _speaking_to("camera"):
            device.get_device().leave_control()


def _set_up(device: Any, name: str, table: GenicamCamera, trigger: TriggerTable | None) -> None:
    """Write what the station file asks for, in the order in which one setting's range depends on another."""
    if table.pixel_format is not None:
        _check_among(name, "pixel format", table.pixel_format, _pixel_formats(device))
        device.set_pixel_format_from_string(table.pixel_format)
    if table.region is not None:
        _set_region(device, name, table.region)
    if table.exposure is not None:
        if device.is_exposure_auto_available():
            device.set_exposure_time_auto(load_aravis().Auto.OFF)
        _check_within(name, "exposure", table.exposure, _exposure(device), lambda seconds: f"{seconds * 1e6:.0f}us")
        device.set_exposure_time(table.exposure * 1e6)
    if table.gain is not None:
        if device.is_gain_auto_available():
            device.set_gain_auto(load_aravis().Auto.OFF)
        _check_within(name, "gain", table.gain, _gain(device), lambda gain: f"{gain:g}")
        device.set_gain(table.gain)
    _set_trigger(device, name, trigger)
    device.set_acquisition_mode(load_aravis().AcquisitionMode.CONTINUOUS)
    if device.is_gv_device():
        _set_packet_size(device, name, table.packet_size)


def _pixel_formats(device: Any) -> tuple[str, ...]:
    return tuple(device.dup_available_pixel_formats_as_strings())


def _trigger_sources(device: Any) -> tuple[str, ...]:
    return tuple(device.dup_available_trigger_sources()) if device.is_feature_available("TriggerSource") else ()


def _sensor(device: Any) -> tuple[int, int] | None:
    with contextlib.suppress(CameraError), _speaking_to("sensor"):
        sensor = device.get_sensor_size()
        return sensor.width, sensor.height
    return None


def _exposure(device: Any) -> tuple[float, float] | None:
    if not device.is_exposure_time_available():
        return None
    bounds = device.get_exposure_time_bounds()
    return bounds.min / 1e6, bounds.max / 1e6


def _gain(device: Any) -> tuple[float, float] | None:
    if not device.is_gain_available():
        return None
    bounds = device.get_gain_bounds()
    return bounds.min, bounds.max


def _set_region(device: Any, name: str, region: tuple[int, int, int, int]) -> None:
    x, y, width, height = region
    sensor = _sensor(device)
    if min(x, y) < 0 or min(width, height) < 1 or (sensor and (x + width > sensor[0] or y + height > sensor[1])):
        size = f" of {sensor[0]} x {sensor[1]} pixels" if sensor else ""
        raise CameraError(
            f"{name}: region {list(region)} does not lie on the sensor{size}",
            do="set camera.region to x, y, width, height in pixels",
        )
    device.set_region(x, y, width, height)
    found = device.get_region()
    taken = (found.x, found.y, found.width, found.height)
    if taken != region:
        raise CameraError(
            f"{name}: region {list(region)} is not offered; the camera took {list(taken)} instead",
            do="set camera.region to that, or to another",
        )


def _set_trigger(device: Any, name: str, trigger: TriggerTable | None) -> None:
    if trigger is None:
        device.clear_triggers()
        return
    source = trigger.line if isinstance(trigger, CameraTrigger) else SOFTWARE
    _check_among(name, "trigger source", source, _trigger_sources(device))
    device.set_trigger(source)  # switches every other trigger off, then FrameStart on
    if isinstance(trigger, CameraTrigger):
        edge = {"rising": "RisingEdge", "falling": "FallingEdge"}[trigger.edge]
        if device.is_feature_available("TriggerActivation"):
            edges = device.dup_available_enumerations_as_strings("TriggerActivation")
            _check_among(name, "trigger activation", edge, tuple(edges))
            device.set_string("TriggerActivation", edge)
        elif trigger.edge != "rising":
            _check_among(name, "trigger activation", edge, ("RisingEdge",))


def _set_packet_size(device: Any, name: str, size: int | None) -> None:
    if size is None:
        device.gv_auto_packet_size()
        return
    device.gv_set_packet_size_adjustment(load_aravis().GvPacketSizeAdjustment.NEVER)
    device.gv_set_packet_size(size)
    if (taken := device.gv_get_packet_size()) != size:
        raise CameraError(
            f"{name}: packets of {size} bytes are not offered; the nearest is {taken}",
            do="set camera.packet_size to that, or leave it out",
        )


def _check_among(name: str, what: str, value: str, offered: tuple[str, ...]) -> None:
    if value not in offered:
        listed = f"choose among: {', '.join(offered)}" if offered else "leave it out: it offers none"
        raise CameraError(f"{name}: {what} {value!r} is not offered", do=listed)


def _check_within(
    name: str, what: str, value: float, offered: tuple[float, float] | None, write: Callable[[float], str]
) -> None:
    if offered is None:
        raise CameraError(f"{name}: {what} cannot be set", do=f"leave camera.{what} out")
    if not offered[0] <= value <= offered[1]:
        raise CameraError(
            f"{name}: {what} {write(value)} is not offered",
            do=f"set camera.{what} from {write(offered[0])} to {write(offered[1])}",
        )


def _open_stream(device: Any, name: str, payload: int) -> Any:
    """A stream that nothing but the camera's frames comes out of, from the first one on."""
    aravis = load_aravis()
    if device.is_gv_device():
        # Opened by root, a packet socket hears all of the network until its filter is set: frames that are none.
        device.gv_set_stream_options(aravis.GvStreamOption.PACKET_SOCKET_DISABLED)
    stream = device.create_stream(None, None)
    if stream is None:
        raise CameraError(f"{name}: no stream could be opened", do="check its cable, its network and the firewall")
    if device.is_gv_device():
        size = max(_LEAST_SOCKET_BUFFER, 2 * payload)
        stream.props.socket_buffer = aravis.GvStreamSocketBuffer.FIXED
        stream.props.socket_buffer_size = size
        _widen_socket(stream.get_port(), size)
    return stream


def _widen_socket(port: int, size: int) -> None:
    """Let this process's UDP socket at a port hold a burst; the kernel grants no more than net.core.rmem_max.

    Aravis does so once the first frame begins, and may lose half of it meanwhile.
    """
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if not entry.is_socket():
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as found:
                internet = found.family == socket.AF_INET and found.type == socket.SOCK_DGRAM
                if internet and found.getsockname()[1] == port:
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _push(stream: Any, buffer: Any) -> None:
    """Give a buffer to the driver, without anything that would look like a frame's id and time."""
    buffer.set_frame_id(_NO_ID)
    buffer.set_system_timestamp(0)
    stream.push_buffer(buffer)


def _monotonic_ns(wall_ns: int) -> int:
    """A moment just past, from wall clock to monotonic: by the difference now, for the wall clock may jump."""
    return wall_ns - (time.time_ns() - time.monotonic_ns())


def _view(buffer: Any) -> NDArray[np.uint8]:
    """A buffer's bytes, uint8 [bytes], where they lie: the binding's `get_data` copies them, with the interpreter held.

    Whatever looks at the array, or at a view of it, keeps the buffer and so the memory.
    """
    size = ctypes.c_size_t()
    address = load_library().arv_buffer_get_data(pointer_of(buffer), ctypes.byref(size))
    if not address or not size.value:
        return np.empty(0, np.uint8)
    memory = (ctypes.c_uint8 * size.value).from_address(address)
    memory.owner = buffer  # type: ignore[attr-defined]
    return np.frombuffer(memoryview(memory), np.uint8)


@cache
def load_library() -> Any:
    """Aravis itself, for what its binding cannot do; see `pointer_of`."""
    library = ctypes.CDLL("libaravis-0.8.so.0")  # loaded already, by the binding
    library.arv_buffer_get_data.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
    library.arv_buffer_get_data.restype = ctypes.c_void_p
    return library


def pointer_of(thing: Any) -> int | None:
    """Where the GObject behind a Python object lies."""
    unwrap = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    pointer: int | None = unwrap(thing.__gpointer__, None)
    return pointer
