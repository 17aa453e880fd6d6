"""What the commands write: notes and progress to stderr, results as JSON or tables to stdout."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def say(line: str) -> None:
    """A line to stderr."""
    typer.echo(line, err=True)


def print_json(value: Any) -> None:
    """One line of JSON to stdout; half a surrogate pair becomes an escape, which is what JSON has for it."""
    typer.echo(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode())


def print_note(text: str) -> None:
    """A remark to stdout, less bright than the answer above it."""
    Console().print(Text(text, style="dim"), soft_wrap=True)


def print_table(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """A table to stdout, or another console: one column a key of the first row, without those empty throughout."""
    titles = [title for title in rows[0] if any(cell(row[title]) for row in rows)] if rows else []
    table = Table(*titles)
    for row in rows:
        table.add_row(*(Text(cell(row[title])) for title in titles))
    (console or Console()).print(table)


def cell(value: Any) -> str:
    """A value as a table shows it: four digits, nothing for None, lists and mappings in a row."""
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4g}"
        case Mapping():
            return ", ".join(f"{key} {cell(part)}" for key, part in value.items())
        case list() | tuple():
            return ", ".join(cell(part) for part in value)
    return str(value)


@contextlib.contextmanager
def progress_by_name() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each of several; what it gives is told a name, how much of it is done, and all."""
    bars, tasks = Progress(console=Console(stderr=True)), dict[str, TaskID]()

    def told(name: str, done: int, total: int) -> None:
        if name not in tasks:
            bars.start()  # not before: who has nothing to tell but an error should print nothing else
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done)

    try:
        yield told
    finally:
        if tasks:
            bars.stop()


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[bool], None]]:
    """Shows on stderr how far we are: a bar on a terminal, else a line at every tenth.

    What it gives is called after each of ``total`` steps, with whether the step failed.
    """
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed"), TimeRemainingColumn())
    done = failed = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, failed=0)

        def advance(it_failed: bool) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + it_failed
            bar.update(task, completed=done, failed=failed)
            if not console.is_terminal and done * 10 // total > (done - 1) * 10 // total:
                say(f"{done} of {total} asked, {failed} failed")

        yield advance
