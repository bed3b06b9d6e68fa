from __future__ import annotations

import os

import pytest

from lineward.runtime.bench.energy import Meter, spent_microjoules

LINE = "RAM 1/2MB CPU [1%@729] tj@45.5C VDD_IN 5000mW/5000mW"


@pytest.fixture(autouse=True)
def _no_tegrastats(monkeypatch, tmp_path):
    """Neither the machine's own tegrastats nor its counters, wherever the tests run."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.defpath}")


@pytest.fixture
def powercap(tmp_path):
    def lay(microjoules):
        for name, value in microjoules.items():
            folder = tmp_path / "powercap" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "energy_uj").write_text(str(value))
            (folder / "max_energy_range_uj").write_text("1000000000")
        return tmp_path / "powercap"

    return lay


def test_a_processor_with_counters(powercap):
    """Two packages count; what is a part of a package must not count again."""
    with Meter(powercap({"intel-rapl:0": 100, "intel-rapl:1": 0, "intel-rapl:0:0": 50})) as meter:
        powercap({"intel-rapl:0": 2_000_100, "intel-rapl:1": 1_000_000, "intel-rapl:0:0": 900_000})
    found = meter.energy(1.0)
    assert found.joules == 3.0
    assert "package" in found.source


def test_no_sensor_no_energy(tmp_path):
    with Meter(tmp_path / "nowhere") as meter:
        pass
    assert meter.energy(1.0) is None
    assert meter.tegra is None


def test_a_counter_that_cannot_be_read_is_no_energy(powercap):
    root = powercap({"intel-rapl:0": 1, "intel-rapl:1": "permission denied"})
    with Meter(root) as meter:
        powercap({"intel-rapl:0": 5})
    assert meter.energy(1.0) is None


@pytest.mark.parametrize(
    ("before", "after", "greatest", "spent"),
    [(5, 9, None, 4), (9, 9, 10, 0), (9, 2, 10, 3), (9, 2, None, None), (None, 2, 10, None), (2, None, 10, None)],
)
def test_counters_begin_anew(before, after, greatest, spent):
    assert spent_microjoules(before, after, greatest) == spent


def test_tegrastats_is_heard_and_ended(tmp_path):
    program = tmp_path / "bin" / "tegrastats"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\necho "{LINE}"\n: > {tmp_path}/spoken\nexec sleep 60\n')
    program.chmod(0o755)
    os.mkfifo(tmp_path / "spoken")
    with Meter(tmp_path / "nowhere") as meter:
        (tmp_path / "spoken").read_bytes()  # waits until it has spoken
    found = meter.energy(2.0)
    assert found.joules == 10.0
    assert "VDD_IN" in found.source
    assert meter.tegra.watts == {"VDD_IN": 5.0}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
