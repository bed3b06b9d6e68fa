from __future__ import annotations

import msgspec
import pytest

from lineward.runtime.bench import machine as module
from lineward.runtime.bench.machine import cpu_model, power_mode, read_machine, read_state, throttled

CPU = "sys/devices/system/cpu"
ORIN = {
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd42\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\nmore\n",
    f"{CPU}/cpufreq/policy0/scaling_governor": "schedutil\n",
    f"{CPU}/cpufreq/policy0/scaling_cur_freq": "729600\n",
    f"{CPU}/cpufreq/policy0/scaling_min_freq": "729600\n",
    f"{CPU}/cpufreq/policy0/scaling_max_freq": "1510400\n",
    f"{CPU}/cpufreq/policy4/scaling_governor": "schedutil\n",
    f"{CPU}/cpufreq/policy4/scaling_cur_freq": "1510400\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "305910000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48156\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device1/cur_state": "2\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
}
LAPTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7-1185G7 @ 3.00GHz\ncpu MHz\t\t: 1200.500\n",
    "proc/loadavg": "1.00 1.00 1.00 1/1 1",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 170\n",
    f"{CPU}/cpufreq/policy0/scaling_governor": "powersave\n",
    f"{CPU}/cpufreq/policy1/scaling_governor": "performance\n",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "3\n",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "4\n",
    f"{CPU}/cpu0/thermal_throttle/package_throttle_count": "5\n",
    "sys/firmware/acpi/platform_profile": "balanced\n",
}


@pytest.fixture
def tree(tmp_path):
    """Lays out files as a system shows them."""

    def lay(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return lay


def test_a_jetson(tree, monkeypatch):
    monkeypatch.setattr(module, "_nvpmodel", lambda: "NV Power Mode: 15W\n0\n")
    found = read_machine(tree(ORIN))
    assert found.cpu == "Arm implementer 0x41, part 0xd42"
    assert found.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (found.governor, found.power_mode, found.gpu) == ("schedutil", "15W", "")
    assert found.system.endswith("R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic")
    assert {"python", "numpy", "onnxruntime"} <= found.versions.keys()
    assert msgspec.convert(msgspec.to_builtins(found), type(found)) == found


def test_a_jetson_now(tree):
    found = read_state(tree(ORIN))
    assert found.load == 0.52
    assert found.clocks == pytest.approx(
        {
            "cpu policy0": 729.6,
            "cpu policy0 min": 729.6,
            "cpu policy0 max": 1510.4,
            "cpu policy4": 1510.4,
            "17000000.gpu": 305.91,
        }
    )
    assert found.temperatures == {"cpu-thermal": 48.156}
    assert found.throttling == {"oc1 events": 0, "oc3 events": 37}


def test_a_laptop(tree, monkeypatch):
    monkeypatch.setattr(module, "_nvpmodel", lambda: "")
    root = tree(LAPTOP)
    found = read_machine(root)
    assert found.cpu == "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz"
    assert (found.governor, found.power_mode, found.gpu) == ("performance, powersave", "balanced", "NVIDIA RTX A2000")
    assert read_state(root).throttling == {"core throttle count": 7, "package throttle count": 5}


def test_without_cpufreq_the_clocks_are_those_of_cpuinfo(tree):
    assert read_state(tree({"proc/cpuinfo": LAPTOP["proc/cpuinfo"]})).clocks == {"cpu 0": 1200.5}


def test_a_system_that_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_nvpmodel", lambda: "")
    found = read_machine(tmp_path)
    assert (found.cpu, found.board, found.gpu, found.governor, found.power_mode) == ("",) * 5
    state = read_state(tmp_path)
    assert (state.load, state.clocks, state.temperatures, state.throttling) == (0, {}, {}, {})


def test_files_of_nonsense_are_left_out(tree):
    found = read_state(tree(dict.fromkeys(ORIN, "<unsupported>\n")))
    assert (found.load, found.clocks, found.temperatures, found.throttling) == (0, {}, {}, {})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"sys/class/hwmon/hwmon3/oc3_event_cnt": "38"}, ["oc3 events"]),
        ({"sys/class/thermal/cooling_device0/cur_state": "1"}, ["cooling cpufreq-cpu0 (cooling_device0)"]),
        ({"sys/class/thermal/cooling_device1/cur_state": "3"}, []),  # a fan that turns faster throttles nothing
    ],
)
def test_what_throttled_a_run_is_named(tree, changes, named):
    before = read_state(tree(ORIN))
    assert throttled(before, read_state(tree(changes))) == named


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [("", ""), ("nonsense", ""), ("Model\t\t: Raspberry Pi 5 Model B Rev 1.0", "Raspberry Pi 5 Model B Rev 1.0")],
)
def test_other_processors(cpuinfo, model):
    assert cpu_model(cpuinfo) == model


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W\n2\n", "MODE_15W"),
        ("NVPM VERB: Current mode: NV Power Mode: 25W\n1\n", "25W"),
        ("NV Power Mode:\n", ""),
        ("nvpmodel: permission denied", ""),
        ("", ""),
    ],
)
def test_answers_of_nvpmodel(answer, mode):
    assert power_mode(answer) == mode
