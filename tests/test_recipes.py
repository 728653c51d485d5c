"""The recipes that are called the paper's hold what the authors' released code trains with (Coleman et al. 2020)."""

from itertools import chain, repeat

import pytest

from svp.cli.flags import read_recipe, recipes
from svp.config import ActiveConfig, CoresetConfig, TrainConfig
from svp.learners.loop import learning_rate
from svp.workflows.begin import settled

# (epochs, rate) for a batch of the size that the recipe has.
CIFAR = ((1, 0.01), (90, 0.1), (45, 0.01), (45, 0.001))
CIFAR_SHORT = ((1, 0.01), (45, 0.1), (4, 0.01))
WARM_UP = ((1, 0.0167), (1, 0.0333), (1, 0.05), (1, 0.0667), (1, 0.0833), (25, 0.1))
IMAGENET = (*WARM_UP, (30, 0.01), (20, 0.001), (20, 0.0001))
IMAGENET_SHORT = (*WARM_UP, (15, 0.01))
VDCNN = tuple((3, 0.01 / 2**i) for i in range(5))
PHASES = {"cifar10": CIFAR, "cifar100": CIFAR, "imagenet": IMAGENET, "amazon-polarity": VDCNN, "amazon-full": VDCNN}
# Where the proxy trains for less than the target.
PROXY_PHASES = {
    "cifar10-paper-50-epochs": CIFAR_SHORT,
    "cifar100-paper-50-epochs": CIFAR_SHORT,
    "imagenet-paper-45-epochs": IMAGENET_SHORT,
}
# Examples in a step, weight decay, label smoothing.
SETTINGS = {"cifar": (128, 5e-4, 0.0), "imagenet": (256, 1e-4, 0.1), "amazon": (128, 1e-4, 0.0)}
ROUNDS = {
    "cifar": [1000, 5000, 10000, 15000, 20000, 25000],
    "imagenet": [25623, 128116, 256233, 384350, 512467, 640584],
    "amazon": ["2%", "10%", "20%", "30%", "40%", "50%"],
}
PAPER = sorted(name for name in recipes() if "paper" in name or (name.startswith("amazon") and "short" not in name))


def rates(config: TrainConfig) -> list[float]:
    """The rate in each epoch of one step."""
    return [learning_rate(config, epoch, int(config.epochs)) for epoch in range(int(config.epochs))]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str) -> None:
    values = read_recipe(name)
    config: ActiveConfig | CoresetConfig = settled(
        (ActiveConfig if "labelled" in values else CoresetConfig).make(values), "proxy", "target"
    )
    family = name.split("-")[0].rstrip("0123456789")
    for role, phases in (("target", None), ("proxy", PROXY_PHASES.get(name))):
        trained: TrainConfig = getattr(config, role)
        if trained.model == "fasttext":
            assert (trained.epochs, trained.lr, trained.options["buckets"]) == (5, 0.05, 10_000_000)
            continue
        expected = list(chain.from_iterable(repeat(rate, n) for n, rate in phases or PHASES[config.dataset]))
        assert rates(trained) == pytest.approx(expected, rel=1e-9 if family != "imagenet" else 2e-3)
        assert (trained.batch_size, trained.weight_decay, trained.label_smoothing) == SETTINGS[family]
        assert trained.momentum == 0.9
        assert trained.min_steps == 0
    assert config.seeds == 3
    if isinstance(config, ActiveConfig):
        assert list(config.labelled) == ROUNDS[family]
        assert list(config.evaluate) == ROUNDS[family][1:]
        assert config.method == "least_confidence"
