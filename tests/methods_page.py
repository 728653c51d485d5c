"""What docs/methods.md takes from the tables: `python -m tests.methods_page` writes these parts anew, a test holds them.

A part stands between `<!-- made: NAME -->` and `<!-- end -->`; the rest of the page is written by hand.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

from svp.rules import NOTES, RULES
from svp.select import METHODS, SAMPLERS, Rank
from svp.select.docstrings import said
from svp.select.table import Method

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/methods.md"
GROWTH = ROOT / "benchmarks/results/select/growth.json"
MADE = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with every made part as the tables have it now."""
    return MADE.sub(lambda found: f"{found[1]}{made(found[2])}\n{found[3]}", page)


def made(name: str) -> str:
    kind, _, of = name.partition(" ")
    return {"rules": rules, "growth": growth, "method": method, "sampler": sampler}[kind](*[of] if of else [])


def rules() -> str:
    lines = ["| where | method | why | source |", "|---|---|---|---|"]
    for rule in RULES:
        lines.append(f"| {words(rule.when)} | `{rule.method}` | {rule.why} | {rule.source} |")
    return "\n".join([*lines, "", *(f"- {words(note.when)}: {note.says} ({note.source})." for note in NOTES)])


def words(conditions: tuple[Any, ...]) -> str:
    return "; ".join(condition.says for condition in conditions) or "anywhere"


def growth() -> str:
    if not GROWTH.exists():
        return "Not measured yet."
    found = json.loads(GROWTH.read_text())
    lines = [
        "| method | n | seconds | MB beyond the inputs | exponent measured | by its formula |",
        "|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        row = found["methods"].get(name)
        if row is None:
            lines.append(f"| `{name}` | not measured yet | | | | |")
            continue
        formula = row["exponent_by_formula"]
        cells = [
            ", ".join(f"{n:,}" for n in row["n"]),
            ", ".join(f"{seconds:.3g}" for seconds in row["seconds"]),
            ", ".join(f"{size / 1e6:.0f}" for size in row["bytes_beyond_inputs"]),
            f"{row['exponent']:.2f}",
            "no formula" if formula is None else f"{formula:.2f}",
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    where = (
        f"{found['machine']['cores']} cores of an {found['machine']['processor']}, numpy {found['versions']['numpy']}"
    )
    return "\n".join(
        [*lines, "", f"{where}; {'a quiet machine' if found['quiet'] else 'a busy machine: seconds count little'}."]
    )


def method(name: str) -> str:
    row = METHODS[name]
    return facts(row, way(row))


def way(row: Method) -> str:
    if not isinstance(row, Rank):
        return "chooses a set, one after another"
    if row.sampler is None:
        return "ranks: the highest score goes first"
    return (
        f"samples: scores every example, then chooses by the scores with the sampler `{row.sampler.function.__name__}`"
    )


def sampler(name: str) -> str:
    return facts(SAMPLERS[name], "chooses by scores, higher = more wanted")


def facts(row: Method, kind: str) -> str:
    options = ", ".join(
        f"`{name}`" if default is inspect.Parameter.empty else f"`{name}={default!r}`"
        for name, default in row.options.items()
    )
    lines = {
        "needs": ", ".join(f"`{need}`" for need in row.reads) or "nothing",
        "way": kind,
        "returns": said(row, "returns"),
        "options": options or "none",
        "guarantee": said(row, "guarantee"),
        "cost": said(row, "cost"),
        "source": said(row, "source"),
    }
    return "\n".join([row.summary, "", *(f"- {name}: {text}" for name, text in lines.items() if text)])


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
