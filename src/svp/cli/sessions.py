"""`svp session`: labelling with people. Each command calls one method of `svp.Session` and says what came of it."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from svp.cli.flags import Common, configure
from svp.cli.opened import Flag, Said, SessionFlags, Trains, held_out, opened, say, user
from svp.cli.progress import progress
from svp.config import SessionConfig
from svp.data.unlabelled import unread_labels
from svp.errors import MissingExtra, SettingError
from svp.labels import WORDS, Batch
from svp.select import resolve_budget
from svp.words import learning
from svp.workflows.files import texts_of
from svp.workflows.people import AT_RANDOM, SECOND_LOOK
from svp.workflows.session import Session

_WIDTH = 100  # letters of a text that is printed


def new(
    folder: Path,
    /,
    *,
    data: str,
    settings: Annotated[SessionFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    recipe: str | None = None,
    said: Trains = Trains(),
) -> None:
    """Call `svp.Session.create`.

    Parameters
    ----------
    folder
        where the session will lie: questions, answers and models
    data
        a folder of photos (in any folders below), a table of texts (.csv, .tsv, .jsonl, .parquet), a .npz file, or a name from
        `svp list datasets`
    recipe
        a TOML file with settings; flags override it
    """
    config = configure(SessionConfig, data, settings, Common(recipe=recipe))
    with progress(Common(quiet=said.quiet)) as show:
        session = Session.create(folder, config, accept_code_change=said.accept_code_change, show=show)
    with session:
        n, classes = len(session.dataset), list(session.classes)
        models = {"proxy": session.config.proxy.model, "target": session.config.target.model}
        n_held_out, column = session.n_held_out, unread_labels(session.config)
    say(
        said,
        {"folder": str(folder), "n": n, "classes": classes, "held_out": n_held_out, **models},
        f"{folder}: {n:,} examples, to be told apart as {', '.join(classes)}",
        *held_out(n_held_out),
        *([] if column is None else [f"The column {column} is not read: everything will be asked about"]),
        f"{models['proxy']} asks (--proxy.model), {models['target']} is trained in the end (--target.model)",
        f"Next: svp session ask {folder} -n {min(200, n)} --out batch.csv",
    )


def ask(
    folder: Path,
    /,
    *,
    n: Annotated[str, Parameter(name=("-n", "--n"))] = "100",
    out: Path | None = None,
    format: str | None = None,
    now: Flag = False,
    per_class: str | None = None,
    said: Trains = Trains(),
) -> None:
    """Call `svp.Session.ask`: what is left of the open question, else a new one. It is stored before it is printed.

    Parameters
    ----------
    folder
        of the session
    n
        how many: a number or a share (5%)
    out
        where to write it: NAME.csv, .jsonl, .parquet, .json (Label Studio), or a folder to sort in; without it, ids, keys and the
        beginnings of texts are printed
    format
        csv, jsonl, parquet, folder, label-studio or prodigy; default: by the name of out
    now
        train nothing first: choose by the last finished scores
    per_class
        quotas, by what the proxy takes examples for, labelled ones counted: equal, natural, or so many at least: 50 (of each), or
        fox=50,owl=20
    """
    with opened(folder, said) as session:
        known = session.status()
        before = [r["origin"] for r in known["rounds"] if r["origin"] != SECOND_LOOK]
        wanted = int(n) if n.isdecimal() else n
        if isinstance(wanted, str):
            resolve_budget(wanted, session.n_examples)  # while a question is open, nobody else looks at it
        batch = session.ask(wanted, now=now, per_class=_quotas(per_class, session.classes))
        notes = [*_of_the_pool(session), *_of_the_choice(batch, before), *_may_stop(known["may_stop"])]
        if batch.round < len(known["rounds"]):
            counts = "-n counts" if per_class is None else "-n and --per-class count"
            notes.append(f"Still open: {len(batch):,} of round {batch.round}; {counts} for the question after it")
        _hand_out(session, batch, out, format, notes, said)


def review(
    folder: Path,
    /,
    *,
    n: Annotated[int | None, Parameter(name=("-n", "--n"))] = None,
    out: Path | None = None,
    format: str | None = None,
    said: Trains = Trains(),
) -> None:
    """Call `svp.Session.review`: what is left of the last second look, else a new one. `tell` takes the answers.

    Parameters
    ----------
    folder
        of the session
    n
        how many at most; default: all that look wrong, up to 50
    out
        where to write it, as `ask` does
    format
        csv, jsonl, parquet, folder, label-studio or prodigy; default: by the name of out
    """
    with opened(folder, said) as session:
        batch = session.review(n)
        if batch is None:
            say(said, {"ids": []}, "No label looks wrong that was not looked at again already")
            return
        _hand_out(session, batch, out, format, _of_the_pool(session), said)


def _hand_out(
    session: Session, batch: Batch, out: Path | None, format: str | None, notes: list[str], said: Said
) -> None:
    """Write a question, or print it."""
    if out is not None:
        session.write(batch, out, format)
    ids, keys = batch.ids.tolist(), session.store.keys(batch.ids.tolist())
    facts = {
        "round": batch.round,
        "origin": batch.origin,
        "ids": ids,
        "keys": [keys[i] for i in ids],
        "out": None if out is None else str(out),
        "notes": notes,
    }
    if out is None:
        texts = texts_of(session, ids)
        facts |= {"texts": [texts[i] for i in ids]} if texts else {}
        lines = ["\t".join([str(i), _plain(keys[i]), *([_on_a_line(texts[i])] if texts else [])]) for i in ids]
    else:
        answers = ", ".join([*session.classes[:20], *WORDS])
        lines = [
            f"{len(batch):,} asked (round {batch.round}, {batch.origin}): {out}",
            f"Now {_to_do(out)} ({answers}); then: svp session tell {session.folder} {out}",
        ]
    say(said, facts, *notes, *lines)


def tell(
    folder: Path,
    answers: Path,
    /,
    *,
    who: str | None = None,
    format: str | None = None,
    replace: Flag = False,
    said: Said = Said(),
) -> None:
    """Call `svp.Session.tell_file`. Rows without a label are not answered yet; what was told before changes nothing.

    Parameters
    ----------
    folder
        of the session
    answers
        the table with its labels, the sorted folder, or what a labelling tool exported
    who
        answered, where the file does not say; default: the name you are logged in by
    format
        csv, jsonl, parquet, folder, label-studio or prodigy; default: by the name of the file
    replace
        where somebody says something else than before, take it; the old answer stays in the history
    """
    if not (who := who or user()):
        raise SettingError("the system has no name for you; say who answers: --who NAME")
    with opened(folder, said) as session:
        new, given = session.tell_file(answers, who=who, format=format, replace=replace)
        status = session.status()
    facts = {"new": new, "given": given, "labelled": status["labelled"], "open": status["open"], "ties": status["ties"]}
    lines = [
        f"Stored {new:,} new of {given:,} answers; {status['labelled']:,} examples have a label, "
        f"{status['open']:,} are still asked"
    ]
    if not given:
        lines.append(f"{answers} holds no answer yet: {_to_do(answers)}, and tell it again")
    if status["ties"]:
        lines.append(f"On {status['ties']:,} people are divided: they are asked once more")
    say(said, facts, *lines)


def status(folder: Path, /, *, said: Said = Said()) -> None:
    """Call `svp.Session.status`.

    Parameters
    ----------
    folder
        of the session
    """
    with opened(folder, said) as session:
        facts = session.status()
    agreement = facts["agreement"]
    alpha = "" if agreement["alpha"] is None else f", Krippendorff's alpha {agreement['alpha']:.2f}"
    lines = [
        f"{facts['labelled']:,} labelled, {facts['unlabelled']:,} not; {facts['open']:,} are asked and not answered",
        "Classes: " + ", ".join(f"{name} {n:,}" for name, n in facts["per_class"].items()),
        *(
            f"{who}: " + ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if n)
            for who, counts in facts["people"].items()
        ),
    ]
    if agreement["examples"]:
        lines.append(f"Several people on {agreement['examples']:,}: {agreement['observed']:.0%} the same{alpha}")
    for name, words in (
        ("ties", "people are divided on"),
        ("none", "of none of the classes:"),
        ("undecided", "skipped or unsure:"),
    ):
        if facts[name]:
            lines.append(f"{words[0].upper()}{words[1:]} {facts[name]:,}")
    lines += [*_left_out(facts), *held_out(facts["held_out"])]
    lines += [f"Round {r['round']}: {r['answered']:,} of {r['asked']:,} ({r['origin']})" for r in facts["rounds"]]
    if facts["curve"]:
        lines += learning(facts["curve"])
    if facts["kappas"]:
        agreed = ", ".join(f"{kappa:.3f}" for kappa in facts["kappas"])
        lines.append(f"From round to round its answers about the rest agreed to {agreed} (Cohen's kappa; 1 is wholly)")
    say(said, facts, *lines, *_may_stop(facts["may_stop"]))


def curve(folder: Path, /, *, holdout: Path | None = None, said: Trains = Trains()) -> None:
    """Call `svp.Session.curve`. What it finds is kept: `status`, `ask` and the report say it, too.

    Parameters
    ----------
    folder
        of the session
    holdout
        labelled data to test on: a folder of class folders, a table with labels; default: the labels are cross-validated
    """
    with opened(folder, said) as session:
        found = session.curve(holdout)
        reasons = session.status()["may_stop"]
    say(said, {**found, "may_stop": reasons}, *learning(found), *_may_stop(reasons))


def report(folder: Path, /, *, said: Trains = Trains()) -> None:
    """Call `svp.Session.report`.

    Parameters
    ----------
    folder
        of the session
    """
    with opened(folder, said) as session:
        path = session.report()
    say(said, {"report": str(path)}, str(path))


def train(folder: Path, /, *, said: Trains = Trains()) -> None:
    """Call `svp.Session.train`. While it runs, `ask` answers from the scores before; killed, it goes on where it was.

    Parameters
    ----------
    folder
        of the session
    """
    with opened(folder, said) as session:
        trained = session.train()
        labelled = session.status()["labelled"]
    line = f"The proxy is trained on {labelled:,} labels" if trained else "There is nothing to train yet"
    say(said, {"trained": trained, "labelled": labelled}, line)


def undo(folder: Path, /, *, who: str | None = None, said: Said = Said()) -> None:
    """Call `svp.Session.undo`. The history keeps what is taken back.

    Parameters
    ----------
    folder
        of the session
    who
        the last tell of this person, not of anybody; refused where it holds answers of others, too
    """
    with opened(folder, said) as session:
        undone = session.undo(who)
    people = ", ".join(undone.who) or "nobody"
    say(
        said,
        {"answers": undone.n, "who": list(undone.who), "told_at": undone.at},
        f"Took back {undone.n:,} answer{'s' * (undone.n != 1)} of {people}, told at {undone.at}",
    )


def export(folder: Path, /, *, out: Path, history: Flag = False, said: Said = Said()) -> None:
    """Call `svp.Session.export` or `export_history`.

    Parameters
    ----------
    folder
        of the session
    out
        NAME.csv, .jsonl or .parquet
    history
        every question and answer with who and when, as JSON lines: what `svp session restore` reads
    """
    with opened(folder, said) as session:
        n = session.export_history(out) if history else session.export(out)
        missing = [] if history else _left_out(session.status())
    say(
        said,
        {"out": str(out), "n": n},
        f"Wrote {n:,} {'events' if history else 'labelled examples'} to {out}",
        *missing,
    )


def restore(folder: Path, history: Path, /, *, said: Said = Said()) -> None:
    """Call `svp.Session.restore`.

    Parameters
    ----------
    folder
        of the session; it may hold anything but a label store
    history
        what `svp session export --history` wrote
    """
    with Session.restore(folder, history) as session:
        labelled = session.status()["labelled"]
    say(said, {"folder": str(folder), "labelled": labelled}, f"{folder}: restored, {labelled:,} examples have a label")


def finish(folder: Path, /, *, said: Trains = Trains()) -> None:
    """Call `svp.Session.finish`. The session can go on after it.

    Parameters
    ----------
    folder
        of the session
    """
    with opened(folder, said) as session:
        done = session.finish()
        missing = _left_out(session.status())
        try:
            written = str(session.report())
        except MissingExtra as error:
            written = f"svp session report {folder} ({error})"
    target = done.target.stage.folder
    say(
        said,
        {
            "target": str(target),
            "labelled": str(done.labelled),
            "predicted": str(done.predicted),
            "n_labelled": done.n_labelled,
            "n_predicted": done.n_predicted,
            "report": written,
        },
        f"The target is trained on {done.n_labelled:,} labels: {target}",
        f"Labelled set: {done.labelled}",
        f"What it takes the other {done.n_predicted:,} for: {done.predicted}",
        f"Report: {written}",
        *missing,
    )


def add(folder: Path, /, *names: str, said: Said = Said()) -> None:
    """Call `svp.Session.add_classes`.

    Parameters
    ----------
    folder
        of the session
    names
        of the new classes
    """
    with opened(folder, said) as session:
        classes = session.add_classes(names)
    say(said, {"classes": list(classes)}, f"The classes are now {', '.join(classes)}")


def _of_the_pool(session: Session) -> list[str]:
    """What came, went or changed among the files."""
    return [f"{len(keys):,} {what}: {_some(keys)}" for what, keys in session.noticed.items() if keys]


def _plain(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def _on_a_line(text: str) -> str:
    """As much of a text as a line of a terminal shows."""
    line = " ".join(_plain(text).split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 4]} ..."


def _to_do(question: Path) -> str:
    return "move each file into its class folder" if question.is_dir() else "fill in the labels"


def _left_out(facts: dict[str, Any]) -> list[str]:
    """Examples that count no more, labelled or not; facts are those of `Session.status`."""
    words = {"gone": "gone or unreadable", "changed": "changed"}
    return [f"Left out, {said}: {_some(facts[word])}" for word, said in words.items() if facts[word]]


def _of_the_choice(batch: Batch, before: list[str]) -> list[str]:
    """That the way of choosing is another than the round before."""
    if not before or len(before) > batch.round or before[-1] == batch.origin:
        return []
    if batch.origin.startswith(AT_RANDOM) and before[-1].startswith(AT_RANDOM):
        return []
    return [f"Chosen otherwise than the round before ({before[-1]}): {batch.origin}"]


def _may_stop(reasons: list[str]) -> list[str]:
    """It is said, never done."""
    return [f"You may stop: {'; and '.join(reasons)}"] if reasons else []


def _quotas(said: str | None, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """What `--per-class` means to `svp.select`."""
    if said is None:
        return None
    if said in ("equal", "natural"):
        return {"share": said}
    if said.isdecimal():
        return {"min": int(said)}
    least: dict[str, int] = {}
    for part in said.split(","):
        name, sign, count = part.strip().rpartition("=")
        if not sign or not count.strip().isdecimal():
            raise SettingError(
                f"--per-class {said!r} is none; give equal, natural, 50, or {classes[0]}=50,{classes[1]}=20"
            )
        if name.strip() not in classes:
            raise SettingError(f"--per-class: there is no class {name.strip()!r}; the classes are {', '.join(classes)}")
        least[name.strip()] = int(count)
    return {"min": least}


def _some(keys: Any) -> str:
    return ", ".join(map(_plain, keys[:3])) + (f" and {len(keys) - 3:,} more" if len(keys) > 3 else "")
