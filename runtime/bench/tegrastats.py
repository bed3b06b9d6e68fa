"""NVIDIA's `tegrastats`, which every Jetson has: its lines, and what they say of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lineward.runtime.bench.record import Tegra

_NO_SENSOR = -100.0
_MAPPINGS = ("milliwatts", "temperatures")
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


@dataclass(frozen=True)
class Line:
    """One line of tegrastats.

    Attributes:
        cpu_mhz: clock of each core that is on.
        gpu_mhz: clock of the GPU's clusters; empty where the line has only their load.
        temperatures: degrees Celsius by sensor; one that is off is left out.
        milliwatts: power now by rail.
    """

    cpu_mhz: tuple[int, ...]
    gpu_mhz: tuple[int, ...]
    temperatures: Mapping[str, float]
    milliwatts: Mapping[str, int]


def parse_line(line: str) -> Line:
    """Parse a line, in the formats of JetPack 4 to 7; what is not in it is empty.

    Source: Jetson Linux Developer Guide, "tegrastats Utility": `CPU [2%@729,off]`, `GR3D_FREQ 0%@[305]`, `tj@48.1C`,
    `VDD_IN 4948mW/4950mW` (now and mean; older releases leave out the unit).
    """
    cores = re.search(r"\bCPU \[([^\]]*)\]", line)
    gpu = re.search(r"\bGR3D_FREQ \d+%@\[?([\d,]+)", line)
    temperatures = {name: float(value) for name, value in re.findall(r"\b([\w-]+)@(-?[\d.]+)C\b", line)}
    rails = re.findall(r"\b([A-Z][A-Z0-9_]+) (-?\d+)(?:mW/-?\d+mW|/-?\d+(?=\s|$))", line)
    return Line(
        tuple(int(mhz) for mhz in re.findall(r"%@(\d+)", cores[1])) if cores else (),
        tuple(int(mhz) for mhz in gpu[1].split(",") if mhz) if gpu else (),
        {name: value for name, value in temperatures.items() if value > _NO_SENSOR},
        {name: int(milliwatts) for name, milliwatts in rails},
    )


def summarise_lines(lines: Sequence[str]) -> Tegra | None:
    """Mean power, greatest temperatures and the range of clocks; None where no line says anything."""
    parsed = [line for line in map(parse_line, lines) if line.cpu_mhz or line.milliwatts or line.temperatures]
    if not parsed:
        return None
    rails, sensors = ({name: None for line in parsed for name in getattr(line, of)} for of in _MAPPINGS)
    watts = {name: [line.milliwatts[name] / 1e3 for line in parsed if name in line.milliwatts] for name in rails}
    return Tegra(
        len(parsed),
        {name: sum(values) / len(values) for name, values in watts.items()},
        {name: max(line.temperatures.get(name, _NO_SENSOR) for line in parsed) for name in sensors},
        _range([mhz for line in parsed for mhz in line.cpu_mhz]),
        _range([mhz for line in parsed for mhz in line.gpu_mhz]),
    )


def module_watts(watts: Mapping[str, float]) -> tuple[float, str] | None:
    """Power of the whole module, and the rails it is of; None where no rail is known to hold the whole.

    Orin Nano and NX measure it as `VDD_IN`, Thor as `VIN`; AGX Orin has three rails that share it
    (Jetson Linux Developer Guide, "Power Monitor").
    """
    for rail in ("VDD_IN", "POM_5V_IN", "VIN"):
        if rail in watts:
            return watts[rail], rail
    if all(rail in watts for rail in _AGX_ORIN):
        return sum(watts[rail] for rail in _AGX_ORIN), " + ".join(_AGX_ORIN)
    return None


def _range(values: Sequence[int]) -> tuple[int, int] | None:
    return (min(values), max(values)) if values else None
