"""Arrays in, ids out, and what is done with a selection: the commands `svp select`, `svp score` and `svp apply`."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter

from svp.cli.array_files import Files, Given, How, Switch, Whole
from svp.cli.flags import value_of
from svp.cli.measured import foresee, measured, report
from svp.errors import SettingError, own_code
from svp.files import write_array
from svp.select import Rank, Selection, find_method
from svp.select import score as score_arrays
from svp.select import select as select_arrays
from svp.select.forecast import Forecast
from svp.select.representatives import SOON, described
from svp.tables import write_table

_NO_FILES, _AS_USUAL = Files(), How()
_DESCRIBING = 64 << 20  # bytes for who stands for whom


def select(
    method: str,
    /,
    *,
    budget: str,
    files: Files = _NO_FILES,
    already: str | None = None,
    exclude: str | None = None,
    per_class: dict[str, str] | None = None,
    costs: str | None = None,
    sampler: str | None = None,
    neighbors: Whole | None = None,
    tie_break: Literal["hash", "id"] = "hash",
    stands_for: Annotated[bool | None, Parameter(negative="--no-stands-for")] = None,
    how: How = _AS_USUAL,
) -> None:
    """Run `svp.select` on files.

    Parameters
    ----------
    method
        a name from `svp list methods`, or package.module:function
    budget
        how many new examples, or a share such as 10%; with costs a total cost
    already
        file of ids or keys that count as chosen; a saved selection is one
    exclude
        file of ids or keys that are not to be chosen
    per_class
        limits per class: --per-class.min 5, --per-class.max "{0 = 10}" (or "{cat = 10}"), --per-class.share equal
    costs
        what each example costs
    sampler
        how scored examples are chosen: top, a name of svp.select.SAMPLERS, or package.module:function
    neighbors
        keep only so many of the most similar of each example
    tie_break
        which of equals goes first: by a seeded hash of the id, or the lower id
    stands_for
        record how many others each chosen example stands for and which earlier one is nearest [default: where embeddings or
        similarities are given and it is done in seconds]
    """
    if stands_for and not (files.embeddings or files.similarity):
        raise SettingError("--stands-for wants something to compare examples by; give --embeddings or --similarity")
    if stands_for and not _is_table(how.out):
        raise SettingError("--stands-for is recorded in tables; give --out with a name such as picks.parquet")
    given = Given.of(files, how, costs=costs, already=already, exclude=exclude)
    with measured() as took:
        keys, arguments = given.arrays()
        arguments |= {"sampler": sampler, "neighbors": neighbors, "tie_break": tie_break}
        if per_class is not None:
            arguments["per_class"] = {name: _by_class(value_of(text)) for name, text in per_class.items()}
        read = _read_by(method, arguments)
        expected = foresee(method, budget, read, how)
        took.start()
        with own_code(method, sampler or ""):
            chosen = select_arrays(method, budget, **read)
    chosen = replace(
        chosen, inputs=given.origin(), keys=None if keys is None else tuple(keys.take(chosen.ids).to_pylist())
    )
    if how.out is not None:
        _save(_described(chosen, arguments, how, wanted=stands_for), how.out)
    elif len(chosen) and not how.json:
        print("\n".join(map(str, chosen.ids.tolist() if chosen.keys is None else chosen.keys)))
    notes = [] if len(chosen) or costs is None else [_why_nothing(budget, arguments)]
    for note in notes:
        print(f"svp: {note}", file=sys.stderr)
    if how.out is not None and not how.quiet:
        print(f"chosen:   {len(chosen):,} examples, in {how.out}", file=sys.stderr)
    report(expected, took, how, {"method": chosen.method, "n": len(chosen), "notes": notes}, chosen)


def _read_by(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Without embeddings where similarities stand for them: these only say who stands for whom."""
    both = "similarity" in find_method(method)[1].reads and "similarity" in arguments
    return {name: value for name, value in arguments.items() if not (both and name == "embeddings")}


def _why_nothing(budget: str, arguments: Mapping[str, Any]) -> str:
    """What an empty choice under costs has to be told with: what the cheapest candidate costs."""
    values = arguments["costs"]
    ruled_out = [arguments[name] for name in ("already", "exclude") if name in arguments]
    left = values[
        ~np.isin(arguments.get("ids", np.arange(len(values))), np.concatenate([np.zeros(0, np.int64), *ruled_out]))
    ]
    cheapest = (
        f"the cheapest of {len(left):,} candidates costs {left.min():g}" if len(left) else "there are no candidates"
    )
    return f"no example was chosen for a budget of {budget}: {cheapest}"


