from __future__ import annotations

import pytest

from lineward.runtime.bench.tegrastats import module_watts, parse_line, summarise_lines

ORIN_NANO = (
    "11-24-2026 10:15:01 RAM 2639/7620MB (lfb 9x4MB) SWAP 0/3810MB (cached 0MB) "
    "CPU [1%@729,4%@1510,off,off,5%@729,4%@729] GR3D_FREQ 12% cpu@44.156C soc2@43.781C soc0@44.687C gpu@45.968C "
    "tj@45.968C soc1@45.312C VDD_IN 5263mW/5200mW VDD_CPU_GPU_CV 717mW/717mW VDD_SOC 1794mW/1794mW"
)
AGX_ORIN = (
    "11-24-2026 10:15:01 RAM 13123/62841MB (lfb 63x4MB) SWAP 9/31420MB (cached 0MB) CPU [3%@2201,4%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305,306] VIC_FREQ 729 APE 174 CV0@-256C CPU@48.156C Tboard@36C SOC2@43.562C "
    "Tdiode@36.25C tj@48.156C VDD_GPU_SOC 3193mW/3193mW VDD_CPU_CV 399mW/399mW VIN_SYS_5V0 4306mW/4306mW "
    "NC 0mW/0mW VDDQ_VDD2_1V8AO 504mW/504mW NC 0mW/0mW"
)
THOR = (
    "RAM 9000/125772MB (lfb 10x4MB) CPU [0%@2601,0%@972] GR3D_FREQ 0%@[1574,1574,1574] tj@55.1C cpu@53.7C "
    "VDD_GPU -392mW/0mW VDD_CPU_SOC_MSS 6510mW/6510mW VIN_SYS_5V0 6520mW/6520mW VIN 23010mW/23010mW"
)
NANO = (
    "RAM 1903/3964MB (lfb 4x4MB) SWAP 0/1982MB (cached 0MB) CPU [11%@1479,off,8%@1479,6%@1479] EMC_FREQ 0%@1600 "
    "GR3D_FREQ 0%@921 PLL@26C CPU@29C PMIC@100C GPU@28C AO@35C thermal@28.25C POM_5V_IN 2532/2532 POM_5V_GPU 0/0 "
    "POM_5V_CPU 406/406"
)


@pytest.mark.parametrize(
    ("line", "cpu", "gpu", "sensor", "rails"),
    [
        (
            ORIN_NANO,
            (729, 1510, 729, 729),
            (),
            {"tj": 45.968, "soc1": 45.312, "cpu": 44.156},
            {"VDD_IN": 5263, "VDD_CPU_GPU_CV": 717, "VDD_SOC": 1794},
        ),
        (
            AGX_ORIN,
            (2201, 729),
            (305, 306),
            {"tj": 48.156, "Tboard": 36, "Tdiode": 36.25},
            {"VDD_GPU_SOC": 3193, "VDD_CPU_CV": 399, "VIN_SYS_5V0": 4306, "VDDQ_VDD2_1V8AO": 504, "NC": 0},
        ),
        (
            THOR,
            (2601, 972),
            (1574, 1574, 1574),
            {"tj": 55.1},
            {"VDD_GPU": -392, "VDD_CPU_SOC_MSS": 6510, "VIN_SYS_5V0": 6520, "VIN": 23010},
        ),
        (NANO, (1479, 1479, 1479), (921,), {"thermal": 28.25}, {"POM_5V_IN": 2532, "POM_5V_GPU": 0, "POM_5V_CPU": 406}),
    ],
    ids=["Orin Nano", "AGX Orin", "Thor", "Nano"],
)
def test_lines_of_several_jetsons(line, cpu, gpu, sensor, rails):
    found = parse_line(line)
    assert (found.cpu_mhz, found.gpu_mhz, dict(found.milliwatts)) == (cpu, gpu, rails)
    assert sensor.items() <= dict(found.temperatures).items()


def test_a_sensor_that_is_off_is_left_out():
    assert "CV0" not in parse_line(AGX_ORIN).temperatures


@pytest.mark.parametrize("line", ["", "tegrastats: command failed", "CPU [", "GR3D_FREQ", "VDD_IN mW/mW", "@C"])
def test_lines_that_say_nothing(line):
    found = parse_line(line)
    assert (found.cpu_mhz, found.gpu_mhz, found.temperatures, found.milliwatts) == ((), (), {}, {})
    assert summarise_lines([line]) is None


def test_a_run_has_mean_power_and_greatest_temperature():
    later = ORIN_NANO.replace("VDD_IN 5263mW", "VDD_IN 7263mW").replace("tj@45.968C", "tj@51C")
    found = summarise_lines([ORIN_NANO, "", later])
    assert found.lines == 2
    assert found.watts["VDD_IN"] == pytest.approx(6.263)
    assert found.temperatures["tj"] == 51
    assert (found.cpu_mhz, found.gpu_mhz) == ((729, 1510), None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (ORIN_NANO, (5.263, "VDD_IN")),
        (AGX_ORIN, (7.898, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0")),
        (THOR, (23.01, "VIN")),
        (NANO, (2.532, "POM_5V_IN")),
        ("VDD_SOC 1794mW/1794mW", None),
    ],
    ids=["Orin Nano", "AGX Orin", "Thor", "Nano", "a part of it"],
)
def test_power_of_the_module_is_not_the_sum_of_whatever_is_there(line, expected):
    found = module_watts(summarise_lines([line]).watts)
    assert found == (expected and (pytest.approx(expected[0]), expected[1]))
