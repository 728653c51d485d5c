"""The command `svp predict`: a trained model, new data, a table of what it takes them for."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from svp.cli.flags import Common
from svp.cli.progress import progress
from svp.columns import check_out
from svp.errors import SettingError
from svp.workflows.model import Model, load_model
from svp.workflows.predictions import Predictions
from svp.workflows.trained import Part

Flag = Annotated[bool, Parameter(negative=())]
_SHOWN = 20  # classes that the summary counts


def predict(
    folder: Path,
    data: str,
    /,
    *,
    out: Path | None = None,
    probs: Flag = False,
    part: Part = "target",
    arm: str | None = None,
    seed: int | None = None,
    trained_on: str | None = None,
    labels: Annotated[bool, Parameter(negative="--no-labels")] = True,
    image_column: str | None = None,
    text_column: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    label_column: str | None = None,
    encoding: str | None = None,
    quotes: bool | None = None,
    on_error: Literal["refuse", "skip"] | None = None,
    cache: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Flag = False,
) -> None:
    """Call `svp.load_model` and `predict` of what it gives.

    Parameters
    ----------
    folder
        a run folder of `svp coreset` or `svp active`, a session, or the folder of a model in one
    data
        photos in a folder (in class folders: how many are right is said, too), a table of texts (with labels or without), .npz,
        .npy, FILE:COLUMNS for rows of numbers, or a name from `svp list datasets`
    out
        where to write a row an example: NAME.csv, .parquet, .jsonl; or .npy for the probabilities alone
    probs
        and a column p_CLASS for the probability of each class
    part
        target or proxy
    arm
        of a run: proxy (the default), random, full, target, or as its folder in target/ is called
    seed
        of a run: its seed; default: the first
    trained_on
        the training data, where a classifier needs them and they are not where they were
    labels
        whether class folders and a column of labels are classes of the model
    image_column
        column of images in Parquet; default: as in the training
    text_column
        columns of texts; default: as in the training
    label_column
        column of labels; default: as in the training, or label, class, target and the like
    encoding
        of texts; default: as in the training
    quotes
        whether quotes in .csv and .tsv enclose fields, or are letters; default: as in the training
    on_error
        what an unreadable example leads to; default: as in the training
    cache
        folder for decoded images and texts
    json_
        print the summary as JSON
    quiet
        show no progress
    """
    if out is not None:
        check_out(out, ())
        if probs and out.suffix.lower() == ".npy":
            raise SettingError(f"{out} holds the probabilities alone; leave out --probs")
    with progress(Common(quiet=quiet)) as show:
        model = load_model(folder, part, arm=arm, seed=seed, trained_on=trained_on)
        found = model.predict(
            data,
            labels=labels,
            image_column=image_column,
            text_column=text_column,
            label_column=label_column,
            encoding=encoding,
            quotes=quotes,
            on_error=on_error,
            cache=cache,
            show=show,
        )
    if out is not None:
        found.save(out, probs=probs)
    if json_:
        print(json.dumps(_facts(model, found, out), ensure_ascii=False))
        return
    print(f"{model.config.model} ({model.folder}) on {len(found):,} examples: {_counted(found)}")
    if found.accuracy is not None:
        print(
            f"Accuracy {100 * found.accuracy:.1f} %, macro-F1 {100 * (found.macro_f1 or 0):.1f} %; always answering their most "
            f"common class is right for {100 * (found.majority_rate or 0):.1f} %"
        )
    if out is not None:
        print(f"Written: {out}")


def _facts(model: Model, found: Predictions, out: Path | None) -> dict[str, object]:
    return {
        "model": str(model.folder),
        "n": len(found),
        "counts": found.counts,
        "accuracy": found.accuracy,
        "macro_f1": found.macro_f1,
        "majority_rate": found.majority_rate,
        "out": None if out is None else str(out),
    }


def _counted(found: Predictions) -> str:
    """How many are taken for each class, the most common first where there are many."""
    counts = list(found.counts.items())
    if len(counts) > _SHOWN:
        counts = sorted(counts, key=lambda item: -item[1])[:_SHOWN]
    more = len(found.classes) - len(counts)
    return ", ".join(f"{name} {n:,}" for name, n in counts) + (f", and {more:,} classes more" if more else "")
