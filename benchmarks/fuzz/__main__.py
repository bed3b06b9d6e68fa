"""Coverage-guided fuzzing (atheris) of what reads foreign bytes, and how many inputs were tried.

    python -m benchmarks.fuzz [SECONDS]

`make fuzz` makes the environment that it needs. An input that makes a reader raise anything but a LinewardError, crash,
or take over 10 seconds or 1 GiB stays under `build/fuzz/`, with the command that repeats it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.results_file import write_results
from lineward.runtime.signature import Signature, encode_signatures

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "fuzz"
TARGETS = ("bundle", "manifest", "signatures", "station")
SECONDS = 600
_LONGEST = 10
_MEMORY_MIB = 1024


def main() -> int:
    """Fuzz each reader in turn; ends with 1 when anything was found."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    readers = {name: _fuzz(name, seconds) for name in TARGETS}
    write_results("fuzz", "make fuzz", {"seconds_each": seconds, "readers": readers})
    return any(reader["findings"] for reader in readers.values())


def _fuzz(name: str, seconds: int) -> dict[str, Any]:
    folder = WORK / name
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(_seeds(name)):
        (inputs / f"seed-{number}").write_bytes(seed)
    command = [
        *(sys.executable, "-m", "benchmarks.fuzz.target", name),
        *(f"-max_total_time={seconds}", f"-timeout={_LONGEST}", f"-rss_limit_mb={_MEMORY_MIB}"),
        *("-print_final_stats=1", "-seed=1", f"-artifact_prefix={folder}/", str(inputs)),
    ]
    print(f"{name}: {seconds} s", flush=True)
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=False)
    found = sorted(str(path.relative_to(ROOT)) for path in folder.iterdir() if path.is_file())
    if done.returncode and not found:
        raise SystemExit(f"{name}: the fuzzer ended with {done.returncode}:\n{done.stderr[-2000:]}")
    for path in found:
        print(f"FOUND: {path}: python -m benchmarks.fuzz.target {name} {path}")
    executed = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    return {
        "executions": int(executed[1]) if executed else None,
        "edges_covered": int(covered[-1]) if covered else None,
        "inputs_kept": sum(1 for _ in inputs.iterdir()),
        "findings": len(found),
    }


def _seeds(name: str) -> list[bytes]:
    """Whole inputs to begin from."""
    tiny = ROOT / "tests" / "runtime" / "data" / "tiny.lineward"
    if name == "bundle":
        return [tiny.read_bytes()]
    if name == "manifest":
        return [zipfile.ZipFile(tiny).read("manifest.json")]
    if name == "station":
        page = (ROOT / "docs" / "station.md").read_text()
        return [block.encode() for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
    signature = Signature(key="0" * 64, signed="2026-01-01T00:00:00Z", signature=bytes(64))
    return [encode_signatures((signature,)), encode_signatures((signature, replace(signature, key="1" * 64)))]


if __name__ == "__main__":
    sys.exit(main())
