"""What is shown of an example: a photo as it lies in the pool, pixels as they were read, or a text."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from svp.labels import Waiting
from svp.workflows.begin import patiently
from svp.workflows.hindsight import first_guesses
from svp.workflows.session import Session

MOST_LETTERS = 20_000  # of a text are shown
TINY = 64  # pixels: images up to this side are shown pixel by pixel
_LARGE = 1600  # pixels: photos that browsers do not read are sent no larger than this
# What Pillow calls the formats that every browser reads. MPO is a JPEG with a second picture behind it, as phones write them.
_SHOWN = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}


@dataclass(frozen=True)
class Card:
    """An example as it is shown.

    origin   how it was chosen, in words
    again    people are divided on it
    text     what it says, or its numbers; None of an image
    letters  of the whole text, of which no more than MOST_LETTERS are shown
    pixels   PNG; None of a text, and of a photo that is shown as it lies in the pool
    tiny     each pixel is to be seen as one
    guess    class number and probability by the proxy that scored it last; None where none has
    """

    id: int
    key: str
    origin: str
    again: bool = False
    text: str | None = None
    letters: int = 0
    pixels: bytes | None = None
    tiny: bool = False
    guess: tuple[int, float] | None = None


def cards_of(session: Session, asked: Sequence[Waiting]) -> list[Card]:
    """Photos as they lie in the pool; of anything else the data are read, if that has not been done.

    What came to the pool after that is left out until the next start; and what cannot be opened, until the photos are read.
    """
    root, ids = Path(session.config.dataset).expanduser(), np.array([each.id for each in asked], np.int64)
    keys = session.store.keys(ids.tolist())
    rows: dict[int, Any] = {}
    if session.of_photos:
        rows = {id_: None for id_, key in keys.items() if photo(root, key) is not None}
    others = [id_ for id_ in keys if id_ not in rows]
    if session.of_photos and others and session.store.has_unread():
        # Links that lead out of the pool are shown by their pixels; for what cannot be opened nothing is read now.
        others = [id_ for id_ in others if (root / keys[id_]).is_symlink()]
    if others:
        data = patiently(lambda: session.dataset)
        others = np.intersect1d(data.ids, others).tolist()
        rows |= zip(others, data.inputs[data.positions(others)], strict=True)
    guesses = first_guesses(session.folder, np.array(sorted(rows), np.int64))
    return [
        Card(
            each.id,
            keys[each.id],
            each.origin,
            each.again,
            guess=guesses.get(each.id),
            **_shown(rows[each.id]),
        )
        for each in asked
        if each.id in rows
    ]


def _shown(row: Any) -> dict[str, Any]:
    """What a card says of an input; None: a photo, which is shown as it lies in the pool."""
    if row is None:
        return {}
    if isinstance(row, str):
        return {"text": row[:MOST_LETTERS], "letters": len(row)}
    if row.ndim != 3:
        numbers = np.asarray(row).ravel()
        text = ", ".join(f"{value:.4g}" for value in numbers[:1000].tolist())
        return {"text": text, "letters": len(text)}
    return {"pixels": _png(row), "tiny": max(row.shape[:2]) <= TINY}


def _png(row: NDArray[Any]) -> bytes:
    """One (h, w, c) image; floats from their lowest to their highest value; of two channels the first, of four three."""
    if row.dtype != np.uint8:
        low, high = float(row.min()), float(row.max())
        row = np.rint((row - low) * (255 / (high - low or 1.0))).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(row[:, :, :3] if row.shape[2] >= 3 else row[:, :, 0]))
    return _saved(image, "PNG")


# --- files of the pool ---------------------------------------------------------------------------------------------------


def photo(root: Path, key: str) -> tuple[Path, str] | None:
    """The file of the pool that has this key, and what Pillow calls its format.

    None where there is none: it is no image, it is gone, or the key leads out of the pool, by `..` or by a link.
    """
    try:
        path, place = (root / key).resolve(strict=True), root.resolve(strict=True)
        if not (place.is_dir() and path.is_file() and path.is_relative_to(place)):
            return None
        with Image.open(path) as image:  # reads the head alone
            return path, str(image.format)
    except Exception:  # a damaged image can raise anything
        return None


def media_type(format_: str) -> str | None:
    """That of a format which browsers read."""
    return _SHOWN.get(format_)


def as_webp(path: Path) -> bytes:
    """A photo in another format, upright, no larger than a screen. Raises what Pillow raises."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((_LARGE, _LARGE))
    return _saved(image, "WEBP")


def _saved(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()
