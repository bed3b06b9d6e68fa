"""Every seeded fault is found by the checks; see mutations.py."""

from __future__ import annotations

import shutil

import pytest

from tests.runtime.cuda.emulated import PYCUDA, PYCUDA_IS_BUILT
from tests.runtime.cuda.mutations import FAULTS, LAUNCHER_FAULTS, Fault, launcher_outcome, outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the kernels cannot be emulated"),
]


def test_the_shipped_kernels_pass() -> None:
    assert outcome(None) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_kernel_fault_is_found(fault: Fault) -> None:
    assert outcome(fault)


needs_pycuda = pytest.mark.skipif(
    not PYCUDA_IS_BUILT,
    reason=f"PyCUDA is not in {PYCUDA}: build it once with tests/runtime/cuda/build_pycuda.sh",
)


@needs_pycuda
def test_the_shipped_launcher_passes() -> None:
    assert launcher_outcome(None) == ""


@needs_pycuda
@pytest.mark.parametrize("fault", LAUNCHER_FAULTS, ids=lambda fault: fault.name)
def test_launcher_fault_is_found(fault: Fault) -> None:
    assert launcher_outcome(fault)
