"""What a choice will take: from formulas and a few examples, never by making the choice."""

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import svp
from svp.errors import BudgetError, DataError, SvpError, UnknownName
from svp.select import METHODS, SAMPLERS, Cost, Rank
from svp.select import forecast as forecasts
from svp.select.table import Shape

RNG = np.random.default_rng(0)
N = 3000
ARRAYS: dict[str, Any] = {
    "probs": RNG.dirichlet(np.ones(3), N),
    "embeddings": RNG.normal(size=(N, 4)),
    "labels": np.arange(N) % 3,
    "signals": {
        "correct": RNG.integers(0, 2, (5, N)).astype(np.uint8),
        **{kind: RNG.random((5, N)) for kind in ("p_true", "logit_margin", "el2n")},
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_every_formula_gives_numbers(name: str) -> None:
    scores = {"scores": RNG.random(N)} if "scores" in METHODS[name].reads else {}
    expected = svp.forecast(name, "10%", **ARRAYS, **scores)
    assert expected.seconds is not None
    assert expected.seconds > 0
    assert expected.bytes is not None
    assert expected.bytes > N


def test_what_the_data_may_spare_is_bounded_by_what_they_may_not() -> None:
    """k-center takes any time up to that of all products; where it grows, so does the bound, in proportion."""
    x = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    few, many = (svp.forecast("k_center", budget, embeddings=x) for budget in (40, 4000))
    assert few.seconds is not None
    assert few.at_worst is not None
    assert many.at_worst is not None
    assert few.at_worst >= few.seconds
    assert many.at_worst > few.at_worst
    assert svp.forecast("margin", "10%", probs=ARRAYS["probs"]).at_worst is None


def test_a_forecast_looks_at_few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def slow(probs: Any) -> Any:
        seen.append(len(probs))
        return probs[:, 0]

    clock = iter(range(1000))
    # Every look at the clock takes a second.
    monkeypatch.setattr(forecasts, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setitem(METHODS, "slow", Rank(slow, cost=Cost(lambda s: s.n)))
    expected = svp.forecast("slow", 10, probs=np.full((100_000, 2), 0.5))
    assert max(seen) < 2000
    assert expected.seconds is not None


def test_time_grows_with_the_formula_not_with_what_every_call_takes() -> None:
    assert forecasts.extended([(100, 2.0), (200, 3.0)], 1000) == pytest.approx(11.0)
    assert forecasts.extended([(100, 2.0)], 1000) == pytest.approx(20.0)
    assert forecasts.extended([(100, 2.0), (200, 1.5)], 1000) == pytest.approx(7.5)  # luck: the larger one was faster
    assert forecasts.extended([(100, 1.0), (110, 3.0)], 11) == pytest.approx(0.3)  # bad luck: no time is below 0


def test_pieces_are_distinct_rows_of_the_whole_array() -> None:
    for n in (256, 257, 300, 1000, 12345):
        rows = forecasts._rows(n, 256)
        assert len(np.unique(rows)) == 256
        assert rows.min() == 0
        assert rows.max() == n - 1


def test_what_makes_a_choice_impossible_makes_a_forecast_so() -> None:
    with pytest.raises(UnknownName):
        svp.forecast("margn", 10, **ARRAYS)
    with pytest.raises(BudgetError):
        svp.forecast("margin", N + 1, **ARRAYS)
    assert svp.forecast("forgetting", 10, probs=ARRAYS["probs"]).seconds is None  # select says what is missing


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok", "list"])
@pytest.mark.parametrize("n", [20, 400])
def test_a_similarity_comes_as_any_matrix(kind: str, n: int) -> None:
    matrix = np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    given = matrix.tolist() if kind == "list" else scipy.sparse.csr_array(matrix).asformat(kind)
    assert svp.forecast("facility_location", 3, similarity=given).seconds is not None


def test_memory_is_foreseen_within_a_factor() -> None:
    big = {"embeddings": RNG.normal(size=(60_000, 4)).astype(np.float32)}
    expected = svp.forecast("k_center", 100, **big).bytes
    tracemalloc.start()
    svp.select("k_center", 100, **big)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected is not None
    assert peak / 3 < expected < peak * 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_sampler_takes_is_foreseen(sampler: str) -> None:
    big = {"probs": RNG.dirichlet(np.ones(3), 60_000), "embeddings": RNG.normal(size=(60_000, 2))}
    few = {name: values[:50] for name, values in big.items()}
    svp.select("margin", 5, **few, sampler=sampler)  # imports are not what is measured
    expected = svp.forecast("margin", 300, **big, sampler=sampler).bytes
    tracemalloc.start()
    svp.select("margin", 300, **big, sampler=sampler)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected is not None
    assert peak / 1.2 < expected < peak * 3


@pytest.mark.parametrize(
    ("method", "less", "more"),
    [
        ("d2", {"n_neighbors": 10}, {"n_neighbors": 100}),
        ("seals", {"n_neighbors": 10}, {"n_neighbors": 100}),
        ("cluster_margin", {"pool": 2}, {"pool": 5}),
    ],
)
def test_a_forecast_knows_the_options(method: str, less: dict[str, Any], more: dict[str, Any]) -> None:
    given = {"already": np.arange(100)}
    low, high = (svp.forecast(method, 100, **ARRAYS, **given, **options).bytes for options in (less, more))
    assert low is not None
    assert high is not None
    assert low < high
    assert svp.forecast(method, 100, **ARRAYS, **given, no_option=1).bytes is None  # select says so


@pytest.mark.parametrize(("n", "memory"), [(1_500, "1GB"), (3_000, "64MB")])
def test_memory_of_covering_is_foreseen_whether_all_entries_are_held_or_not(n: int, memory: str) -> None:
    points = np.maximum(RNG.normal(size=(10, 32))[RNG.integers(10, size=n)] + RNG.normal(size=(n, 32)), 0)
    expected = svp.forecast("facility_location", 100, embeddings=points, memory=memory).bytes
    tracemalloc.start()
    svp.select("facility_location", 100, embeddings=points, memory=memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected is not None
    assert peak / 3 < expected < peak * 10


def entries_at(n: int, in_row: int) -> scipy.sparse.csr_array:
    """(n, n) so many of each row, the last twice as often: not symmetric."""
    columns = np.sort(np.argsort(RNG.random((n, 4 * in_row)), axis=1)[:, :in_row] * (n // (4 * in_row)), axis=1)
    return scipy.sparse.csr_array((RNG.random(n * in_row), columns.ravel(), np.arange(n + 1) * in_row), shape=(n, n))


@pytest.mark.parametrize("method", ["facility_location", "graph_cut"])
@pytest.mark.parametrize("kind", ["neighbors", "csr", "coo", "csr with neighbors"])
def test_memory_of_similarities_that_are_stored_is_foreseen(method: str, kind: str) -> None:
    n = 3_000
    arguments: dict[str, Any] = {"already": np.arange(40), "memory": "8MiB"}
    if kind == "neighbors":
        arguments |= {"embeddings": RNG.normal(size=(n, 4)), "neighbors": 150}
    else:
        form, *few = kind.split(" ")
        arguments |= {"similarity": entries_at(n, 200).asformat(form), "neighbors": 30 if few else None}
    for few_rows in ({"embeddings": RNG.normal(size=(50, 4))}, {"similarity": entries_at(50, 9)}):
        svp.select(method, 5, **few_rows, neighbors=5, already=[3])  # imports are not what is measured
    expected = svp.forecast(method, 50, **arguments).bytes
    tracemalloc.start()
    svp.select(method, 50, **arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected is not None
    assert peak < 1.1 * expected, peak / expected
    assert expected < 2 * peak, peak / expected


def test_what_select_holds_itself_is_not_given_away_again() -> None:
    """Neither to a set method, nor to a ranking, nor to a sampler."""
    given: list[int] = []

    def cover(embeddings: Any, already: Any, candidates: Any, budget: int, *, memory: int) -> Any:
        given.append(memory)
        return candidates[:budget]

    def rank(embeddings: Any, *, memory: int) -> Any:
        given.append(memory)
        return embeddings[:, 0]

    def sampler(scores: Any, already: Any, candidates: Any, budget: int, *, memory: int) -> Any:
        given.append(memory)
        return candidates[:budget]

    cover.kind, rank.needs = "cover", "embeddings"  # type: ignore[attr-defined]
    n, memory = 100_000, 16 << 20
    arguments = {"embeddings": RNG.normal(size=(n, 2)), "memory": memory}
    svp.select(cover, 5, **arguments)
    svp.select(rank, 5, **arguments, sampler=sampler)
    assert len(given) == 3
    assert all(memory / 4 < bytes_ <= memory - 44 * n for bytes_ in given)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("herding", {"n": 20_000, "d": 150, "memory": "64MB"}),
        ("herding", {"n": 20_000, "d": 50, "memory": "64MB"}),
        ("herding", {"n": 20_000, "d": 50, "memory": "16MB"}),
        ("stratified_random", {"n": 100_000, "d": 1, "budget": 1000}),
        ("facility_location", {"n": 2_500, "d": 100, "memory": "32MB"}),
        ("typiclust", {"n": 6_000, "d": 8, "memory": "2MB", "budget": 1}),
        ("probcover", {"n": 3_000, "d": 8, "memory": "4MB", "radius": 1.0}),
    ],
)
def test_a_choice_takes_no_more_than_foreseen(method: str, arguments: dict[str, Any]) -> None:
    n, d, budget = (arguments.get(name, 20) for name in ("n", "d", "budget"))
    how = {name: value for name, value in arguments.items() if name not in ("n", "d", "budget")}
    given = {"embeddings": RNG.normal(size=(n, d)).astype(np.float32), "labels": np.arange(n) % 7}
    svp.select(method, 5, **{name: values[:50] for name, values in given.items()}, **how)
    expected = svp.forecast(method, budget, **given, **how).bytes
    tracemalloc.start()
    svp.select(method, budget, **given, **how)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected is not None
    assert peak < 1.1 * expected, peak / expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scores": np.float64(3.0)}, r"scores: shape \(\)"),
        ({"scores": np.ones(4), "costs": np.ones((4, 2))}, r"costs: shape \(4, 2\)"),
        ({"scores": np.ones(4), "costs": ["a", "b", "c", "d"]}, "costs: values that are no numbers"),
        ({"scores": np.ones(4), "costs": [1, 2, 3, np.nan]}, "costs: 1 examples"),
        ({"scores": np.ones(4), "ids": range(3)}, "differ in the number of examples"),
        ({"signals": {"correct": np.ones((2, 3, 4))}}, "correct: shape"),
    ],
)
def test_arrays_that_cannot_be_chosen_from_are_refused_as_by_select(arguments: dict[str, Any], words: str) -> None:
    method = "forgetting" if "signals" in arguments else "given"
    for call in (svp.forecast, svp.select):
        with pytest.raises(DataError, match=words):
            call(method, 2, **arguments)


def test_what_goes_on_as_k_center_holds_what_k_center_holds() -> None:
    sizes = Shape(n=1000, d=500, budget=900, already=50)
    own, its = METHODS["probcover"].cost, METHODS["k_center"].cost
    assert own is not None
    assert its is not None
    assert own.bytes(sizes) > its.bytes(sizes)


def test_a_forecast_reads_few_entries_of_a_matrix() -> None:
    similarity = np.broadcast_to(
        np.float32(1), (100_000, 100_000)
    )  # one number: as large as a mapped file, and nothing to read
    svp.forecast("graph_cut", 5, similarity=similarity[:99, :99])
    tracemalloc.start()
    svp.forecast("graph_cut", 5, similarity=similarity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 256 * 100_000


def test_trials_stay_within_the_memory_however_fast_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "_SECONDS", 60.0)  # as if a trial of all examples took next to nothing
    probs = np.full((200_000, 100), np.float32(0.01))
    svp.forecast("margin", 5, probs=probs[:99])
    tracemalloc.start()
    svp.forecast("margin", 5, probs=probs, memory="64MB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000


def test_a_method_that_takes_what_it_may_is_foreseen_to_take_no_more() -> None:
    for method in ("facility_location", "typiclust", "d2", "ssl_prototypes"):
        expected = svp.forecast(method, 5, **{k: v for k, v in ARRAYS.items() if k != "labels"}, memory="64MB").bytes
        assert expected is not None
        assert expected <= 64_000_000


@settings(deadline=None, derandomize=True, max_examples=100)
@given(data=st.data(), n=st.integers(1, 40), n_classes=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_method_begins_again_at_most_as_often_as_foreseen(
    data: st.DataObject, n: int, n_classes: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(-1, n_classes, size=n)
    numbers = st.integers(0, 6)
    limit = numbers | st.dictionaries(st.integers(0, max(0, labels.max())), numbers)
    kinds = [st.fixed_dictionaries({}, optional={"min": limit, "max": limit}).filter(bool)]
    if (labels >= 0).all():
        kinds.append(st.fixed_dictionaries({"share": st.sampled_from(["equal", "natural"])}))
    arguments = {"labels": labels, "per_class": data.draw(st.one_of(kinds))}
    calls = []

    def in_order(labels: Any, already: Any, candidates: Any, budget: int) -> Any:
        calls.append(len(already))
        return candidates[:budget]

    in_order.kind, in_order.needs = "cover", "labels"  # type: ignore[attr-defined]
    budget = data.draw(st.integers(0, n))
    try:
        chosen = svp.select(in_order, budget, **arguments)
    except SvpError:  # limits that cannot be met
        return
    assert len(chosen) == budget
    assert len(calls) <= 1 + forecasts._restarts(arguments)


def test_a_forecast_under_limits_counts_the_restarts() -> None:
    free = svp.forecast("k_center", 600, **ARRAYS)
    limited = svp.forecast("k_center", 600, **ARRAYS, per_class={"max": 250})
    assert (free.restarts, limited.restarts) == (0, 3)
    assert limited.bytes > free.bytes  # type: ignore[operator]
    assert svp.forecast("margin", 600, **ARRAYS, per_class={"max": 250}).restarts == 0
    assert svp.forecast("margin", 600, **ARRAYS, per_class={"min": 1}, sampler="strata").restarts == 5
