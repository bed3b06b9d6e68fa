"""The whole way in one command: train, verify, inspect, evaluate; on synthetic parts, or on your data."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from lineward.export.commands import evaluate, train  # noqa: F401 (what they lack is said before parts are rendered)
from lineward.export.synthetic import DEFECTS, write_dataset
from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.cli.console import ConsoleProgress

_TRAIN, _GOOD, _PER_DEFECT = 120, 20, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, help="a folder laid out as MVTec AD (default: synthetic parts)")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder to fill (default: demo)")


def run(arguments: argparse.Namespace) -> int:
    """Run each command as a user would type it, and stop at the first that fails."""
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    data: Path = arguments.data or _synthetic_parts(output / "parts")
    bundle = output / f"{data.resolve().name}.lineward"
    steps = (
        ("train", data, "-o", bundle),
        ("info", bundle),
        ("verify", bundle),
        ("inspect", bundle, data / "test", "--overlays", output / "overlays"),
        ("evaluate", bundle, data, "--json", output / "figures.json", "--report", output / "report.html"),
    )
    for step in steps:
        words = [str(word) for word in step]
        print(f"\n$ lineward {shlex.join(words)}", flush=True)
        if main(words) == FAILED:
            return FAILED
    return PASSED


def _synthetic_parts(folder: Path) -> Path:
    images = _TRAIN + _GOOD + _PER_DEFECT * len(DEFECTS)
    with ConsoleProgress().step("render parts", images) as advance:
        write_dataset(
            folder, train=_TRAIN, test_good=_GOOD, per_defect=_PER_DEFECT, progress=lambda done, _: advance(done)
        )
    return folder
