"""What the docstrings of the table say, part by part: for people and pages, never for a decision."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from svp.select.table import Method


def parts(function: Callable[..., Any]) -> dict[str, str]:
    """The entries of a docstring's list by name ("returns", "cost", each argument), and as "source" the lines after it.

    Each on one line; the summary and what follows an empty line after the list are left out.
    """
    _, _, rest = (inspect.getdoc(function) or "").partition("\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.strip("\n").split("\n"):
        entry = re.fullmatch(r"(\w+) {2,}(\S.*)", line)
        if not line.strip() and "cost" in found:
            break
        if entry is not None:
            name, line = entry[1], entry[2]
        elif name and not line.startswith(" "):
            name = "source"
        if name and line.strip():
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def functions(row: Method) -> list[Callable[..., Any]]:
    """The function of a row, and that of its sampler where it has one."""
    sampler = getattr(row, "sampler", None)
    return [row.function, *([] if sampler is None else [sampler.function])]


def said(row: Method, part: str) -> str:
    """One part of what a row's functions say, empty where none says it; "; then" stands between scores and sampler."""
    return "; then ".join(text for function in functions(row) if (text := parts(function).get(part)))
