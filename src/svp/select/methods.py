"""The tables: every method and every sampler, what it reads, and what it costs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from svp.errors import SettingError, UnknownName
from svp.names import resolve
from svp.select import (
    badge,
    centres,
    d2,
    herding,
    k_center,
    probcover,
    samplers,
    scores,
    seals,
    stratified,
    submodular,
    typiclust,
)
from svp.select.options import number, wholes, words
from svp.select.similarity import KERNELS
from svp.select.table import Cost, Cover, Method, Rank, Sampler, Shape, method_of, path_of, sampler_of


def _clustered(s: Shape) -> float:
    """What round_robin clusters: the pool, and what is chosen already."""
    pool = s.options.get("pool", 10) * s.budget
    return float(min(s.n, s.already + pool, s.options.get("largest", 10_000)))


SAMPLERS: dict[str, Sampler] = {
    "temperature": Sampler(
        samplers.temperature,
        cost=Cost(lambda s: s.n, lambda s: 80 * s.n),
        check=samplers.check_temperature,
        fixed_order=True,
    ),
    "strata": Sampler(
        samplers.strata,
        cost=Cost(lambda s: s.n, lambda s: 120 * s.n),
        check=samplers.check_strata,
        never=samplers.hardest,
    ),
    "round_robin": Sampler(
        samplers.round_robin,
        needs=("embeddings",),
        cost=Cost(
            lambda s: s.n + _clustered(s) ** 2 * s.d, lambda s: 40 * s.n + 8 * _clustered(s) * (_clustered(s) + s.d)
        ),
        check=samplers.check_round_robin,
    ),
}


def find_sampler(sampler: str | Callable[..., Any]) -> tuple[str, Sampler | None]:
    """The name that records use, and the row; None for "top", which takes the highest. Found as methods are."""
    if callable(sampler):
        return path_of(sampler), sampler_of(sampler)
    _check_name("sampler", sampler)
    if sampler == "top" or sampler in SAMPLERS:
        return sampler, SAMPLERS.get(sampler)
    if ":" in sampler:
        return sampler, sampler_of(resolve(sampler))
    raise UnknownName("sampler", sampler, ["top", *SAMPLERS])


def with_sampler(name: str, row: Method, sampler: str | Callable[..., Any] | None) -> tuple[str | None, Method]:
    """The sampler's name, and the row with it; SettingError where there is nothing to sample, or another one already."""
    if sampler is None:
        return None, row
    called, own = find_sampler(sampler)
    if not isinstance(row, Rank):
        raise SettingError(f"sampler={called!r}: method {name!r} chooses sets; samplers choose by scores, leave it out")
    if row.sampler is not None:
        raise SettingError(f"sampler={called!r}: method {name!r} has its own; choose a method that only ranks")
    cost = row.cost if own is None else row.cost and own.cost and row.cost.then(own.cost)
    return called, replace(row, sampler=own, cost=cost)


def _check_name(kind: str, name: Any) -> None:
    if not isinstance(name, str):
        raise SettingError(f'{kind}={name!r:.60}; give a name, "package.module:function", or a function')


_PER_CLASS = Cost(lambda s: s.n * s.c)
_PER_EPOCH = Cost(lambda s: s.n * s.n_epochs)


def _pairs(s: Shape) -> float:
    """Products of every example with every other."""
    return float(s.n) * s.n * s.d


def _stored(s: Shape) -> float:
    """A look at every similarity that is stored, and what each example takes in any case."""
    return s.entries + 100.0 * s.n


def _rows(s: Shape) -> float:
    """All rows as products want them, and a few tiles of products."""
    return 8.0 * s.n * (s.d + 2) + (64 << 20)


def _centres(s: Shape) -> float:
    """What k_center holds."""
    return 50.0 * s.n + 4 * (s.already + s.budget) * (s.d + 30) + 8 * s.already * s.d


def _clusters(s: Shape) -> float:
    """What typiclust makes."""
    return float(max(1, min(s.already + s.budget, s.options.get("max_clusters", 500))))


def _kernels(shape: Shape, *, kernel: str, **_: Any) -> None:
    if kernel not in KERNELS:
        raise UnknownName("kernel", kernel, KERNELS)


def _graph_cut(shape: Shape, *, kernel: str, lambda_: float) -> None:
    _kernels(shape, kernel=kernel)
    number("lambda_", lambda_, 0)


