from __future__ import annotations

import msgspec
import numpy as np
import pytest

from lineward.runtime.bench.compare import compare, machine_differences, work_differences
from lineward.runtime.bench.record import TRIGGER
from lineward.runtime.errors import BenchError

VERSIONS = {"python": "3.10.12", "onnxruntime": "1.23.2", "numpy": "2.2.6"}


@pytest.mark.parametrize(
    ("machine", "fields", "named"),
    [
        ({"cpu": "AMD EPYC"}, {}, "cpu: Arm implementer 0x41, part 0xd42 and AMD EPYC"),
        ({"architecture": "x86_64"}, {}, "architecture: aarch64 and x86_64"),
        ({"cores": 4}, {}, "cores: 6 and 4"),
        ({"board": ""}, {}, "board: NVIDIA Jetson Orin Nano Developer Kit and not told"),
        ({"gpu": "NVIDIA RTX A2000"}, {}, "gpu: not told and NVIDIA RTX A2000"),
        ({"governor": "performance"}, {}, "governor: schedutil and performance"),
        ({"power_mode": "MAXN"}, {}, "power mode: 15W and MAXN"),
        ({"versions": VERSIONS | {"onnxruntime": "1.32.0"}}, {}, "onnxruntime: 1.23.2 and 1.32.0"),
        ({"versions": VERSIONS | {"tensorrt": "10.3.0"}}, {}, "tensorrt: not told and 10.3.0"),
        ({}, {"engine": "tensorrt"}, "engine: cpu and tensorrt"),
        ({}, {"threads": 2}, "threads: one a core and 2"),
    ],
)
def test_other_machines_are_refused_and_the_difference_named(make_record, machine, fields, named):
    first, second = make_record(), make_record(machine=machine, **fields)
    assert machine_differences(first, second) == [named]
    with pytest.raises(BenchError, match="not measured on the same machine") as caught:
        compare(first, second)
    assert named in caught.value.what
    assert "--different-machines" in caught.value.do
    assert compare(first, second, different_machines=True)


@pytest.mark.parametrize(
    ("machine", "fields", "named"),
    [
        ({"versions": VERSIONS | {"numpy": "2.3.0"}}, {}, "versions"),
        ({"system": "Linux 6.8"}, {}, "system"),
        ({}, {"bundle": "c" * 64}, "bundle"),
        ({}, {"product": "can"}, "bundle"),
    ],
)
def test_other_work_on_one_machine_is_compared_and_told(make_record, machine, fields, named):
    first, second = make_record(), make_record(machine=machine, **fields)
    assert machine_differences(first, second) == []
    assert [difference.partition(":")[0] for difference in work_differences(first, second)] == [named]
    assert compare(first, second)


def test_the_same_has_no_differences(make_record):
    assert machine_differences(make_record(), make_record()) == []
    assert work_differences(make_record(), make_record()) == []


def test_decoding_in_one_alone_is_refused(make_record):
    record = make_record()
    decoded = msgspec.structs.replace(record, images=msgspec.structs.replace(record.images, decoded=True))
    with pytest.raises(BenchError, match="left out decoding"):
        compare(record, decoded)


def test_runs_are_compared_with_those_of_the_same_rate(make_record):
    first, second = make_record({None: [0.01] * 20, 5.0: [0.02] * 20}), make_record({5.0: [0.04] * 20, 9.0: [1] * 20})
    changes = compare(first, second)
    assert {change.run for change in changes} == {"at 5/s"}
    assert [change.ratio.value for change in changes if change.stage == TRIGGER] == [2.0]
    with pytest.raises(BenchError, match=r"no run in common \(back to back; at 9/s\)"):
        compare(make_record({None: [1] * 20}), make_record({9.0: [1] * 20}))


def test_runs_that_are_too_short(make_record):
    with pytest.raises(BenchError, match="too short"):
        compare(make_record({None: [0.01] * 9}), make_record({None: [0.01] * 9}))


@pytest.mark.parametrize(
    ("scale", "finding"),
    [(1.5, "slower"), (0.6, "faster"), (1.0, "no difference shown"), (1.005, "no difference shown")],
)
def test_what_is_found(make_record, scale, finding):
    random = np.random.RandomState(1)
    runs = [random.lognormal(-4, 0.1, 600) for _ in range(2)]
    changes = compare(make_record({None: runs[0]}), make_record({None: runs[1] * scale}))
    found = {change.percentile: change.finding for change in changes if change.stage == TRIGGER}
    assert found == {"p50": finding, "p99": finding}
