"""The command line: parse, call one function, print. Each command's code is imported when that command is run.

At import there is next to nothing, so that an interruption while the rest is being imported is met by `main`.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

# name: (what it does, an example)
COMMANDS = {
    "demo": ("Run both workflows on 1,797 real images that ship with scikit-learn, in about a minute", "svp demo"),
    "coreset": (
        "Choose what to keep of labelled data: the proxy scores it, the target is trained on what the proxy chose",
        "svp coreset photos --budget 50% --method forgetting --control random full --seeds 3",
    ),
    "active": (
        "Choose what to label, round by round: the proxy asks, known labels answer in place of people",
        "svp active photos --labelled 100 200 400 --method margin --control random target",
    ),
    "session": (
        "Label with people: it asks for those that teach most, is told by files, retrains, and asks again",
        "svp session new cats --data photos --classes cat,dog",
    ),
    "select": (
        "Choose from arrays in files, without a dataset or a training",
        "svp select margin --probs probs.npy --budget 10% --out picks.parquet",
    ),
    "score": (
        "One score for each example of arrays in files, higher = taken first",
        "svp score entropy --probs 'probs.parquet:p*' --out scores.npy",
    ),
    "apply": (
        "Write the chosen part of a folder of images, a table or an array",
        "svp apply picks.parquet --data photos --out kept --link",
    ),
    "advise": (
        "Say which methods suit your data, why, what they cost and what they have to beat",
        "svp advise photos --budget 10% --proxy --noise 0.1",
    ),
    "report": ("Write the HTML report of a run folder", "svp report runs/photos-coreset-1a2b3c4d"),
    "list": ("Show what is known: methods, models, datasets, recipes", "svp list methods"),
}

# The parts of `svp session`, likewise.
SESSION = {
    "new": (
        "Begin a session on a folder of photos or a table of texts",
        "svp session new cats --data photos --classes cat,dog --method margin",
    ),
    "ask": (
        "Ask for labels: a table to fill in, a folder to sort, or the tasks of a labelling tool",
        "svp session ask cats -n 200 --out batch.csv",
    ),
    "tell": ("Read answers back, a part of them or all", "svp session tell cats batch.csv --who ann"),
    "status": ("Say how far it is: labels, people, agreement, what is open", "svp session status cats"),
    "train": ("Train the proxy now, so that the next question is there at once", "svp session train cats"),
    "undo": ("Take back the last tell", "svp session undo cats --who ann"),
    "export": ("Write the labelled set, or the whole history", "svp session export cats --out labelled.csv"),
    "restore": ("Make a session of an exported history", "svp session restore cats history.jsonl"),
    "finish": (
        "Train the target on the labels, and write labels and predictions for everything",
        "svp session finish cats",
    ),
}
_ADD = ("Add classes that nobody thought of before", "svp session classes add cats fox owl")

# Where a command is, if not among the others.
MODULES = {**dict.fromkeys(("select", "score", "apply"), "array_commands"), "advise": "advise_command"}


def _app() -> "App":
    from cyclopts import App

    app = App(
        name="svp",
        help="Which of this data should I label, or train on, and is it worth it?\n\n"
        "A small proxy model chooses for a large target model, and what that was worth is measured.",
        version=lambda: __import__("svp").__version__,
        suppress_keyboard_interrupt=False,
        help_format="plaintext",  # Markdown would add a third to the start-up
        result_action="return_value",
    )
    for name, (summary, example) in COMMANDS.items():
        if name == "session":
            app.command(_session(summary, example))
            continue
        function = "list_" if name == "list" else name
        module = MODULES.get(name, "commands")
        app.command(f"svp.{module}:{function}", name=name, help=summary, help_epilogue=f"Example: {example}")
    return app


def _session(summary: str, example: str) -> "App":
    """`svp session`, a command of commands."""
    from cyclopts import App

    app = App(name="session", help=summary, help_epilogue=f"Example: {example}", help_format="plaintext")
    for name, (about, of_it) in SESSION.items():
        app.command(f"svp.session_commands:{name}", name=name, help=about, help_epilogue=f"Example: {of_it}")
    classes = App(name="classes", help=_ADD[0], help_epilogue=f"Example: {_ADD[1]}", help_format="plaintext")
    classes.command("svp.session_commands:add", name="add", help=_ADD[0], help_epilogue=f"Example: {_ADD[1]}")
    app.command(classes)
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
    except KeyboardInterrupt:
        import shlex

        _say(f"interrupted; what was finished is kept. Go on with: svp {shlex.join(arguments)}")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from cyclopts import CycloptsError

        from svp.errors import SvpError

        if debug or not isinstance(error, SvpError | CycloptsError):
            raise
        wrong_usage = isinstance(error, CycloptsError)
        _say(" ".join(str(error).split()) + (" (see: svp --help)" if wrong_usage else ""))
        sys.exit(2 if wrong_usage else 1)


def _say(message: str) -> None:
    print(f"svp: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
