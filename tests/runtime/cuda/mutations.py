"""Seeded faults, in the kernels and in their launcher: every one must be found.

Run: `python -m tests.runtime.cuda.mutations`. The kernels' faults are held against checks.py on the emulator,
the launcher's against test_fake_driver.py (left out, and said so, where PyCUDA is not in its cache).

Left out, because they change nothing that can be seen: every lane of a quad giving its key (the maximum takes
it twice), and copying row 0 instead of zeros past the end (such rows and queries are never shown).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.runtime.cuda.emulated import PYCUDA, PYCUDA_IS_BUILT, SHIPPED, compile_emulated

ROOT = SHIPPED.parents[1]
TIMEOUT_S = 120


class Fault(NamedTuple):
    """One edit of one file in runtime/cuda: `old`, which occurs exactly once, becomes `new`."""

    name: str
    old: str
    new: str
    file: str = "fused_max.cu"

    def seed(self, folder: Path) -> None:
        """Make the edit in a copy of runtime/cuda."""
        source = (folder / self.file).read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {source.count(self.old)} times, not once")
        (folder / self.file).write_text(source.replace(self.old, self.new))


WAIT = "copy_wait<kStages - 2>();"
BARRIER = "sync_threads();  "
FETCH = "if (step + kStages - 1 < steps) fetch_ahead();"
SEE = "if (similarity == similarity && !(candidate <= similarity))"
QUERY = "queries + (lane & 15) * kPitch + (lane >> 4) * 8"
PAIR = "b[j][0] = pair[0], b[j][1] = pair[1], b[j + 1][0] = pair[2], b[j + 1][1] = pair[3];"
QUERY_SWAPPED = "queries + ((lane & 7) + (lane >> 4) * 8) * kPitch + ((lane >> 3) & 1) * 8"
COLUMN = "row + j * 8 + (lane & 3) * 2 + (e & 1)"

FAULTS = [
    # the pipeline
    Fault("no wait for copies", WAIT, ""),
    Fault("wait for one group too few", WAIT, "copy_wait<kStages - 1>();"),
    Fault("no barrier", BARRIER, ""),
    Fault("barrier before the wait", WAIT, "sync_threads(); copy_wait<kStages - 2>(); if (false)"),
    Fault(
        "no commit of empty groups",
        "copy_commit();  // even",
        "if (step + kStages - 1 < steps) copy_commit();  // even",
    ),
    Fault("last slice never fetched", FETCH, "if (step + kStages < steps) fetch_ahead();"),
    Fault("one stage too few in the ring", "stage + 1 == kStages ?", "stage + 1 == kStages - 1 ?"),
    Fault("rows of shared memory not padded", "kPitch = kSlice + 8", "kPitch = kSlice"),
    # where things lie
    Fault("rows past the end are read", "const bool inside = row + r < rows;", "const bool inside = true;"),
    Fault("bank k halves swapped", "((lane >> 3) & 1) * 8", "((lane >> 4) & 1) * 8"),
    Fault(
        "query matrices 1 and 2 swapped",
        QUERY,
        QUERY_SWAPPED,
    ),
    Fault(
        "bank fragments swapped",
        PAIR,
        PAIR.replace("[1] = pair[1]", "[1] = pair[2]"),
    ),
    Fault("columns of a tile mixed up", COLUMN, "row + j * 8 + (lane & 3) + (e & 1) * 4"),
    Fault("row halves of a tile mixed up", "best[i][e >> 1].see", "best[i][e & 1].see"),
    Fault(
        "warps share the wrong rows",
        "warpB = warp / kWarpsQ * kWarpRows",
        "warpB = warp % kWarpsQ * kWarpRows",
    ),
    Fault("next tile starts too early", "row += kRows;", "row += kRows / 2;"),
    Fault("splits overlap wrongly", "firstTile = blockIdx.y * tiles", "firstTile = blockIdx.y * (tiles + 1)"),
    Fault(
        "last tile of a split dropped",
        "(left < tiles ? left : tiles) *",
        "(left < tiles ? left : tiles > 1 ? tiles - 1 : 1) *",
    ),
    Fault("last split not shortened", "(left < tiles ? left : tiles) *", "tiles *"),
    # the running maximum
    Fault("padding takes part", "if (b < rows) best", "best"),
    Fault("sums not cleared between tiles", "sums[i][j][e] = 0.f;", ""),
    Fault("tile folded after its first slice", "if (here.k + kSlice == width) fold", "if (here.k == 0) fold"),
    Fault(
        "a tie in a lane goes to the later row",
        SEE,
        "if (similarity == similarity && !(candidate < similarity))",
    ),
    Fault("NaN loses", SEE, "if (candidate > similarity)"),
    Fault("NaN gives way to a later number", SEE, "if (!(candidate <= similarity))"),
    Fault("a later NaN replaces the first", SEE, "if (candidate > similarity || candidate != candidate)"),
    Fault("maximum starts at zero", "float_of(0xff800000u /* -inf */)", "0.f"),
    Fault("nobody is taken for a winner", "mine.index == kNobody ? 0 : key_of", "key_of"),
    # the reduction
    Fault("quad reduced by half", "mask <= 2; mask *= 2", "mask <= 1; mask *= 2"),
    Fault("quad reduced twice over the same pair", "exchange(key, mask)", "exchange(key, 1)"),
    Fault("quad takes the smaller", "other > key ? other : key", "other < key ? other : key"),
    Fault("only one quad reports", "if ((lane & 3) == 0 && q < nq)", "if (lane == 0 && q < nq)"),
    Fault("queries past the end are written", "if ((lane & 3) == 0 && q < nq)", "if ((lane & 3) == 0)"),
    Fault("last block wins, not the best", "atomic_max(best + q, key)", "store(best + q, key)"),
    # keys
    Fault("a tie between lanes goes to the later row", "(u32)~index;", "(u32)index;"),
    Fault("negative numbers in reverse", "? ~bits : (bits", "? bits : (bits"),
    Fault("positive numbers below negative ones", "(bits | 0x80000000u);", "bits;"),
    Fault("-0 below +0", "similarity == 0.f ? 0.f : similarity", "similarity"),
    Fault("NaN ranked by its sign", "similarity == similarity ? ordered : 0xffffffffu", "ordered"),
    # narrowing and rescoring
    Fault("padded with ones", ": (half_t)0)", ": (half_t)0x3c00)"),
    Fault("stride of the grid off by one", "i += stride)", "i += stride + 1)"),
    Fault("row and column confused", "const size_t row = i / padded;", "const size_t row = i / width;"),
    Fault("components skipped", "k < width; k += 32)", "k < width; k += 33)"),
    Fault("half of the lanes not summed", "int mask = 16; mask > 0", "int mask = 8; mask > 0"),
    Fault("NaN rescored to a number", "coarse == coarse ? sum : coarse", "sum"),
    Fault("nobody's row read", "if (m >= 0)", ""),
    Fault(
        "the wrong row rescored",
        "load(bank + (size_t)m * width + k)",
        "load(bank + (size_t)(m / 2) * width + k)",
    ),
    Fault("rescoring past the end", "if (q >= nq) return;", ""),
]


LAUNCH = "similarity.py"
LAUNCHER_FAULTS = [
    Fault("result read before it arrives", "self._slot.arrived.synchronize()", "pass", LAUNCH),
    Fault("arrival never recorded", "slot.arrived.record(self.stream)", "pass", LAUNCH),
    Fault("pinned memory handed out", "[: 2 * self._count].copy()", "[: 2 * self._count]", LAUNCH),
    Fault(
        "one buffer for two results",
        "for slot in self._slots if slot.free",
        "for slot in self._slots",
        LAUNCH,
    ),
    Fault("half of the keys zeroed", "self._best, 0, 2 * count", "self._best, 0, count", LAUNCH),
    Fault("kernels on another stream", "stream=self.stream)", "stream=None)", LAUNCH),
    Fault("last queries left out", "_ceil_div(count, QUERIES", "max(1, count // QUERIES", LAUNCH),
    Fault("last split left out", "_ceil_div(tiles, per_split)", "max(1, tiles // per_split)", LAUNCH),
    Fault("last queries not rescored", "_ceil_div(32 * count, THREADS)", "max(1, count // 4)", LAUNCH),
    Fault(
        "rescored at the padded width",
        "_integers(count, self._width),",
        "_integers(count, self._padded),",
        LAUNCH,
    ),
    Fault("halves rescored as floats", 'f"rescore_{suffix}"', '"rescore_f32"', LAUNCH),
    Fault("halves narrowed as floats", 'f"narrow_{suffix}"', '"narrow_f32"', LAUNCH),
    Fault("context left current", "self.cuda.Context.pop()", "pass", "device.py"),
    Fault("a context for every bank", "@cache\n", "", "device.py"),
    Fault("old GPUs let in", "OLDEST_CAPABILITY = (8, 0)", "OLDEST_CAPABILITY = (7, 0)", "device.py"),
    Fault("damaged file loaded", "hexdigest() != sha256", "hexdigest() == ''", "module.py"),
    Fault("first failure is final", "refused.append(f", "raise EngineError(do='', what=f", "module.py"),
]


def outcome(fault: Fault | None) -> str:
    """Say how a fault in the kernels was found, or "" if it was not (as must be for no fault)."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("fused_max.cu", "fused_prims.h"):
            shutil.copy(SHIPPED / name, folder)
        if fault is not None:
            fault.seed(folder)
        return _run_checks(compile_emulated("kernels.cpp", folder / "kernels.so", folder))


