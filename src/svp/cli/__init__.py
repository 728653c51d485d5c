"""The command line: parse, call one function, print. Each command's code is imported when that command is run.

At import there is next to nothing, so that an interruption while the rest is being imported is met by `main`.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App

# name: (module and function, what it does, an example)
COMMANDS = {
    "demo": (
        "commands:demo",
        "Run both workflows on 1,797 real images that ship with scikit-learn, in one to two minutes",
        "svp demo",
    ),
    "coreset": (
        "commands:coreset",
        "Choose what to keep of labelled data: the proxy scores it, the target is trained on what the proxy chose",
        "svp coreset photos --budget 50% --method forgetting --control random full --seeds 3",
    ),
    "active": (
        "commands:active",
        "Choose what to label, round by round: the proxy asks, known labels answer in place of people",
        "svp active photos --labelled 100 200 400 --method margin --control random target",
    ),
    "predict": (
        "predict:predict",
        "Use a model that a run or a session has trained: what it takes new data for, and how sure it is",
        "svp predict runs/photos-coreset-1a2b3c4d new-photos --out predicted.csv",
    ),
    "select": (
        "arrays:select",
        "Choose from arrays in files, without a dataset or a training",
        "svp select margin --probs probs.npy --budget 10% --out picks.parquet",
    ),
    "score": (
        "arrays:score",
        "One score for each example of arrays in files, higher = taken first",
        "svp score entropy --probs 'probs.parquet:p*' --out scores.npy",
    ),
    "apply": (
        "arrays:apply",
        "Write the chosen part of a folder of images, a table or an array",
        "svp apply picks.parquet --data photos --out kept --link",
    ),
    "advise": (
        "advise:advise",
        "Say which methods suit your data, why, what they cost and what they have to beat",
        "svp advise photos --budget 10% --proxy --noise 0.1",
    ),
    "report": ("commands:report", "Write the HTML report of a run folder", "svp report runs/photos-coreset-1a2b3c4d"),
    "list": ("commands:list_", "Show what is known: methods, models, datasets, recipes", "svp list methods"),
}
# The same of `svp session`.
SESSION = {
    "new": (
        "sessions:new",
        "Begin a session on a folder of photos or a table of texts",
        "svp session new cats --data photos --classes cat,dog --method margin",
    ),
    "serve": (
        "serving:serve",
        "Label in the browser: a page of this machine, for one person or several",
        "svp session serve cats --data photos --classes cat,dog",
    ),
    "ask": (
        "sessions:ask",
        "Ask for labels: a table to fill in, a folder to sort, or the tasks of a labelling tool",
        "svp session ask cats -n 200 --out batch.csv",
    ),
    "tell": ("sessions:tell", "Read answers back, a part of them or all", "svp session tell cats batch.csv --who ann"),
    "push": (
        "label_studio:push",
        "Ask by a Label Studio server: a project with tasks, in order, with predictions",
        "svp session push cats http://127.0.0.1:8080 -n 200",
    ),
    "pull": (
        "label_studio:pull",
        "Read the annotations of that project back",
        "svp session pull cats http://127.0.0.1:8080",
    ),
    "status": (
        "sessions:status",
        "Say how far it is: labels, people, agreement, what is open",
        "svp session status cats",
    ),
    "train": (
        "sessions:train",
        "Train the proxy now, so that the next question is there at once",
        "svp session train cats",
    ),
    "curve": (
        "sessions:curve",
        "Measure how accurate the proxy is, and what 100 more labels would add",
        "svp session curve cats",
    ),
    "review": (
        "sessions:review",
        "Offer labels that look wrong for a second look",
        "svp session review cats --out again.csv",
    ),
    "undo": ("sessions:undo", "Take back the last tell", "svp session undo cats --who ann"),
    "export": (
        "sessions:export",
        "Write the labelled set, or the whole history",
        "svp session export cats --out labelled.csv",
    ),
    "restore": ("sessions:restore", "Make a session of an exported history", "svp session restore cats history.jsonl"),
    "report": ("sessions:report", "Write the HTML report of a session", "svp session report cats"),
    "finish": (
        "sessions:finish",
        "Train the target on the labels, and write labels and predictions for everything",
        "svp session finish cats",
    ),
}
CLASSES = {"add": ("sessions:add", "Add classes that nobody thought of before", "svp session classes add cats fox owl")}


def _app() -> "App":
    app = _commands(
        "svp",
        COMMANDS,
        help="Which of this data should I label, or train on, and is it worth it?\n\n"
        "A small proxy model chooses for a large target model, and what that was worth is measured.",
        version=lambda: __import__("svp").__version__,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    session = _commands(
        "session",
        SESSION,
        help="Label with people: it asks for those that teach most, is told by files, retrains, and asks again",
    )
    session.command(_commands("classes", CLASSES, help="Say which classes there are"))
    app.command(session)
    return app


def _commands(name: str, table: dict[str, tuple[str, str, str]], **settings: Any) -> "App":
    """A command of commands."""
    from cyclopts import App

    app = App(name=name, help_format="plaintext", **settings)  # Markdown would add a third to the start-up
    for command, (where, summary, example) in table.items():
        app.command(f"svp.cli.{where}", name=command, help=summary, help_epilogue=f"Example: {example}")
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 done, 1 a named error (the bad value of a setting, too), 2 wrong usage (no such command or flag, a word too
    few or too many), 130 interrupted (state kept).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # "package.module:function" of the user's own code is looked for where the command is given, as python -m does.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        _app()([a for a in arguments if a != "--debug"], exit_on_error=False, print_error=False)
        sys.stdout.flush()  # a full disk is met here, not when Python ends
    except KeyboardInterrupt:
        import shlex

        _say(f"interrupted; what was finished is kept. Go on with: svp {shlex.join(arguments)}")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone.
        _drop_output()
        sys.exit(1)
    except Exception as error:
        from cyclopts import CycloptsError

        from svp.errors import SvpError

        if debug or not isinstance(error, SvpError | CycloptsError | OSError):
            raise
        wrong_usage = isinstance(error, CycloptsError)
        said = _of_the_system(error) if isinstance(error, OSError) else " ".join(str(error).split())
        _say(said + (" (see: svp --help)" if wrong_usage else ""))
        sys.exit(2 if wrong_usage else 1)


def _of_the_system(error: OSError) -> str:
    """What the system refused, of which file, and what to do."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    what = " ".join(str(error.strerror or error).split())
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{place}{what}; mend that, or name another place, and repeat the command (--debug shows where)"


def _drop_output() -> None:
    """Python flushes when it ends, which would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    print(f"svp: {message}", file=sys.stderr)
