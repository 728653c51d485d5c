"""scikit-learn's handwritten digits: real images that need no download (UCI ML, Alpaydin and Kaynak 1998)."""

import numpy as np
from sklearn.datasets import load_digits

from svp.data.base import Dataset, with_held_out_test


def load() -> Dataset:
    """1,797 grey images (8, 8, 1), uint8: 1,346 to train, and a fixed quarter of each class to test.

    Ids are scikit-learn's row numbers. The 17 grey levels 0 .. 16 are spread over 0 .. 255, each to its own value.
    """
    raw, labels = load_digits(return_X_y=True)
    images = np.rint(raw.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return with_held_out_test(Dataset.from_arrays(images, labels, name="digits"), 0.25)