def _is_table(out: Path | None) -> bool:
    return out is not None and out.suffix.lower() != ".npy"


def _described(chosen: Selection, arguments: Mapping[str, Any], how: How, *, wanted: bool | None) -> Selection:
    """With who stands for whom and who is nearest, where that can be said; in table files, which have columns for it."""
    names = ("embeddings", "similarity", "ids", "already", "exclude", "memory")
    given = {name: arguments[name] for name in names if name in arguments}
    compared = given.get("similarity", given.get("embeddings"))
    if compared is None or wanted is False or not _is_table(how.out):
        return chosen
    if "embeddings" in given:
        compared = given["embeddings"]
        given.pop("similarity", None)
    operations = float(len(chosen)) * compared.shape[0] * (compared.shape[1] if "embeddings" in given else 1)
    if wanted is None and operations > SOON:
        if not how.quiet:
            print(
                f"nearest and stands_for are left out ({operations:.0e} operations); --stands-for fills them",
                file=sys.stderr,
            )
        return chosen
    given["memory"] = min(given["memory"], _DESCRIBING)
    return described(chosen, given.pop("embeddings", None), **given)


def _by_class(limit: Any) -> Any:
    """Limits as `svp.select` wants them: class numbers are text in TOML."""
    return {int(c) if c.isdecimal() else c: value for c, value in limit.items()} if isinstance(limit, dict) else limit


def score(method: str, /, *, files: Files = _NO_FILES, how: How = _AS_USUAL) -> None:
    """Run `svp.score` on files.

    Parameters
    ----------
    method
        a name from `svp list methods`, or package.module:function
    """
    given = Given.of(files, how)
    with measured() as took:
        keys, arguments = given.arrays()
        if unused := [name for name in ("similarity", "scores") if arguments.pop(name, None) is not None]:
            raise SettingError(f"--{unused[0]} means nothing to svp score; leave it out")
        name, row = find_method(method)
        expected = foresee(method, 0, arguments, how) if isinstance(row, Rank) else Forecast(None, None)
        took.start()
        with own_code(method):
            values = score_arrays(method, **arguments)
    if how.out is not None and how.out.suffix.lower() == ".npy":
        write_array(how.out, values)
    elif how.out is not None:
        import pyarrow as pa

        ids = arguments.get("ids", np.arange(len(values)))
        write_table(how.out, pa.table({"id": ids, **({} if keys is None else {"key": keys}), "score": values}))
    elif not how.json:
        print("\n".join(map(repr, values.tolist())))
    report(expected, took, how, {"method": name, "n": len(values)}, None)


def apply(
    selection: Path,
    /,
    *,
    data: Path,
    out: Path,
    order: Literal["source", "chosen"] = "source",
    rest: Switch = False,
    link: Switch = False,
    ids: str | None = None,
    header: bool | None = None,
    quotes: bool | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Run `svp.apply`.

    Parameters
    ----------
    selection
        a saved selection, such as picks.parquet
    data
        folder of images, or file (.csv .tsv .jsonl .parquet .arrow .feather .npy .npz); only read
    out
        what to make: of a folder a folder, of a file a file with the same ending, or a folder that will hold it
    order
        rows as in the source, or as chosen
    rest
        write what was not chosen
    link
        hard links to images in place of copies
    ids
        column of the table with ids or keys; default: ids are row numbers
    header
        whether the first row of a .csv or .tsv names the columns; asked where it has a number in it, else it does
    quotes
        whether quotes in a .csv or .tsv enclose fields, or are letters; default: they enclose
    json_
        print what was done as JSON
    """
    from svp.subset import apply as apply_selection

    done = apply_selection(
        selection, data, out, order=order, rest=rest, link=link, ids=ids, header=header, quotes=quotes
    )
    if json_:
        print(json.dumps({"out": str(done.out), "n": done.n, "n_source": done.n_source, "copied": done.copied}))
        return
    print(f"{done.out}: {done.n:,} of {done.n_source:,} examples")
    if done.copied:
        print(f"{done.copied:,} were copied: no hard link could be made there", file=sys.stderr)


def _save(selection: Selection, out: Path) -> None:
    """The selection as its suffix says: .parquet with its origin, .npy the ids alone, else its table."""
    if out.suffix.lower() == ".parquet":
        selection.save(out)
    elif out.suffix.lower() == ".npy":
        write_array(out, selection.ids)
    else:
        write_table(out, selection.table())
