"""What the adviser knows: which facts count, and the table of rules, each with its reason and who found it.

The thresholds of the conditions are rounded from the papers named; they are where to look first, not laws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from svp.select import METHODS
from svp.select.inputs import NO_SIGNAL

Goal = Literal["label", "train"]


@dataclass(frozen=True)
class Facts:
    """What is known before anything is computed.

    n           examples to choose from
    budget      how many of them to choose
    goal        "label": choose what people label; "train": choose what to keep of labelled data [default: train where there
                are labels]
    labels      the labels of all n are known
    embeddings  there are features from elsewhere, such as a frozen encoder's
    probs       there are class probabilities
    proxy       a small model can be trained: on the labels there are, or round by round on those that people give
    signals     kinds of signals that were recorded in a training ("correct", "logit_margin" ...)
    classes     how many, where it is known
    noise       expected share of wrong labels
    imbalance   examples of the largest class over those of the smallest
    d           width of an embedding, for the costs alone
    epochs      that signals are recorded in, for the costs alone
    """

    n: int
    budget: int
    goal: Goal
    labels: bool = False
    embeddings: bool = False
    probs: bool = False
    proxy: bool = False
    signals: tuple[str, ...] = ()
    classes: int | None = None
    noise: float = 0.0
    imbalance: float = 1.0
    d: int = 512
    epochs: int = 40

    @property
    def share(self) -> float:
        return self.budget / self.n

    @property
    def available(self) -> frozenset[str]:
        """What a method may read, in the words of `Method.needs`."""
        trained = self.proxy and self.goal == "train"
        given = {
            "labels": self.labels and self.goal == "train",
            "probs": self.probs or self.proxy,
            "embeddings": self.embeddings or self.proxy,
            "similarity": self.embeddings or self.proxy,
            **{kind: trained or kind in self.signals for kind in signal_kinds()},
        }
        return frozenset(need for need, there in given.items() if there)


def signal_kinds() -> frozenset[str]:
    """Kinds of signals that any method reads."""
    return frozenset(need for row in METHODS.values() for need in row.reads if need not in NO_SIGNAL)


@dataclass(frozen=True)
class Condition:
    """A question about the facts, and the words for yes."""

    says: str
    holds: Callable[[Facts], bool]


def _nothing(facts: Facts) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Rule:
    """Where all of `when` holds, `method` (with `options`) is worth trying: why, and who found that.

    goes_on  it looks around what is labelled already, without which it is another method
    """

    when: tuple[Condition, ...]
    method: str
    why: str
    source: str
    options: Callable[[Facts], dict[str, Any]] = _nothing
    goes_on: bool = False


@dataclass(frozen=True)
class Note:
    """What to mind where all of `when` holds. of_arrays: only `svp.select` can do what it says, no workflow."""

    when: tuple[Condition, ...]
    says: str
    source: str
    of_arrays: bool = False


LABEL = Condition("to be labelled", lambda f: f.goal == "label")
TRAIN = Condition("to train on", lambda f: f.goal == "train")
TINY = Condition("at most 10 a class (1 % where classes are unknown)", lambda f: _is_tiny(f))
MORE = Condition("more than 10 a class (1 % where classes are unknown)", lambda f: not _is_tiny(f))
FEW = Condition("less than 30 % is chosen", lambda f: f.budget < math.floor(0.3 * f.n))  # as a share is rounded
MANY = Condition("30 % or more is chosen", lambda f: f.budget >= math.floor(0.3 * f.n))
BATCH = Condition("batches of 100 or more", lambda f: f.budget >= 100)
CLUSTERED = Condition("at most 10,000, so that a batch can be clustered", lambda f: f.budget <= 10_000)
PAIRS = Condition("at most 100,000 examples, so that all pairs can be compared", lambda f: f.n <= 100_000)
QUICK = Condition("picks times examples at most 3e9", lambda f: f.budget * f.n <= 3e9)  # minutes to an hour
VAST = Condition("more than a million examples", lambda f: f.n > 1_000_000)
SCARCE = Condition(
    "fewer than 100 examples a class to begin with", lambda f: f.classes is not None and f.n < 100 * f.classes
)
NOISY = Condition("5 % or more of the labels may be wrong", lambda f: f.noise >= 0.05)
CLEAN = Condition("fewer than 5 % of the labels may be wrong", lambda f: f.noise < 0.05)
UNEVEN = Condition("the largest class is 3 times the smallest or more", lambda f: f.imbalance >= 3)
FROZEN = Condition("embeddings from elsewhere", lambda f: f.embeddings)
NO_FROZEN = Condition("no embeddings from elsewhere", lambda f: not f.embeddings)
LABELS = Condition("labels", lambda f: f.labels)
PROXY = Condition("a trainable proxy", lambda f: f.proxy)


def _is_tiny(facts: Facts) -> bool:
    return facts.share <= 0.01 if facts.classes is None else facts.budget <= 10 * facts.classes


_DEEPCORE = "Guo et al. 2022, DeepCore, DEXA"
_CCS = "Zheng et al. 2023, ICLR"
_SORSCHER = "Sorscher et al. 2022, NeurIPS"
_OURS = "docs/results.md"

RULES = (
    # --- what people shall label
    Rule(
        (LABEL, TINY, FROZEN),
        "typiclust",
        "with so few labels typical examples teach more than uncertain ones",
        "Hacohen et al. 2022, ICML",
    ),
    Rule(
        (LABEL, TINY, FROZEN, PAIRS),
        "probcover",
        "covers the dense parts of the embedding space first",
        "Yehuda et al. 2022, NeurIPS",
        lambda facts: {"n_classes": facts.classes} if facts.classes else {},
    ),
    Rule(
        (LABEL, TINY, FROZEN, PAIRS),
        "facility_location",
        "every example gets a chosen one that is like it; among the leaders at tiny budgets",
        _DEEPCORE,
    ),
    Rule(
        (LABEL, TINY, NO_FROZEN),
        "random",
        "a model trained on so few labels scores worse than chance chooses; get embeddings of a frozen encoder first",
        _DEEPCORE,
    ),
    Rule(
        (LABEL, MORE, BATCH, QUICK),
        "badge",
        "uncertain and different from each other; margin alone fills a batch with near-duplicates",
        "Ash et al. 2020, ICLR",
    ),
    Rule(
        (LABEL, MORE, VAST),
        "seals",
        "looks among the neighbours of what is labelled: finds rare classes in vast pools nearly as well as looking everywhere",
        "Coleman et al. 2022, AAAI",
        goes_on=True,
    ),
    Rule(
        (LABEL, MORE, BATCH, CLUSTERED),
        "cluster_margin",
        "uncertain examples, one of each cluster in turn; made for large batches",
        "Citovsky et al. 2021, NeurIPS",
    ),
    Rule(
        (LABEL, MORE, BATCH),
        "margin",
        "the cheapest good default; drawn by chance in proportion, so that a batch is not full of near-duplicates",
        "Scheffer et al. 2001, IDA; Kirsch et al. 2023, TMLR",
        lambda facts: {"sampler": "temperature"},
    ),
    Rule((LABEL, MORE), "margin", "the cheapest good default", "Scheffer et al. 2001, IDA"),
    Rule(
        (LABEL, PAIRS),
        "facility_location",
        "every example gets a chosen one that is like it; wants no model of the task",
        _DEEPCORE,
    ),
    Rule(
        (LABEL,), "k_center", "covers the embedding space; wants no model of the task", "Sener and Savarese 2018, ICLR"
    ),
    Rule((LABEL,), "margin", "the cheapest score; at this budget it may well lose to random", _DEEPCORE),
    Rule((LABEL,), "entropy", "wants probabilities alone, as margin does", "Settles 2009"),
    # --- what to keep of labelled data
    Rule(
        (TRAIN, NOISY),
        "ccs",
        "leaves out the hardest, where the wrong labels are, and spreads the budget over the rest",
        _CCS,
        lambda facts: {"drop": math.floor(1e4 * min(facts.noise, 0.99 * (1 - facts.share))) / 1e4},
    ),
    Rule(
        (TRAIN, NOISY),
        "moderate",
        "takes what lies at a middling distance from its class: neither trivial nor mislabelled",
        "Xia et al. 2023, ICLR",
    ),
    Rule(
        (TRAIN, NOISY),
        "aum",
        "a low margin over training marks wrong labels; the high ones are kept",
        "Pleiss et al. 2020, NeurIPS",
        lambda facts: {"keep": "easy"},
    ),
    Rule(
        (TRAIN, TINY, PAIRS),
        "graph_cut",
        "leads at tiny budgets: like the data, and not like each other",
        _DEEPCORE,
    ),
    Rule(
        (TRAIN, TINY, PAIRS),
        "facility_location",
        "every example gets a chosen one that is like it; among the leaders at tiny budgets",
        _DEEPCORE,
    ),
    Rule(
        (TRAIN, SCARCE, CLEAN),
        "moderate",
        "where data are scarce, keep the easy ones: the hardest teach nothing yet",
        f"{_SORSCHER}; Xia et al. 2023, ICLR",
    ),
    Rule(
        (TRAIN, FEW, CLEAN),
        "moderate",
        "takes what lies at a middling distance from its class; level with chance at a tenth of CIFAR-10 and equal epochs, where "
        "scores of difficulty were far behind",
        f"Xia et al. 2023, ICLR; {_OURS}",
    ),
    Rule(
        (TRAIN, FEW, PAIRS),
        "facility_location",
        "every example gets a chosen one that is like it; ahead of every score up to about 10 %",
        _DEEPCORE,
    ),
    Rule(
        (TRAIN, FEW, CLEAN),
        "ccs",
        "spreads the budget over all scores but the hardest, which alone do far worse than chance",
        _CCS,
        lambda facts: {"drop": 0.3 if facts.share <= 0.1 else 0.1},
    ),
    Rule(
        (TRAIN, FEW, CLEAN, PAIRS),
        "d2",
        "hard examples, thinned out where neighbours are chosen already",
        "Maharana et al. 2024, ICLR",
    ),
    Rule((TRAIN, FEW), "stratified_random", "a strong second at every small budget, and free", _DEEPCORE),
    Rule((TRAIN, FEW), "random", "scores take the hardest, which loses to chance at so small a budget", _DEEPCORE),
    Rule(
        (TRAIN, MANY, CLEAN),
        "forgetting",
        "half of CIFAR-10 could go without loss when a proxy counted what it forgot",
        "Toneva et al. 2019, ICLR; Coleman et al. 2020, ICLR",
    ),
    Rule(
        (TRAIN, MANY, CLEAN),
        "el2n",
        "as good as forgetting from the first epochs, so its proxy may be stopped early",
        "Paul et al. 2021, NeurIPS",
    ),
    Rule((TRAIN, MANY, CLEAN), "grand", "as el2n, from one trained model", "Paul et al. 2021, NeurIPS"),
    Rule(
        (TRAIN, MANY, CLEAN),
        "ssl_prototypes",
        "keeps what is far from its cluster; wants neither labels nor training",
        _SORSCHER,
        lambda facts: {"clusters": facts.classes} if facts.classes else {},
    ),
    Rule((TRAIN, MANY, CLEAN), "margin", "needs one trained model and no signals", _DEEPCORE),
    Rule((TRAIN,), "stratified_random", "free, and at large budgets within a point or two of the best", _DEEPCORE),
    Rule(
        (TRAIN,), "k_center", "covers the embedding space; wants no model of the task", "Sener and Savarese 2018, ICLR"
    ),
    Rule((TRAIN, CLEAN), "margin", "the cheapest score; at this budget it may well lose to random", _DEEPCORE),
    Rule((), "random", "nothing else can be computed from what is at hand", _DEEPCORE),
)

NOTES = (
    Note(
        (TRAIN,),
        "compare at equal compute too (`svp coreset --control random full --equal epochs steps`); a fresh random subset "
        "each epoch often beats every fixed one",
        "Okanovic et al. 2024, ICLR",
    ),
    Note(
        (LABEL, PROXY),
        "the proxy first learns from a random start and then asks in rounds (`svp active --labelled START ... --control random`)",
        "Coleman et al. 2020, ICLR",
    ),
    Note(
        (TRAIN, PROXY),
        "a proxy of the target's family that is ten times cheaper ranks nearly as well",
        "Coleman et al. 2020, ICLR",
    ),
    Note(
        (LABEL, TINY, NO_FROZEN),
        "embeddings of a frozen encoder would open typiclust and probcover, which lead at this budget",
        "Hacohen et al. 2022, ICML",
    ),
    Note(
        (TRAIN, NOISY),
        "forgetting, el2n, grand and entropy would take the wrong labels first",
        "Pleiss et al. 2020, NeurIPS",
    ),
    Note(
        (TRAIN, LABELS, UNEVEN),
        'rare classes vanish from most choices; keep them with `per_class={"share": "equal"}` or `{"min": 20}`',
        _CCS,
        of_arrays=True,
    ),
)
