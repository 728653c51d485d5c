"""What goes out and what comes in, whatever the format; and what every format asks of the values that it reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from svp.errors import DataError


@dataclass(frozen=True)
class Asked:
    """One example of a question.

    key      the user's own name of it
    text     what it says, of texts
    file     where it lies, of photos
    score    why it was chosen; or None
    guess    what the proxy takes it for, with its probability; or None
    label    what is known of it already; "" in a question
    """

    id: int
    key: str
    round: int
    text: str | None = None
    file: Path | None = None
    score: float | None = None
    guess: tuple[str, float] | None = None
    label: str = ""


@dataclass(frozen=True)
class Told:
    """One answer as it stands in a file.

    where  the place, for whoever has to look: "batch.csv, row 3"
    said   the name of a class, or skip, unsure, none
    id, key, name  what the file calls the example: one of them at least; name is that of its file without folders
    who    None: whoever brings the file
    at     ISO time; or None
    text   what the file says that the example says; or None
    round  of the question that the file was written for; or None
    """

    where: str
    said: str
    id: int | None = None
    key: str | None = None
    name: str | None = None
    who: str | None = None
    at: str | None = None
    text: str | None = None
    round: int | None = None


@contextmanager
def understood(where: str, what: str) -> Iterator[None]:
    """DataError for values of other kinds than a format has; what is read here was edited by people and programs."""
    try:
        yield
    except (TypeError, KeyError, AttributeError, IndexError, ValueError, RecursionError):
        raise DataError(f"{where}: this is no {what}; write it anew, or leave it out") from None


def word(value: Any) -> str:
    """A value as people wrote it, without space around it; "" for none. 3.0 is 3: tables make floats of whole numbers."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def id_in(row: Mapping[str, Any], name: str, where: str) -> int | None:
    """The id in a row; None where it has none."""
    text = word(row.get(name))
    if not text:
        return None
    if not text.isdecimal() or int(text) >= 2**63:
        raise DataError(f"{where}: the {name} is {text!r}; it is a whole number, as it was written")
    return int(text)


def annotator(value: Any) -> str | None:
    """Who answered in Label Studio, the same in all its exports: an address, or a number."""
    text = word(value)
    return f"annotator {text}" if text.isdecimal() else text or None


def time_of(value: Any, where: str) -> str | None:
    """ISO time of a text, or of seconds since 1970."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        try:
            return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds")
        except (ValueError, OverflowError, OSError):
            raise DataError(f"{where}: the time is {value!r}; give seconds since 1970, or a time in ISO form") from None
    return word(value) or None


def opened(path: Path) -> str:
    """The text of a file, line ends as they are. Raises DataError where there is none, or it is no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not in UTF-8; save it as UTF-8 (in a spreadsheet: CSV UTF-8)") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
