"""A session on a folder of photos begins with their list: the first question is drawn at random, which takes no pixels.

The label store numbers the photos without their fingerprints; the first who needs the data reads them, and knows them by their
pixels from then on (`pool.py`).
"""

from pathlib import Path

import numpy as np

from svp.config import PREVIOUS, SessionConfig
from svp.data import unlabelled
from svp.data.base import Dataset, silent
from svp.data.photos import IMAGE_SIZE
from svp.labels import LabelStore
from svp.runs import STORE, Run
from svp.workflows.begin import settled
from svp.workflows.check import check_needs, refuse_options
from svp.workflows.people import never_asked, prepared, refuse_inside


def is_enough(config: SessionConfig) -> bool:
    """Can the first question be chosen before anything is read?

    Not where a photo that cannot be read is to be refused, nor with frozen features, which may choose it and must fit the photos.
    """
    frozen = any(model.features.source not in (None, PREVIOUS) for model in (config.proxy, config.target))
    at_random = config.start in ("random", "auto") and not frozen
    return at_random and config.on_error == "skip" and unlabelled.are_photos(config)


def begin(folder: Path, config: SessionConfig, *, accept_code_change: bool) -> None:
    """Make the session, or go on with one that was begun so by the same settings. Cost: listing the files, a row for each."""
    settled(config, "proxy")
    refuse_inside(folder, config)
    files = unlabelled.listed(config)
    side = config.image_size or IMAGE_SIZE
    pixels = np.resize(np.arange(256, dtype=np.uint8), (2, side, side, 3))
    alike = Dataset(Path(config.dataset).name, pixels, None, config.classes, np.arange(2))  # to try the models on
    settings, _ = prepared(folder, config, alike, silent)
    settings = settled(settings, "proxy")
    check_needs(settings, alike, trained_on_all=False)
    refuse_options(settings, len(files.ids))
    with Run.start(
        folder, settings, None, accept_code_change=accept_code_change, may_grow=True, never_asked=never_asked
    ):
        path = folder / STORE
        with LabelStore.open(path) if path.exists() else LabelStore.create(path, config.classes) as store:
            if not store.n_examples():
                store.number(files.ids, files.keys, [""] * len(files.ids))
