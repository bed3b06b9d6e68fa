"""The machine: what it is, and how it is at one moment, as far as procfs, sysfs and nvpmodel tell.

Everything is read from files that every user may read; what is not there, or may not be read, is left out.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lineward.runtime.bench.record import Machine, State

PACKAGES = ("lineward", "numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "tensorrt")
_ROOT = Path("/")
_NO_SENSOR = -100.0
"""Degrees Celsius; a Tegra zone that is powered down reads -256."""


def read_machine(root: Path = _ROOT) -> Machine:
    """What must be equal for two benches to be compared.

    Args:
        root: where `proc`, `sys` and `etc` lie.
    """
    release = _text(root / "etc/nv_tegra_release").partition("\n")[0].strip("# ")
    versions = {"python": platform.python_version(), **dict(_versions())}
    return Machine(
        cpu=cpu_model(_text(root / "proc/cpuinfo")),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        board=_text(root / "proc/device-tree/model").strip("\0"),
        gpu=_gpus(root),
        governor=", ".join(sorted({_text(path / "scaling_governor") for path in _policies(root)} - {""})),
        power_mode=power_mode(_nvpmodel()) or _text(root / "sys/firmware/acpi/platform_profile"),
        system=f"{platform.system()} {platform.release()}" + (f", {release}" if release else ""),
        versions=versions,
    )


def read_state(root: Path = _ROOT) -> State:
    """Load, clocks, temperatures and throttling now; `root` as in `read_machine`."""
    load = _number(_text(root / "proc/loadavg").split(" ")[0])
    return State(
        load=0.0 if load is None else load,
        clocks=dict(_clocks(root)),
        temperatures=dict(_temperatures(root)),
        throttling=dict(_throttling(root)),
    )


def throttled(before: State, after: State) -> list[str]:
    """What throttled the machine between two states: counters that grew, cooling devices at work at the end."""
    return [
        name
        for name, value in after.throttling.items()
        if value > (0 if name.startswith("cooling") else before.throttling.get(name, value))
    ]


def cpu_model(cpuinfo: str) -> str:
    """The model in the text of /proc/cpuinfo; on Arm implementer and part; "" where it does not say."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    if "model name" in facts:
        return facts["model name"]
    if "CPU part" in facts:
        return f"Arm implementer {facts.get('CPU implementer', 'unknown')}, part {facts['CPU part']}"
    return facts.get("Model", "")


def power_mode(answer: str) -> str:
    """The mode's name in the answer of `nvpmodel -q`, such as "MAXN"; "" where there is none."""
    found = re.search(r"NV Power Mode:\s*(\S.*)", answer)
    return found[1].strip() if found else ""


def _nvpmodel() -> str:
    program = shutil.which("nvpmodel")
    if not program:
        return ""
    try:
        return subprocess.run([program, "-q"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _gpus(root: Path) -> str:
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    models = [re.search(r"^Model:\s*(.+)$", _text(path), re.MULTILINE) for path in files]
    return ", ".join(found[1].strip() for found in models if found)


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def _policies(root: Path) -> list[Path]:
    return sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))


def _clocks(root: Path) -> Iterator[tuple[str, float]]:
    """MHz: cpufreq's policies with their limits, else what cpuinfo says; then devfreq, a Jetson's GPU among it."""
    policies = _policies(root)
    for path in policies:
        for name, file in (("", "scaling_cur_freq"), (" min", "scaling_min_freq"), (" max", "scaling_max_freq")):
            if (value := _number(_text(path / file))) is not None:
                yield f"cpu {path.name}{name}", value / 1e3  # of kHz
    if not policies:
        found = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo"), re.M)]
        yield from ((f"cpu {index}", mhz) for index, mhz in enumerate(found))
    for path in sorted((root / "sys/class/devfreq").glob("*")):
        if (value := _number(_text(path / "cur_freq"))) is not None:
            yield path.name, value / 1e6  # of Hz


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    for path in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _number(_text(path / "temp"))
        if value is not None and value / 1e3 > _NO_SENSOR:
            yield _text(path / "type") or path.name, value / 1e3


def _throttling(root: Path) -> Iterator[tuple[str, int]]:
    """Intel's counters, a Tegra's overcurrent and undervoltage events, and cooling devices that take clocks down."""
    for kind in ("core", "package"):
        files = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
        counts = [count for path in files if (count := _number(_text(path))) is not None]
        if counts:
            yield f"{kind} throttle count", int(sum(counts))
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc[0-9]_event_cnt")):
        if (count := _number(_text(path))) is not None:
            yield path.name.replace("_event_cnt", " events"), int(count)
    for path in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind, state = _text(path / "type"), _number(_text(path / "cur_state"))
        if state and ("cpufreq" in kind or "devfreq" in kind or kind == "Processor"):
            yield f"cooling {kind} ({path.name})", int(state)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
