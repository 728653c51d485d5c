"""The command line: parse, call one function, print. Each command's code is imported when that command is run."""

import os
import shlex
import sys

from cyclopts import App, CycloptsError

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
    "report": ("Write the HTML report of a run folder", "svp report runs/photos-coreset-1a2b3c4d"),
    "list": ("Show what is known: methods, models, datasets, recipes", "svp list methods"),
}

app = App(
    name="svp",
    help="Which of this data should I label, or train on, and is it worth it?\n\n"
    "A small proxy model chooses for a large target model, and what that was worth is measured.",
    version=lambda: __import__("svp").__version__,
    suppress_keyboard_interrupt=False,
    help_format="plaintext",  # Markdown would add a third to the start-up
    result_action="return_value",
)
for _name, (_help, _example) in COMMANDS.items():
    _function = "list_" if _name == "list" else _name
    _module = "array_commands" if _name in ("select", "score", "apply") else "commands"
    app.command(f"svp.{_module}:{_function}", name=_name, help=_help, help_epilogue=f"Example: {_example}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 a named error, 2 wrong usage, 130 interrupted (state kept)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # "package.module:function" of the user's own code is looked for where the command is given, as python -m does.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app([a for a in arguments if a != "--debug"], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        if debug:
            raise
        _say(f"{' '.join(str(error).split())} (see: svp --help)")
        sys.exit(2)
    except KeyboardInterrupt:
        _say(f"interrupted; what was finished is kept. Go on with: svp {shlex.join(arguments)}")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from svp.errors import SvpError

        if debug or not isinstance(error, SvpError):
            raise
        _say(" ".join(str(error).split()))
        sys.exit(1)


def _say(message: str) -> None:
    print(f"svp: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
