"""One image file becomes a square of bytes. Run as a program, it decodes for another process until that one closes the pipe.

Nothing of svp is imported here, so that it starts in a quarter of a second and runs no code of the user's own program.
"""

import io
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Item = str | bytes  # the path of an image file, or its content


def square(file: Item, size: int, short_side: int) -> NDArray[np.uint8]:
    """(size, size, 3): the centre of an image, upright and in colour.

    The short side is scaled to short_side (bicubic, antialiased) and the middle size x size are cut out, in one step. A JPEG is
    decoded at a half, quarter or eighth where that leaves twice the pixels that are wanted. Transparency becomes white, 16 bits
    become 8, an animation is its first frame. Pillow refuses more than 179 million pixels.
    """
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as opened:
        opened.draft(None, (2 * short_side, 2 * short_side))
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("float pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.clip(np.asarray(image), 0, 65535) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    side = min(image.size) * size / short_side
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box))


def squares(files: Sequence[Item], size: int, short_side: int) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """(k, size, size, 3): the images that can be read, in order; and by position, why the others cannot."""
    images, broken = [np.zeros((0, size, size, 3), np.uint8)], {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow can read, it may frown upon
        for i, file in enumerate(files):
            try:
                images.append(square(file, size, short_side)[None])
            except Exception as error:  # a damaged image can raise anything
                broken[i] = _reason(error)
    return np.concatenate(images), broken


def _reason(error: Exception) -> str:
    """An error in one line, without the path that stands beside it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def serve() -> None:
    """Answer each (files, size, short_side) on standard input with what `squares` gives, as workers of svp.engine answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to stop
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a reader of images prints is no answer
    while True:
        try:
            files, size, short_side = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        failure = None
        answers.write(pickle.dumps((failure, squares(files, size, short_side)), protocol=5))
        answers.flush()


if __name__ == "__main__":
    serve()
