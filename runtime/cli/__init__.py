"""The command `lineward`. Exit codes: 0 all passed, 1 some rejected, 2 error."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lineward.runtime.errors import LinewardError, MissingExtraError

PASSED, REJECTED, FAILED = 0, 1, 2


@dataclass(frozen=True)
class Command:
    """A command and the module that holds it, imported only when it is called.

    Commands of the workstation are named here by text alone: the device never imports them.
    """

    name: str
    module: str
    summary: str
    extra: str | None = None


COMMANDS = (
    Command("demo", "lineward.export.commands.demo", "the whole way, on synthetic parts or your data", "export"),
    Command("train", "lineward.export.commands.train", "learn good parts from good images; write a bundle", "export"),
    Command(
        "tune", "lineward.export.commands.tune", "find and train the most accurate bundle for a time budget", "export"
    ),
    Command("evaluate", "lineward.export.commands.evaluate", "measure a bundle on labelled images", "export"),
    Command(
        "adapt", "lineward.export.commands.adapt", "add new good images to a bundle; write its next version", "export"
    ),
    Command(
        "report", "lineward.export.commands.report", "a bundle's promise and evidence, to print and sign", "export"
    ),
    Command("key", "lineward.export.commands.key", "make a key to sign bundles with, or show one"),
    Command("sign", "lineward.export.commands.sign", "sign a bundle, so that stations accept it"),
    Command(
        "publish", "lineward.export.commands.publish", "keep a repository that stations pull bundles from", "fleet"
    ),
    Command("image", "lineward.export.commands.image", "make one archive that installs a station, offline", "image"),
    Command("inspect", "lineward.runtime.cli.inspect", "pass or reject images"),
    Command("info", "lineward.runtime.cli.info", "say what a bundle is and promises"),
    Command("calibrate", "lineward.runtime.cli.calibrate", "find this device's own threshold from its good parts"),
    Command("bench", "lineward.runtime.cli.bench", "measure latency on this device, or compare two measurements"),
    Command("run", "lineward.runtime.cli.run", "run a station: camera, PLC, verdicts", "station"),
    Command(
        "simulate", "lineward.runtime.cli.simulate", "run a station at the desk: simulated line and PLC", "station"
    ),
    Command(
        "deploy", "lineward.runtime.cli.deploy", "prove a bundle on this device, and make it a station's active one"
    ),
    Command("pull", "lineward.runtime.cli.pull", "take a station's bundles from a repository, or a stick", "fleet"),
    Command("rollback", "lineward.runtime.cli.rollback", "make the bundle before it a station's active one again"),
    Command("slots", "lineward.runtime.cli.slots", "say which bundles a station has, and what was active when"),
    Command("status", "lineward.runtime.cli.status", "say how a running station is"),
    Command("journal", "lineward.runtime.cli.journal", "query, export and re-score what a station inspected"),
    Command("cameras", "lineward.runtime.cli.cameras", "list and preview cameras"),
    Command("engine", "lineward.runtime.cli.engine", "build, list and prune TensorRT plans of this device"),
    Command("selfcheck", "lineward.runtime.cli.selfcheck", "say what this device can do, in a report to paste"),
    Command("verify", "lineward.runtime.cli.verify", "check a bundle, and that this device gives its results"),
)


class CommandModule(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run it and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lineward` and return its exit code; no error that a user can cause shows a traceback."""
    from lineward.runtime.cli.console import print_error

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what the terminal's encoding has not
    try:
        try:
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # here, where a reader that went away is caught, and not at exit
    except LinewardError as error:
        print_error(str(error))
        return FAILED
    except BrokenPipeError:
        # The reader went away (`| head`): not an error, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print_error(f"{error.filename or 'a file'}: {error.strerror}\n  -> check the path, its permissions and space")
        return FAILED
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130


def _dispatch(argv: list[str]) -> int:
    commands = {command.name: command for command in COMMANDS}
    if argv and argv[0] in commands:
        command = commands[argv[0]]
        module = _load(command)
        parser = argparse.ArgumentParser(prog=f"lineward {command.name}", description=module.__doc__)
        module.add_arguments(parser)
        return module.run(parser.parse_args(argv[1:]))
    _overview().parse_args(argv)  # --help, --version, or an error for an unknown command
    _overview().print_help(sys.stderr)
    return FAILED


def _load(command: Command) -> CommandModule:
    try:
        module: CommandModule = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None or (error.name or "lineward").startswith("lineward"):
            raise
        raise MissingExtraError(
            f"`lineward {command.name}` needs {error.name}, which is not installed",
            do=f"pip install 'lineward[{command.extra}]'",
        ) from error
    return module


def _overview() -> argparse.ArgumentParser:
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS]
    parser = argparse.ArgumentParser(
        prog="lineward",
        usage="lineward COMMAND ...  (lineward COMMAND --help says more)",
        description="Visual inspection beside the production line.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nexit codes: 0 all passed, 1 some rejected, 2 error",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lineward {_version()}")
    parser.add_argument("command", nargs="?", choices=[command.name for command in COMMANDS], help=argparse.SUPPRESS)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lineward")
    except PackageNotFoundError:
        return "(not installed)"
