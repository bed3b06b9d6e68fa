"""This device's own inputs and outputs, through the kernel's GPIO character device (libgpiod 2)."""

from __future__ import annotations

import datetime
import errno
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from lineward.runtime.errors import MissingExtraError, StationError
from lineward.runtime.station.configuration import GpioOutput, GpioTrigger
from lineward.runtime.station.real_time import Role, raise_priority

if TYPE_CHECKING:
    import gpiod

_CONSUMER = "lineward"
_KERNEL_EVENTS = 1024  # edges the kernel keeps while this process does not come to read them
_STOP_WITHIN = 0.2  # seconds; how often the waiting thread looks whether it is to end

_DO = {
    errno.ENOENT: "check `chip`: `gpiodetect` lists the chips of this device",
    errno.ENODEV: "check `chip`: `gpiodetect` lists the chips of this device",
    errno.ENOTTY: "check `chip`: `gpiodetect` lists the chips of this device",
    errno.EACCES: "let this user use it: add it to the group that owns the chip, or give a udev rule",
    errno.EPERM: "let this user use it: add it to the group that owns the chip, or give a udev rule",
    errno.EBUSY: "end what holds the line (`gpioinfo` names it), and name no line twice in the station file",
    errno.EINVAL: "check `line`: `gpioinfo` lists the lines of each chip and what they can do",
}


class GpioOutputs:
    """The outputs of a station file, inactive when opened and when closed; see `pulses.OutputLines`.

    A process that is killed cannot bring its outputs to rest: what a line does then is its driver's matter, so what
    hangs on it should return to reject by itself.

    Args:
        outputs: of the station file.

    Raises:
        StationError: a chip is missing or may not be used, a line does not exist or is in use.
        MissingExtraError: gpiod is not installed.
    """

    def __init__(self, outputs: Sequence[GpioOutput]) -> None:
        self._gpiod = _import_gpiod()
        self._requests: list[gpiod.LineRequest] = []
        self._offsets = [output.line for output in outputs]
        try:
            for output in outputs:
                self._requests.append(_request(output.chip, output.line, self._settings(output)))
        except BaseException:
            self.close()
            raise

    def set(self, output: int, active: bool) -> None:
        """Drive one, by its place in the station file.

        Raises:
            OSError: the line could not be driven.
        """
        value = self._gpiod.line.Value
        self._requests[output].set_value(self._offsets[output], value.ACTIVE if active else value.INACTIVE)

    def close(self) -> None:
        """Give all of them back. May be called twice."""
        while self._requests:
            self._requests.pop().release()

    def _settings(self, output: GpioOutput) -> gpiod.LineSettings:
        line = self._gpiod.line
        settings: gpiod.LineSettings = self._gpiod.LineSettings(
            direction=line.Direction.OUTPUT, output_value=line.Value.INACTIVE, active_low=output.active_low
        )
        return settings


class GpioTriggerInput:
    """Triggers at the edges of an input, stamped by the kernel when they came, however late they are read.

    With `debounce`, an edge counts once the line has stayed for that long, and where the kernel debounces by software
    it is stamped then: the trigger is later than the edge by so much.

    Args:
        table: of the station file.
        trigger: takes the time of each edge, monotonic nanoseconds; called on the thread that waits for them.
        report: takes the name and the detail of an event: edges lost because more came than the kernel keeps.
        failed: hears that the input is gone; no edge comes any more.

    Raises:
        StationError: the chip is missing or may not be used, the line does not exist, is in use or has no interrupt.
        MissingExtraError: gpiod is not installed.
    """

    def __init__(
        self,
        table: GpioTrigger,
        trigger: Callable[[int], None],
        report: Callable[[str, str], None],
        failed: Callable[[StationError], None],
    ) -> None:
        line = _import_gpiod().line
        self._name = f"input {table.line} of {table.chip}"
        self._trigger = trigger
        self._report = report
        self._failed = failed
        self._ended = threading.Event()
        self._since_ns = 0
        self._seen = 0  # edges, as the kernel counts them
        self._request = _request(
            table.chip,
            table.line,
            _import_gpiod().LineSettings(
                direction=line.Direction.INPUT,
                edge_detection=line.Edge.RISING if table.edge == "rising" else line.Edge.FALLING,
                debounce_period=datetime.timedelta(seconds=table.debounce or 0.0),
                event_clock=line.Clock.MONOTONIC,
            ),
        )
        self._thread = threading.Thread(target=self._run, name="lineward-gpio", daemon=True)

    def start(self) -> None:
        """Begin to trigger; edges from before are parts that have gone by, and do not count."""
        self._since_ns = time.monotonic_ns()
        self._thread.start()

    def stop(self) -> None:
        """Trigger no more, and give the line back. May be called twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._request.release()

    def _run(self) -> None:
        raise_priority(Role.ACQUISITION)
        try:
            while not self._ended.is_set():
                if self._request.wait_edge_events(_STOP_WITHIN):
                    for event in self._request.read_edge_events():
                        self._take(event)
        except OSError as error:
            self._failed(StationError(f"{self._name} is gone ({error.strerror})", do="check the chip with `gpioinfo`"))

    def _take(self, event: gpiod.EdgeEvent) -> None:
        if lost := event.line_seqno - self._seen - 1:
            self._report("triggers_lost", f"{self._name}: {lost} edges, more than the kernel keeps")
        self._seen = event.line_seqno
        if event.timestamp_ns >= self._since_ns:
            self._trigger(event.timestamp_ns)


def _import_gpiod() -> ModuleType:
    try:
        import gpiod
    except ImportError as error:
        raise MissingExtraError(
            "GPIO needs gpiod, which is not installed", do="pip install 'lineward[station]'"
        ) from error
    return gpiod


def _request(chip: str, line: int, settings: gpiod.LineSettings) -> gpiod.LineRequest:
    try:
        request: gpiod.LineRequest = _import_gpiod().request_lines(
            chip, {line: settings}, consumer=_CONSUMER, event_buffer_size=_KERNEL_EVENTS
        )
    except ValueError as error:  # gpiod's own word for a line that the chip has not
        raise StationError(f"{chip} has no line {line}", do=_DO[errno.EINVAL]) from error
    except OSError as error:
        do = _DO.get(error.errno or 0, "check the chip and the line with `gpioinfo`")
        raise StationError(f"{chip}, line {line}: cannot be used ({error.strerror})", do=do) from error
    return request
