"""GPIO: on lines that the kernel simulates (module gpio-sim) where there are such, and what is said where not."""

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lineward.runtime.errors import StationError
from lineward.runtime.station.configuration import GpioOutput, GpioTrigger, Seconds
from lineward.runtime.station.pulses import Pulses

gpiod = pytest.importorskip("gpiod")
gpio = pytest.importorskip("lineward.runtime.station.gpio")

_CONFIG = Path("/sys/kernel/config/gpio-sim")
_names = itertools.count()


class SimulatedChip:
    """A chip of the kernel's own: its inputs are pulled up and down, its outputs read, from outside."""

    def __init__(self, lines: int) -> None:
        self._folder = _CONFIG / f"lineward-{os.getpid()}-{next(_names)}"
        bank = self._folder / "bank0"
        bank.mkdir(parents=True)
        (bank / "num_lines").write_text(str(lines))
        (self._folder / "live").write_text("1")
        name = (bank / "chip_name").read_text().strip()
        device = (self._folder / "dev_name").read_text().strip()
        self.path = f"/dev/{name}"
        self._lines = Path("/sys/devices/platform", device, name)
        within(lambda: Path(self.path).exists())

    def level(self, line: int) -> int:
        return int((self._lines / f"sim_gpio{line}" / "value").read_text())

    def pull(self, line: int, up: bool) -> None:
        (self._lines / f"sim_gpio{line}" / "pull").write_text("pull-up" if up else "pull-down")

    def close(self) -> None:
        (self._folder / "live").write_text("0")
        (self._folder / "bank0").rmdir()
        self._folder.rmdir()


@pytest.fixture
def chip() -> Iterator[SimulatedChip]:
    if not _CONFIG.is_dir():
        pytest.skip("needs the kernel's simulated GPIO: root, `modprobe gpio-sim`, configfs mounted")
    simulated = SimulatedChip(8)
    yield simulated
    simulated.close()


def within(wanted: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.002)


def output(chip: str, line: int, **given: object) -> GpioOutput:
    return GpioOutput(chip=chip, line=line, after=Seconds(0.05), **given)  # type: ignore[arg-type]


def never(*_: object) -> None:
    raise AssertionError("called")


# On simulated lines.


@pytest.mark.parametrize(("active_low", "rest"), [(False, 0), (True, 1)])
def test_outputs_rest_when_opened_and_follow(chip: SimulatedChip, active_low: bool, rest: int) -> None:
    chip.pull(3, not rest)
    lines = gpio.GpioOutputs([output(chip.path, 2), output(chip.path, 3, active_low=active_low)])
    seen = [chip.level(3)]
    for active in (True, False, True):
        lines.set(1, active)
        seen.append(chip.level(3))
    lines.close()
    lines.close()
    assert seen == [rest, 1 - rest, rest, 1 - rest]


def test_a_pulse_is_given_on_a_line(chip: SimulatedChip) -> None:
    from tests.runtime.station.test_pulses import record

    outputs = [output(chip.path, 0, width=Seconds(0.1))]
    pulses = Pulses(outputs, gpio.GpioOutputs(outputs), never, never)
    pulses.start()
    assert chip.level(0) == 0
    begin = time.monotonic_ns()
    pulses.final(record(1, begin, passed=True))
    within(lambda: chip.level(0) == 1)
    assert time.monotonic_ns() - begin >= 50e6
    within(lambda: chip.level(0) == 0)
    assert time.monotonic_ns() - begin >= 150e6
    pulses.stop()


@pytest.mark.parametrize("edge", ["rising", "falling"])
def test_each_edge_triggers_once_at_its_own_time(chip: SimulatedChip, edge: str) -> None:
    times: list[int] = []
    chip.pull(1, edge == "falling")
    table = GpioTrigger(chip=chip.path, line=1, edge=edge)  # type: ignore[arg-type]
    triggers = gpio.GpioTriggerInput(table, times.append, never, never)
    spans = []
    chip.pull(1, edge == "rising")  # before the start: a part that has gone by
    chip.pull(1, edge == "falling")
    triggers.start()
    for _ in range(20):
        begin = time.monotonic_ns()
        chip.pull(1, edge == "rising")
        spans.append((begin, time.monotonic_ns()))
        chip.pull(1, edge == "falling")
        time.sleep(0.005)
    within(lambda: len(times) >= len(spans))
    triggers.stop()
    triggers.stop()
    assert len(times) == len(spans)
    # The simulated interrupt may run a little after the write that raises it has returned.
    assert all(begin <= at <= end + 20e6 for at, (begin, end) in zip(times, spans, strict=True))


