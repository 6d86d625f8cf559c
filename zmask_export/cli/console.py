"""Progress bars and notes on standard error; results go to standard output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from zmask_export.cli import interrupts
from zmask_export.pipeline.progress import Advance

FILE_WIDTH = 120
"""Columns of tables that go to a file or a pipe."""


def table_console() -> Console:
    """Standard output for tables, wide enough where it is no terminal."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


class ConsoleReporter:
    """Shows bars on a terminal and one line a stage elsewhere; an interrupt ends every bar."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn(f"{label:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(label, total=total, note="")

            def advance(done: int, note: str = "") -> None:
                interrupts.check()
                progress.update(task, completed=done, note=note)

            yield advance
            interrupts.check()

    def note(self, text: str) -> None:
        """One line on standard error."""
        self._console.print(text, markup=False)