def launcher_outcome(fault: Fault | None) -> str:
    """Say which test of the launcher found the fault, or "" if none did (as must be for no fault)."""
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "lineward" / "runtime"
        shutil.copytree(SHIPPED.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        if fault is not None:
            fault.seed(package / "cuda")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", "FakeDriver"]
        run = subprocess.run(
            [*command, "tests/runtime/cuda/test_fake_driver.py"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([scratch, *sys.path])},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    found = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    if run.returncode not in (0, 1) or len(found) != run.returncode:
        raise RuntimeError(run.stdout + run.stderr)
    return found[0].rpartition("::")[2] if found else ""


def _run_checks(library: Path) -> str:
    command = [sys.executable, "-m", "tests.runtime.cuda.checks", str(library)]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, env=os.environ)
    except subprocess.TimeoutExpired:
        return "never ends"
    if run.returncode < 0:
        return f"ended by signal {-run.returncode}"
    return run.stderr.strip().splitlines()[-1] if run.returncode else ""


def main() -> None:
    """Try every fault, two at a time."""
    if reason := outcome(None):
        sys.exit(f"the shipped kernels fail: {reason}")
    launcher = LAUNCHER_FAULTS if PYCUDA_IS_BUILT else []
    if launcher and (reason := launcher_outcome(None)):
        sys.exit(f"the shipped launcher fails: {reason}")
    if not launcher:
        print(f"the launcher's faults were left out: PyCUDA is not in {PYCUDA} (build_pycuda.sh)")
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(outcome, fault) for fault in FAULTS]
        found += [pool.submit(launcher_outcome, fault) for fault in launcher]
        for fault, future in zip([*FAULTS, *launcher], found, strict=True):
            print(f"{fault.name}: {future.result() or 'SURVIVED'}", flush=True)
    survived = sum(not future.result() for future in found)
    print(f"{len(found) - survived} of {len(found)} faults found")
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