def test_bounces_are_one_trigger(chip: SimulatedChip) -> None:
    times: list[int] = []
    table = GpioTrigger(chip=chip.path, line=1, debounce=Seconds(0.05))
    triggers = gpio.GpioTriggerInput(table, times.append, never, never)
    triggers.start()
    begin = time.monotonic_ns()
    for up in (True, False, True, False, True):
        chip.pull(1, up)
    within(lambda: bool(times))
    time.sleep(0.1)
    triggers.stop()
    assert len(times) == 1
    assert times[0] - begin >= 50e6, "debounced in software, an edge is stamped once the line was quiet"


def test_edges_that_the_kernel_could_not_keep_are_told(chip: SimulatedChip) -> None:
    events: list[str] = []
    go_on = threading.Event()

    def wait(_: int) -> None:
        go_on.wait(60)

    triggers = gpio.GpioTriggerInput(
        GpioTrigger(chip=chip.path, line=1), wait, lambda name, detail: events.append(f"{name}: {detail}"), never
    )
    triggers.start()
    for up in (True, False) * 2000:
        chip.pull(1, up)
    go_on.set()
    within(lambda: bool(events))
    triggers.stop()
    assert "triggers_lost" in events[0]


@pytest.mark.parametrize(
    ("line", "do"),
    [(2, "end what holds the line"), (8, "check `line`"), (1 << 20, "check `line`")],
    ids=["in use", "one too far", "far too far"],
)
def test_a_line_that_cannot_be_had(chip: SimulatedChip, line: int, do: str) -> None:
    held = gpio.GpioOutputs([output(chip.path, 2)])
    with pytest.raises(StationError) as caught:
        gpio.GpioOutputs([output(chip.path, 3), output(chip.path, line)])
    assert do in caught.value.do
    gpio.GpioOutputs([output(chip.path, 3)]).close()  # the one that could be had was given back
    held.close()
    gpio.GpioOutputs([output(chip.path, 2)]).close()


# Anywhere.


@pytest.mark.parametrize("chip_path", ["/dev/no-such-gpiochip", "/dev/null", "/etc/passwd"])
def test_a_chip_that_is_none(chip_path: str) -> None:
    with pytest.raises(StationError, match=chip_path) as caught:
        gpio.GpioOutputs([output(chip_path, 0)])
    assert "gpiodetect" in caught.value.do
    with pytest.raises(StationError, match=chip_path):
        gpio.GpioTriggerInput(GpioTrigger(chip=chip_path, line=0), never, never, never)


@pytest.mark.parametrize(
    ("code", "do"),
    [
        (errno.EACCES, "group that owns the chip"),
        (errno.EPERM, "group that owns the chip"),
        (errno.EBUSY, "gpioinfo"),
        (errno.EINVAL, "check `line`"),
        (errno.EIO, "gpioinfo"),
    ],
)
def test_what_to_do(monkeypatch: pytest.MonkeyPatch, code: int, do: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr(gpiod, "request_lines", refuse)
    with pytest.raises(StationError, match=r"/dev/gpiochip0, line 4: cannot be used \(refused\)") as caught:
        gpio.GpioOutputs([output("/dev/gpiochip0", 4)])
    assert do in caught.value.do


def test_an_input_that_goes_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def wait_edge_events(self, _: float) -> bool:
            raise OSError(errno.ENODEV, "No such device")

        def release(self) -> None:
            pass

    monkeypatch.setattr(gpiod, "request_lines", lambda *_, **__: Gone())
    failures: list[StationError] = []
    triggers = gpio.GpioTriggerInput(GpioTrigger(chip="/dev/gpiochip0", line=4), never, never, failures.append)
    triggers.start()
    within(lambda: bool(failures))
    triggers.stop()
    assert "input 4 of /dev/gpiochip0 is gone" in failures[0].what
