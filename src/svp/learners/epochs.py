"""What a training is long: how many examples it shows, in how many steps and epochs. Plain arithmetic of its settings; it decides
a training, so it is counted with the code of every net.
"""

import math
from decimal import Decimal

from svp.config import TrainConfig


def held_out(config: TrainConfig, n: int) -> int:
    """How many of `n` examples are held out: at least one where any are wanted, but two are left to train on.

    The share is taken as it is written: 0.07 of 100 is 7, although the float nearest to 0.07 is a little more.
    """
    return max(0, min(math.ceil(Decimal(str(config.validation)) * n), n - 2))


def shown(config: TrainConfig, n: int) -> int:
    """How many of `n` examples an epoch shows: all but those held out."""
    return n - held_out(config, n)


def steps_per_epoch(config: TrainConfig, n_shown: int) -> int:
    return -(-n_shown // config.batch_size)


def n_epochs(config: TrainConfig, n_shown: int) -> int:
    """Epochs over so many examples once `min_steps` is honoured."""
    return max(config.epochs, -(-config.min_steps // steps_per_epoch(config, n_shown)))
