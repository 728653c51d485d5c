"""Examples to thumbnails: WebP inside the page, tiny images pixel by pixel."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svp.data.base import Dataset
from svp.report.facts import Example

SIDE = 96  # pixels: larger images are made smaller
TINY = 48  # images up to this side are shown as they are, pixel by pixel


def are_images(dataset: Dataset | None) -> bool:
    """Whether the inputs are (n, h, w, c) pictures."""
    return dataset is not None and dataset.inputs.ndim == 4 and dataset.inputs.shape[3] in (1, 2, 3, 4)


def thumbnails(dataset: Dataset, examples: list[Example]) -> list[str]:
    """A data URI for each example. Floats are shown from their lowest to their highest value among the examples."""
    if not examples:
        return []
    pixels = np.asarray(dataset.inputs[dataset.positions([example.id for example in examples])])
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = np.rint((pixels - low) * (255 / (high - low or 1.0))).astype(np.uint8)
    return [_webp(image) for image in pixels]


def are_tiny(dataset: Dataset) -> bool:
    """Whether each pixel should be seen as one."""
    return max(int(side) for side in dataset.inputs.shape[1:3]) <= TINY


def _webp(pixels: NDArray[Any]) -> str:
    """One (h, w, c) image; of two channels the first is shown, of four the first three."""
    image = Image.fromarray(pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, 0])
    image.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    image.save(buffer, "WEBP", lossless=max(image.size) <= 16, quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
