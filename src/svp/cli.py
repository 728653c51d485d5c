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
        function = "list_" if name == "list" else name
        module = MODULES.get(name, "commands")
        app.command(f"svp.{module}:{function}", name=name, help=summary, help_epilogue=f"Example: {example}")
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
