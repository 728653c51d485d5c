"""Every error that `svp` raises on purpose.

    SvpError                 one line: the thing, what is allowed, what came, the next step
    ├── UnknownName          a method, model, dataset or class that no table has (names the nearest)
    ├── SettingError         a setting out of range, or settings that make no sense together
    ├── DataError            files missing, truncated, broken or with a wrong checksum; inputs not finite
    ├── BudgetError          more asked for than there is, or less than nothing
    ├── MissingInput         a method needs probabilities, embeddings, signals or labels that were not given
    ├── MissingExtra         an optional dependency is not installed (names the extra)
    ├── TrainingError        training cannot go on (diverged, no examples at all)
    ├── LabelError           an answer that does not fit its question, or contradicts an earlier one
    ├── RunChanged           a run folder was made with another configuration, dataset or code
    ├── StorageError         the folder cannot be written (full, read-only)
    │   └── FolderInUse      another process works in it
    ├── ServerError          a labelling server cannot be reached, or refuses
    └── WorkerError          a process that worked for this one died, or raised what has no name here

The command line prints the message on one line and exits with status 1; a SvpWarning it prints likewise, and goes on.
"""

import difflib
import importlib
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType


class SvpError(Exception):
    """Base of all errors that `svp` raises on purpose."""


class SvpWarning(UserWarning):
    """What goes on, but should be known: files of a folder that were left out."""


class UnknownName(SvpError):
    """A name that its table does not have."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"Unknown {kind} {name!r}; {guess}{f' ({hint})' if hint else ''}")


class SettingError(SvpError):
    """A setting out of range, or settings that make no sense together."""


class DataError(SvpError):
    """Files missing, truncated, broken or with a wrong checksum; inputs that are not finite."""


class BudgetError(SvpError):
    """More asked for than there is, or less than nothing."""


class MissingInput(SvpError):
    """A method needs an array that was not given."""


class MissingExtra(SvpError):
    """An optional dependency is not installed."""


class TrainingError(SvpError):
    """Training cannot start or go on."""


class LabelError(SvpError):
    """An answer that does not fit its question, or contradicts an earlier one."""


class RunChanged(SvpError):
    """A run folder was made with another configuration, dataset or code."""


class StorageError(SvpError):
    """A folder cannot be written: full, read-only, or in use by another process."""


class FolderInUse(StorageError):
    """Another process works in this folder."""


class ServerError(SvpError):
    """A labelling server cannot be reached, or refuses."""


class WorkerError(SvpError):
    """A process that worked for this one died, or raised what has no name here."""


def one_line(error: BaseException) -> str:
    """What went wrong in code that is not ours: "ValueError: its message", on one line."""
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


@contextmanager
def own_code(*names: str) -> Iterator[None]:
    """SettingError that names what is somebody's own of `names` ("package.module:function") if that raises.

    Named errors stay as they are, and so does everything where all names are from our tables.
    """
    try:
        yield
    except SvpError:
        raise
    except Exception as error:  # whatever a function of somebody's own may raise
        if not (own := [name for name in names if ":" in name]):
            raise
        raise SettingError(f"{' or '.join(own)} raised {one_line(error)}; --debug shows where") from error


def shortened(message: object) -> str:
    """What somebody else's code says, on one line of at most 100 characters."""
    return textwrap.shorten(str(message), 100, placeholder=" ...")


def if_spreadsheet(suffix: str) -> str:
    """What to do with a file of a spreadsheet, for the end of a message; nothing for any other."""
    return "; save it as CSV in the spreadsheet" if suffix.lower() in (".xlsx", ".xlsm", ".xls", ".ods") else ""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"{module} is not installed; install it with: pip install 'selection-via-proxy[{extra}]'"
        ) from error
