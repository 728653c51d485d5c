"""What is said on stderr while a command works: how far it is, and what was warned of."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from svp.cli.flags import Common
from svp.errors import SvpWarning


@contextmanager
def progress(common: Common) -> Iterator[Any]:
    """Who is told what is going on: nobody when quiet, else whoever reads stderr.

    What svp itself warns of is a line at once, also when quiet; warnings of libraries wait, and become one line.
    """
    others: list[str] = []

    def heard(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = " ".join(str(message).split())
        if issubclass(category, SvpWarning):
            print(f"svp: {line}", file=sys.stderr)
        else:
            others.append(f"warning: {category.__name__}: {line}")

    with warnings.catch_warnings(), _shown(common.quiet) as show:
        warnings.showwarning = heard
        yield show
    if others and not common.quiet:
        print(others[0] + (f" (and {len(others) - 1} more)" if len(others) > 1 else ""), file=sys.stderr)


@contextmanager
def _shown(quiet: bool) -> Iterator[Any]:
    """A live bar on a terminal; elsewhere a line when a training begins and ends; nothing when quiet. All on stderr."""
    if quiet:
        from svp.data.base import silent

        yield silent
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task("starting", total=None, note="")
        shown = ""

        def show(what: str, done: int, total: int, note: str = "") -> None:
            nonlocal shown
            if what != shown:
                bars.reset(task, description=what, total=total or None, note=note)
                shown = what
            bars.update(task, completed=done, note=note)

        yield show


def _lines(what: str, done: int, total: int, note: str = "") -> None:
    """Progress where there is no terminal: about ten lines a training."""
    if not total or done == total or done % max(1, total // 10) == 0:
        print(f"{what}{f' {done}/{total}' if total else ''}{f' {note}' if note else ''}", file=sys.stderr)
