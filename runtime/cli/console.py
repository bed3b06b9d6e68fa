"""What a person sees: tables on standard output, progress and errors on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_WIDTH_OF_A_FILE = 200
_COLUMNS = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`, whose exit code says so; rich would exit with 1, which means "some rejected"."""
        raise  # the BrokenPipeError that is being handled


def standard_output() -> Console:
    """A console that does not wrap what is written to a file or a pipe."""
    return _Output(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, highlight=False)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of plain text; pass and reject are coloured on a terminal."""
    table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    standard_output().print(table)


class ConsoleProgress:
    """A bar for each step on a terminal, a line for each finished step elsewhere. Steps may be nested."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Begin a step of `total` parts; the value is called with the parts done."""
        if not self._console.is_terminal:
            yield lambda _: None
            print(f"{name}: {total}", file=sys.stderr, flush=True)
        elif self._bars:
            yield self._bar(self._bars, name, total)
        else:
            # Results on standard output must not be drawn into the bars on standard error.
            try:
                with Progress(*_COLUMNS, console=self._console, redirect_stdout=False) as self._bars:
                    yield self._bar(self._bars, name, total)
            finally:
                self._bars = None

    @staticmethod
    def _bar(bars: Progress, name: str, total: int) -> Callable[[int], None]:
        task = bars.add_task(name, total=total)
        return lambda done: bars.update(task, completed=done)


class NoProgress:
    """Shows nothing."""

    @contextmanager
    def step(self, _name: str, _total: int) -> Iterator[Callable[[int], None]]:
        """Begin a step that nobody watches."""
        yield lambda _: None


def print_error(message: str) -> None:
    """Print an error to standard error."""
    print(f"lineward: {message}", file=sys.stderr, flush=True)


def _cell(text: str) -> Text:
    return Text(text, style={"pass": "green", "reject": "bold red"}.get(text, ""))