METHODS: dict[str, Method] = {
    "random": Rank(scores.random, needs=(), cost=Cost(lambda s: s.n, lambda s: 24 * s.n)),
    "stratified_random": Cover(
        stratified.stratified_random, needs=("labels",), cost=Cost(lambda s: s.n, lambda s: 48 * s.n)
    ),
    "least_confidence": Rank(scores.least_confidence, needs=("probs",), cost=_PER_CLASS),
    "margin": Rank(scores.margin, needs=("probs",), cost=_PER_CLASS),
    "entropy": Rank(scores.entropy, needs=("probs",), cost=_PER_CLASS),
    "forgetting": Rank(scores.forgetting, needs=("correct",), cost=_PER_EPOCH),
    "el2n": Rank(scores.el2n, needs=("el2n",), cost=_PER_EPOCH, check=wholes(epochs=1)),
    "grand": Rank(scores.grand, needs=("probs", "embeddings", "labels"), cost=Cost(lambda s: s.n * (s.c + s.d))),
    "aum": Rank(scores.aum, needs=("logit_margin",), cost=_PER_EPOCH, check=words(keep=("hard", "easy"))),
    "data_map": Rank(
        scores.data_map,
        needs=("p_true",),
        needs_by=lambda options: ("correct",) if options["by"] == "correctness" else ("p_true",),
        cost=_PER_EPOCH,
        check=words(by=("variability", "confidence", "correctness")),
    ),
    "moderate": Rank(
        centres.moderate,
        needs=("embeddings", "labels"),
        per_example=False,
        cost=Cost(lambda s: s.n * s.d, lambda s: 40 * s.n + 8 * s.c * s.d),
        check=words(median=("all", "class")),
    ),
    "ssl_prototypes": Rank(
        centres.ssl_prototypes,
        needs=("embeddings",),
        per_example=False,
        cost=Cost(lambda s: 30 * s.n * s.d * s.options.get("clusters", 10), lambda s: 100 * s.n, _rows),
        check=wholes(clusters=1),
    ),
    "given": Rank(scores.given, needs=("scores",), cost=Cost(lambda s: s.n)),
    "ccs": with_sampler("ccs", Rank(scores.low_aum, needs=("logit_margin",), cost=_PER_EPOCH), "strata")[1],
    "cluster_margin": with_sampler(
        "cluster_margin", Rank(scores.margin, needs=("probs",), cost=_PER_CLASS), "round_robin"
    )[1],
    "k_center": Cover(
        k_center.k_center,
        needs=("embeddings",),
        cost=Cost(
            # At worst n d (already + budget). Bounds spare most of it: measured on normal rows, n 4,000 to 400,000.
            lambda s: s.d * (2 * s.n + (s.n * s.budget) ** 0.7 + 4e-4 * s.n * s.already),
            _centres,
            at_worst=lambda s: float(s.n) * (s.already + s.budget) * s.d,
        ),
        check=k_center.check,
    ),
    "typiclust": Cover(
        typiclust.typiclust,
        needs=("embeddings",),
        # 30 passes of k-means, then neighbours within clusters alike in size.
        cost=Cost(lambda s: 30 * s.n * _clusters(s) * s.d + _pairs(s) / _clusters(s), lambda s: 100 * s.n, _rows),
        check=wholes(max_clusters=1),
    ),
    "probcover": Cover(
        probcover.probcover,
        needs=("embeddings",),
        cost=Cost(_pairs, lambda s: 20 * s.n + _centres(s), lambda s: _rows(s) + 4.0 * s.n * s.n),
        check=probcover.check,
    ),
    "seals": Cover(
        seals.seals,
        needs=("probs", "embeddings"),
        cost=Cost(
            lambda s: s.n * (s.c + s.already * s.d),
            lambda s: 30 * s.n + 16 * s.options.get("n_neighbors", 100) * s.already,
            _rows,
        ),
        check=seals.check,
        fixed_order=True,
    ),
    "d2": Cover(
        d2.d2,
        needs=("scores", "embeddings"),
        scored_by=Rank(scores.forgetting, needs=("correct",)),
        cost=Cost(_pairs, lambda s: (200 + 32 * s.options.get("n_neighbors", 10)) * s.n, _rows),
        check=d2.check,
    ),
    "facility_location": Cover(
        submodular.facility_location,
        needs=("similarity",),
        cost=Cost(
            lambda s: _stored(s) + (1 if s.entries else 6) * _pairs(s),
            lambda s: 28 * s.n * s.d + 200 * s.n + submodular.stored_bytes(s),
            submodular.room,
        ),
        check=_kernels,
    ),
    "graph_cut": Cover(
        submodular.graph_cut,
        needs=("similarity",),
        cost=Cost(
            lambda s: _stored(s) + _pairs(s) + (s.already + s.budget) * s.n * s.d,
            lambda s: 16 * s.n * s.d + 30 * s.n + submodular.stored_bytes(s),
            lambda s: submodular.finding(s) if s.entries else 4.0 * s.n * s.n + (64 << 20),
        ),
        check=_graph_cut,
    ),
    "herding": Cover(
        herding.herding,
        needs=("embeddings",),
        cost=Cost(lambda s: s.budget * s.n * s.d, lambda s: 60 * s.n, herding.room),
    ),
    "badge": Cover(
        badge.badge,
        needs=("probs", "embeddings"),
        cost=Cost(
            lambda s: s.budget * s.n * (s.c + s.d),
            lambda s: 110 * s.n + 8 * (s.already + s.budget) * (s.c + s.d) + 8000 * (s.c + s.d + 3000),
        ),
    ),
}


def find_method(method: str | Callable[..., Any]) -> tuple[str, Method]:
    """The name that records use, and the row: from the table, from "package.module:function", or made of a function."""
    if callable(method):
        return path_of(method), method_of(method)
    _check_name("method", method)
    if method in METHODS:
        return method, METHODS[method]
    if ":" in method:
        return method, method_of(resolve(method))
    raise UnknownName("method", method, METHODS, hint="svp list methods")
