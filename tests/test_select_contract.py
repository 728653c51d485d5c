"""What every method promises, run over every row of the table.

A row that is added is tested without a word here, but for an obvious example in OBVIOUS.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from svp.errors import BudgetError, DataError, MissingInput, SettingError, UnknownName
from svp.select import METHODS, SAMPLERS, Cover, Rank, Shape, find_method, inputs, score, select
from svp.select.docstrings import said

fixed = settings(deadline=None, derandomize=True, max_examples=10)  # for each of two dozen methods
every_method = pytest.mark.parametrize("method", METHODS)
every_ranking = pytest.mark.parametrize("method", [name for name, row in METHODS.items() if isinstance(row, Rank)])
every_per_example = pytest.mark.parametrize(
    "method", [name for name, row in METHODS.items() if isinstance(row, Rank) and row.per_example]
)
every_need = pytest.mark.parametrize(
    ("method", "need"), [(name, need) for name, row in METHODS.items() for need in row.reads]
)

Given = dict[str, Any]

# Similarities are made of embeddings here; tests/test_submodular.py gives matrices.
MET_BY = {"similarity": "embeddings"}

# Methods whose first k picks are not their answer for budget k; their docstrings say so.
NOT_NESTED = {"typiclust", "ccs", "cluster_margin"}


def array(need: str, n: int, rng: np.random.Generator, *, width: int = 4, dtype: Any = np.float32) -> NDArray[Any]:
    """Valid random values of what a method may need, with few distinct rows so that ties and near ties are common."""
    if need == "probs":
        return rng.dirichlet(np.full(width, 0.5), size=n).astype(dtype)
    if need == "embeddings":
        return rng.normal(size=(n, width)).round(1).astype(dtype)
    if need == "labels":
        return rng.integers(min(3, width), size=n)
    if need == "scores":
        return rng.normal(size=n).round(1).astype(dtype)
    if need == "correct":
        return rng.choice(np.array([0, 1, 255], np.uint8), size=(6, n))
    return rng.normal(size=(6, n)).astype(dtype)


def given_to(method: str, n: int, seed: int = 0, **how: Any) -> Given:
    """Arguments of `select` for n random examples."""
    rng = np.random.default_rng(seed)
    needs = [MET_BY.get(need, need) for need in METHODS[method].reads]
    return as_arguments({need: array(need, n, rng, **how) for need in needs}, np.arange(n) * 3 + 5)


def as_arguments(arrays: dict[str, NDArray[Any]], ids: NDArray[np.int64]) -> Given:
    own = {need: values for need, values in arrays.items() if need in inputs.NO_SIGNAL}
    return {**own, "signals": {need: values for need, values in arrays.items() if need not in own}, "ids": ids}


def rows(arguments: Given, pos: Any) -> Given:
    """The same arguments for the examples at `pos`."""
    return {
        name: {kind: signal[:, pos] for kind, signal in values.items()} if name == "signals" else values[pos]
        for name, values in arguments.items()
    }


def equal(method: str, n: int) -> Given:
    """n times the same example."""
    return {**rows(given_to(method, 1), np.zeros(n, np.int64)), "ids": np.arange(n)}


# A set of examples in which one has to go first, and its id.
OBVIOUS: dict[str, Callable[[], tuple[Given, int]]] = {
    "random": lambda: ({"ids": [4, 5, 6]}, [4, 5, 6][int(score("random", ids=[4, 5, 6]).argmax())]),
    "least_confidence": lambda: ({"probs": [[0.9, 0.1, 0], [0.4, 0.3, 0.3], [0.5, 0.5, 0]]}, 1),
    "margin": lambda: ({"probs": [[0.9, 0.1, 0], [0.4, 0.3, 0.3], [0.5, 0.5, 0]]}, 2),
    "entropy": lambda: ({"probs": [[1, 0, 0], [0.9, 0.1, 0], [0.3, 0.3, 0.4]]}, 2),
    "forgetting": lambda: (
        {"signals": {"correct": np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 1]], np.uint8)}},
        1,
    ),
    "stratified_random": lambda: ({"labels": [0, 0, 0, 1], "already": [0, 1]}, 3),
    "el2n": lambda: ({"signals": {"el2n": [[0.1, 1.4, 0.5], [0.1, 1.2, 0.2]]}}, 1),
    "grand": lambda: (
        {"probs": [[1, 0], [0.2, 0.8], [0.2, 0.8]], "embeddings": [[9.0], [1], [2]], "labels": [0, 0, 0]},
        2,
    ),
    "aum": lambda: ({"signals": {"logit_margin": [[5.0, -3, 1], [6, 1, 1]]}}, 1),
    "data_map": lambda: (
        {"signals": {"p_true": [[0.9, 0.1, 0.1], [0.9, 0.8, 0.2]]}},
        1,
    ),
    "moderate": lambda: ({"embeddings": [[-6.0], [-1], [0], [2], [5]], "labels": np.zeros(5, int)}, 3),
    "ssl_prototypes": lambda: ({"embeddings": [[0.0], [0.1], [5], [0.2]], "clusters": 1}, 2),
    "given": lambda: ({"scores": [1, 7, 3]}, 1),
    "ccs": lambda: ({"signals": {"logit_margin": [[5.0, -3], [6, 1]]}, "drop": 0.5}, 0),
    "cluster_margin": lambda: (
        {"probs": [[0.5, 0.5], [0.9, 0.1], [1, 0]], "embeddings": [[0.0], [1], [2]], "pool": 1},
        0,
    ),
    "k_center": lambda: ({"embeddings": [[0.0, 0], [0, 1], [9, 9], [1, 0]], "already": [0]}, 2),
    "facility_location": lambda: ({"embeddings": [[1, 0, 0], [1, 0.1, 0], [1, 0.2, 0], [0, 0, 1]]}, 1),
    "graph_cut": lambda: ({"embeddings": [[1, 0, 0], [1, 0.1, 0], [1, 0.2, 0], [0, 0, 1]]}, 1),
    "typiclust": lambda: ({"embeddings": [[0.0], [1.0], [3.0], [9.0], [2.1]]}, 4),
    "seals": lambda: (
        {"probs": [[1, 0], [0.9, 0.1], [0.5, 0.5]], "embeddings": [[0.0], [1], [9]], "already": [0], "n_neighbors": 1},
        1,
    ),
    "d2": lambda: (
        {"scores": [5.0, 1, 1, 1], "embeddings": [[50.0], [0], [1], [2]], "n_neighbors": 2, "gamma_f": 0.0},
        0,
    ),
    "probcover": lambda: ({"embeddings": [[9.0], [0.0], [0.9], [1.8], [9.5]], "radius": 1.0}, 2),
    "herding": lambda: ({"embeddings": [[-7.0], [0], [1], [9]]}, 2),
    "badge": lambda: ({"probs": [[1, 0], [0.5, 0.5], [0.9, 0.1]], "embeddings": [[1.0], [3], [1]]}, 1),
}


@every_method
def test_the_obvious_example_is_taken_first(method: str) -> None:
    arguments, first = OBVIOUS[method]()
    assert select(method, 1, **arguments).ids.tolist() == [first]


@every_method
@fixed
@given(data=st.data(), n=st.integers(0, 40), seed=st.integers(0, 5))
def test_a_selection_is_of_the_size_asked_without_repeats_or_what_was_ruled_out(
    method: str, data: st.DataObject, n: int, seed: int
) -> None:
    arguments = given_to(method, n, seed)
    ids = arguments["ids"].tolist()
    already = data.draw(st.lists(st.sampled_from(ids), unique=True) if ids else st.just([]))
    exclude = [
        i for i in data.draw(st.lists(st.sampled_from(ids), unique=True) if ids else st.just([])) if i not in already
    ]
    left = set(ids) - set(already) - set(exclude)
    budget = data.draw(st.integers(0, len(left)))
    chosen = select(method, budget, **arguments, already=already, exclude=exclude, seed=seed)
    assert len(chosen) == budget == len(set(chosen.ids.tolist()))
    assert set(chosen.ids.tolist()) <= left
    assert chosen.ids.dtype == np.int64
    assert chosen.gains.shape == chosen.weights.shape == (budget,)
    assert chosen.gains.dtype == chosen.weights.dtype == np.float64
    with pytest.raises(BudgetError, match=str(len(left))):
        select(method, len(left) + 1, **arguments, already=already, exclude=exclude)


def whole_options(method: str) -> list[str]:
    return [name for name, default in METHODS[method].options.items() if type(default) is int]


@pytest.mark.parametrize(("method", "option"), [(m, option) for m in METHODS for option in whole_options(m)])
def test_whole_options_may_be_numpys_and_are_nothing_else(method: str, option: str) -> None:
    arguments, default = given_to(method, 12), METHODS[method].options[option]
    own = select(method, 5, **arguments, **{option: default})
    assert select(method, 5, **arguments, **{option: np.int32(default)}).ids.tolist() == own.ids.tolist()
    for value in (True, float(default), str(default), -1):
        with pytest.raises(SettingError, match=f"{option}={value!r}"):
            select(method, 5, **arguments, **{option: value})


@every_method
@pytest.mark.parametrize("n", [0, 1, 7])
def test_budgets_from_nothing_to_everything(method: str, n: int) -> None:
    arguments = given_to(method, n)
    assert len(select(method, 0, **arguments)) == 0
    assert sorted(select(method, n, **arguments).ids) == sorted(arguments["ids"])
    assert sorted(select(method, 1.0, **arguments).ids) == sorted(arguments["ids"])
    if n:
        assert len(select(method, 1, **arguments)) == 1
    with pytest.raises(BudgetError, match=f"there are {n} candidates"):
        select(method, n + 1, **arguments)


@every_ranking
@fixed
@given(n=st.integers(0, 30), seed=st.integers(0, 9))
def test_scores_are_finite_and_the_highest_go_first(method: str, n: int, seed: int) -> None:
    arguments = given_to(method, n, seed)
    values = score(method, **arguments, seed=seed)
    assert values.shape == (n,)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    chosen = select(method, n // 2, **arguments, seed=seed)
    if METHODS[method].sampler is None:  # type: ignore[attr-defined]
        assert chosen.gains.tolist() == sorted(values.tolist(), reverse=True)[: n // 2]
    by_id = dict(zip(arguments["ids"].tolist(), values.tolist(), strict=True))
    assert chosen.gains.tolist() == [by_id[i] for i in chosen.ids.tolist()]


@every_method
@fixed
@given(
    n=st.integers(1, 40),
    seed=st.integers(0, 9),
    chunk=st.sampled_from([1, 7, 50]),
    tie_break=st.sampled_from(["hash", "id"]),
)
def test_the_order_of_rows_and_the_size_of_chunks_change_nothing(
    method: str, n: int, seed: int, chunk: int, tie_break: Any
) -> None:
    arguments = given_to(method, n, seed)
    already = arguments["ids"][: n // 4]
    budget = (n - len(already)) // 2
    order = np.random.default_rng(seed).permutation(n)
    first = select(method, budget, **arguments, already=already, seed=seed, tie_break=tie_break)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "CHUNK_NUMBERS", chunk)
        again = select(method, budget, **rows(arguments, order), already=already[::-1], seed=seed, tie_break=tie_break)
    assert again.ids.tolist() == first.ids.tolist()
    np.testing.assert_array_equal(again.gains, first.gains)  # to the last bit


@every_per_example
def test_scores_that_differ_only_by_rounding_do_not_depend_on_the_row(method: str) -> None:
    # The same float32 probabilities in every order of the classes: equal on paper, and equal or not in the last bit.
    rng = np.random.default_rng(0)
    arguments = given_to(method, 1, width=37)
    arguments = {**rows(arguments, np.zeros(150, np.int64)), "ids": np.arange(150)}
    if "probs" in arguments:
        arguments["probs"] = rng.permuted(arguments["probs"], axis=1)
    whole = score(method, **arguments)
    alone = np.concatenate([score(method, **rows(arguments, slice(i, i + 1))) for i in range(150)])
    backwards = score(method, **rows(arguments, slice(None, None, -1)))[::-1]
    columns = {**arguments, "probs": np.asfortranarray(arguments["probs"])} if "probs" in arguments else arguments
    assert whole.tolist() == alone.tolist() == backwards.tolist() == score(method, **columns).tolist()


@every_method
@fixed
@given(n=st.integers(2, 40), seed=st.integers(0, 9))
def test_a_smaller_budget_is_the_head_of_a_larger_one(method: str, n: int, seed: int) -> None:
    arguments = given_to(method, n, seed)
    whole = select(method, n, **arguments, seed=seed)
    for k in {1, n // 2, n - 1}:
        part = select(method, k, **arguments, seed=seed)
        assert method in NOT_NESTED or part.ids.tolist() == whole.ids[:k].tolist()


@every_method
def test_all_equal_examples_of_sorted_classes_leave_each_class_its_share(method: str) -> None:
    n, budget = 1000, 200
    classes = np.repeat(np.arange(4), n // 4)
    for seed in range(3):
        chosen = select(method, budget, **equal(method, n), seed=seed)
        share = np.bincount(classes[chosen.ids], minlength=4)
        # Hypergeometric: mean 50, standard deviation 5.5; 4.5 of them either way.
        assert (abs(share - 50) < 25).all(), (seed, share)


@every_method
def test_equal_examples_are_decided_by_the_seed(method: str) -> None:
    arguments = equal(method, 60)
    once, again, other = (select(method, 20, **arguments, seed=seed).ids.tolist() for seed in (1, 1, 2))
    assert once == again
    assert set(once) != set(other)


@pytest.mark.parametrize(
    ("method", "options"),
    [("stratified_random", {}), ("margin", {"sampler": "strata"}), ("margin", {"sampler": "round_robin"})],
)
def test_tie_break_decides_ties_alone(method: str, options: dict[str, Any]) -> None:
    """No scores tie here: of each class and bin some are drawn by chance, and clusters of two are cut by the budget."""
    rng = np.random.default_rng(0)
    arguments = {"probs": rng.dirichlet(np.ones(3), 60), "embeddings": np.repeat(rng.normal(size=(30, 2)), 2, axis=0)}
    arguments |= {"labels": np.arange(60) // 20, **options}
    by_hash, by_id = (select(method, 12, **arguments, tie_break=how).ids.tolist() for how in ("hash", "id"))
    assert by_id == by_hash


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"random", "stratified_random", "ccs", "cluster_margin"}))
def test_tie_break_by_id_takes_the_lower_id_of_equals(method: str) -> None:
    chosen = select(method, 20, **equal(method, 60), tie_break="id")
    level = np.flatnonzero(chosen.gains[1:] == chosen.gains[:-1])
    assert (chosen.ids[level] < chosen.ids[level + 1]).all()
    # In the graph of d2 equals have other equals for neighbours.
    if method != "d2":
        assert chosen.ids.tolist() == list(range(20))
    with pytest.raises(SettingError, match="tie_break"):
        select(method, 20, **equal(method, 60), tie_break="position")  # type: ignore[arg-type]


@every_method
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_same_values_in_another_precision_choose_the_same(method: str, dtype: Any) -> None:
    narrow = given_to(method, 50, dtype=dtype)
    wide = {
        name: values.astype(np.float64) if name != "signals" and values.dtype == dtype else values
        for name, values in narrow.items()
    }
    one, two = select(method, 20, **narrow), select(method, 20, **wide)
    assert one.ids.tolist() == two.ids.tolist()
    np.testing.assert_array_equal(one.gains, two.gains)


@every_method
def test_one_class_or_one_dimension_is_enough(method: str) -> None:
    arguments = given_to(method, 9, width=1)
    if "probs" in arguments:
        arguments["probs"] = np.ones((9, 1))
    assert len(set(select(method, 5, **arguments).ids.tolist())) == 5


@every_method
def test_repeated_examples_are_examples_like_others(method: str) -> None:
    arguments = {**rows(given_to(method, 10), np.repeat(np.arange(10), 3)), "ids": np.arange(30)}
    assert sorted(select(method, 30, **arguments).ids) == list(range(30))
    if isinstance(METHODS[method], Rank) and method != "random":
        values = score(method, **arguments).reshape(10, 3)
        assert (values == values[:, :1]).all()


@every_ranking
def test_probabilities_of_0_and_1_are_scored_like_others(method: str) -> None:
    arguments = given_to(method, 8)
    if "probs" in arguments:
        arguments["probs"] = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
        arguments["probs"][5] = 0.25
        # Seven examples certain of their own class, and one that could be anything.
        if "labels" in arguments:
            arguments["labels"] = arguments["probs"].argmax(axis=1)
        assert score(method, **arguments).argmax() == 5
    assert np.isfinite(score(method, **arguments)).all()


@every_method
def test_probabilities_of_0_and_1_are_chosen_from_like_others(method: str) -> None:
    arguments = given_to(method, 8)
    if "probs" in arguments:
        arguments["probs"] = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    chosen = select(method, 8, **arguments)
    assert sorted(chosen.ids) == sorted(arguments["ids"])
    assert not np.isinf(chosen.gains).any()


def near_ties(method: str, n: int) -> Given:
    """A few distinct examples, each many times, in float64 and apart in the last bits."""
    rng = np.random.default_rng(7)

    def blurred(values: NDArray[Any], axis: int) -> NDArray[Any]:
        same = values.take(rng.integers(0, 5, size=n), axis)
        return same * (1 + rng.integers(-2, 3, size=same.shape) * 2.0**-52) if same.dtype.kind == "f" else same

    arguments = given_to(method, n, dtype=np.float64, width=5)
    signals = {kind: blurred(signal, 1) for kind, signal in arguments["signals"].items()}
    own = {name: blurred(values, 0) for name, values in arguments.items() if name not in ("signals", "ids")}
    return {**own, "signals": signals, "ids": arguments["ids"]}


@every_method
def test_near_ties_are_decided_alike_whatever_rows_threads_memory_and_layout(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 150
    arguments = near_ties(method, n)
    already, order = arguments["ids"][:9], np.random.default_rng(1).permutation(n)
    first = select(method, 40, **arguments, already=already)

    def check(**changed: Any) -> None:
        again = select(method, 40, **{**arguments, "already": already, **changed})
        assert again.ids.tolist() == first.ids.tolist()
        np.testing.assert_array_equal(again.gains, first.gains)

    check(**rows(arguments, order))
    check(memory="1MiB")
    check(**{k: np.asfortranarray(v) for k, v in arguments.items() if k not in ("signals", "ids")})
    monkeypatch.setattr(inputs, "CHUNK_NUMBERS", 64)
    for threads in (1, 3):
        monkeypatch.setattr("svp.machine.n_cores", lambda threads=threads: threads)
        with threadpool_limits(threads):
            check()


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.reads])
def test_the_docstring_says_whether_a_smaller_budget_is_the_head(method: str) -> None:
    returns = said(METHODS[method], "returns").lower()
    assert ("first k are not the answer" in returns) == (method in NOT_NESTED)
    if isinstance(METHODS[method], Cover) and method not in NOT_NESTED:
        assert "first k are the answer" in returns


@pytest.mark.parametrize("sampler", SAMPLERS)
@fixed
@given(n=st.integers(0, 40), seed=st.integers(0, 9), data=st.data())
def test_a_sampler_keeps_what_methods_promise(sampler: str, n: int, seed: int, data: st.DataObject) -> None:
    arguments = given_to("grand", n, seed)
    how: Any = {
        "sampler": sampler,
        "seed": seed,
        "already": arguments["ids"][: n // 4],
        "exclude": arguments["ids"][n - n // 5 :],
    }
    left = n - n // 4 - n // 5
    budget = data.draw(st.integers(0, left))
    own = {**arguments, "scores": array("scores", n, np.random.default_rng(seed))}
    chosen = select("given", budget, **own, **how)
    assert len(set(chosen.ids.tolist())) == budget
    assert set(chosen.ids.tolist()) <= set(arguments["ids"][n // 4 : n - n // 5].tolist())
    order = np.random.default_rng(seed).permutation(n)
    again = select("given", budget, **rows(own, order), **how)
    assert again.ids.tolist() == chosen.ids.tolist()
    with pytest.raises(BudgetError, match=f"there are {left} candidates"):
        select("given", left + 1, **own, **how)


@every_need
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_cannot_be_are_counted_and_named(
    method: str, need: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = given_to(method, 50, dtype=np.float64)
    need = MET_BY.get(need, need)
    values = arguments["signals"][need] if need in arguments["signals"] else arguments[need]
    bad = values.astype(np.float64) if need == "labels" else values.copy()
    at = np.array([3, 4, 41, 45])
    if bad.dtype == np.uint8:
        bad[1, at] = 7
    else:
        # Signals that are floats may have holes, but nothing infinite.
        hole = np.inf if need in arguments["signals"] else value
        bad[(1, at) if need in arguments["signals"] else (at, 0) if bad.ndim == 2 else at] = hole
    signals = arguments["signals"]
    broken = {**arguments, "signals": {**signals, need: bad}} if need in signals else {**arguments, need: bad}
    ids = arguments["ids"][at][:3].tolist()
    for chunk in (5, 1 << 20):
        monkeypatch.setattr(inputs, "CHUNK_NUMBERS", chunk)
        with pytest.raises(DataError) as caught:
            select(method, 5, **broken)
        assert need in str(caught.value)
        assert "4 examples" in str(caught.value)
        assert str(ids) in str(caught.value)


@every_need
def test_what_a_method_needs_is_asked_for(method: str, need: str) -> None:
    arguments = given_to(method, 5)
    signals = {kind: signal for kind, signal in arguments["signals"].items() if kind != need}
    without = {
        **arguments,
        "signals": signals,
        **({} if need in arguments["signals"] else {MET_BY.get(need, need): None}),
    }
    with pytest.raises(MissingInput, match=f"{method}.*{need}"):
        select(method, 2, **without)


@every_method
def test_an_option_it_does_not_have_is_refused(method: str) -> None:
    with pytest.raises(SettingError, match="no option 'strat'"):
        select(method, 2, **given_to(method, 5), strat=3)


@every_method
def test_the_record_has_every_option_and_what_decided(method: str) -> None:
    chosen = select(method, 2, **given_to(method, 5), seed=7, tie_break="id")
    assert (chosen.method, chosen.seed, chosen.tie_break) == (method, 7, "id")
    assert chosen.options == METHODS[method].options


@every_method
def test_a_row_says_what_it_is_in_one_line(method: str) -> None:
    row = METHODS[method]
    assert 20 < len(row.summary) < 110
    assert row.summary.endswith(".")
    assert (row.function.__doc__ or "").count("cost ") == 1
    assert isinstance(row, Rank | Cover)


@pytest.mark.parametrize("method", ["moderate", "ssl_prototypes"])
def test_a_score_by_all_examples_does_not_copy_them(method: str) -> None:
    n, d = 20_000, 128
    arguments: dict[str, Any] = {"embeddings": np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)}
    arguments |= {"labels": np.arange(n) % 9} if method == "moderate" else {"clusters": 1, "memory": "1MiB"}
    few = {name: value[:99] if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    select(method, 1, **few, exclude=[3])  # imports are not what is measured
    tracemalloc.start()
    select(method, 1, **arguments, exclude=[3])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < arguments["embeddings"].nbytes / 2


@every_per_example
def test_a_score_streams_over_an_array_on_disk(method: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 100_000
    arguments = given_to(method, n)
    if arguments["signals"] or len(arguments) > 2:
        mapped = {}
        for name, values in ({**arguments, **arguments["signals"]}).items():
            if name not in ("ids", "signals"):
                np.save(tmp_path / f"{name}.npy", values)
                mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        arguments = as_arguments(mapped, arguments["ids"])
    monkeypatch.setattr(inputs, "CHUNK_NUMBERS", 1 << 12)
    score(method, **rows(arguments, slice(0, 9)))  # imports are not what is measured
    tracemalloc.start()
    values = score(method, **arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(values) == n
    # The scores, the ids' check (two rows of n) and masks; a float64 copy of four columns would be four rows more.
    assert peak < 3.5 * 8 * n, peak / n


def test_names_outside_the_table() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'least_confidence'.*svp list methods"):
        select("least_confidance", 1, ids=[1, 2])
    with pytest.raises(SettingError, match="cannot be imported"):
        select("no_such_module:function", 1, ids=[1, 2])
    with pytest.raises(UnknownName, match="name in math"):
        select("math:no_such_function", 1, ids=[1, 2])
    with pytest.raises(SettingError, match="not a function"):
        select("math:pi", 1, ids=[1, 2])


def gini(probs: NDArray[Any], *, power: float = 2.0) -> NDArray[Any]:
    """One minus the sum of squares."""
    return np.asarray(1 - (probs**power).sum(axis=1))


def last_ones(embeddings: NDArray[Any], already: Any, candidates: Any, budget: int) -> Any:
    return np.sort(candidates)[::-1][:budget]


last_ones.kind = "cover"  # type: ignore[attr-defined]


def test_a_function_of_ones_own_is_a_method() -> None:
    probs = [[1, 0], [0.5, 0.5], [0.8, 0.2]]
    assert select(gini, 2, probs=probs).ids.tolist() == [1, 2]
    assert select(gini, 1, probs=probs, power=3.0).options == {"power": 3.0}
    by_path = select(f"{__name__}:gini", 2, probs=probs)
    assert by_path.ids.tolist() == [1, 2]
    assert by_path.method == f"{__name__}:gini" == select(gini, 2, probs=probs).method
    chosen = select(last_ones, 2, embeddings=np.zeros((5, 1)), exclude=[4])
    assert chosen.ids.tolist() == [3, 2]
    assert np.isnan(chosen.gains).all()
    assert find_method(gini)[1].summary == "One minus the sum of squares."


def test_a_function_that_gives_nonsense_is_named() -> None:
    probs = np.full((4, 2), 0.5)
    with pytest.raises(DataError, match=r"2 scores that are not finite.*\[0, 1\]"):
        select(lambda probs: np.array([np.nan, np.inf, 1, 2]), 1, probs=probs)
    with pytest.raises(DataError, match="one number for each"):
        select(lambda probs: probs, 1, probs=probs)
    for wrong in ([0], [0, 0], [0, 3]):

        def choose(embeddings: Any, already: Any, candidates: Any, budget: int, wrong: Any = wrong) -> Any:
            return wrong

        choose.kind = "cover"  # type: ignore[attr-defined]
        with pytest.raises(DataError, match="2 distinct candidates"):
            select(choose, 2, embeddings=np.zeros((4, 1)), exclude=[3])


def test_what_would_not_be_read_beside_scores_or_similarities_is_refused() -> None:
    scores, probs = np.arange(12.0), np.full((12, 2), 0.5)
    with pytest.raises(SettingError, match="goes by no scores"):
        select("random", 3, scores=scores)
    with pytest.raises(SettingError, match="are made of probs; leave one of the two out"):
        select("margin", 3, probs=probs, scores=scores)
    with pytest.raises(SettingError, match="are made of probs; leave one of the two out"):
        score("margin", probs=probs, scores=scores)
    with pytest.raises(SettingError, match="similarity and embeddings"):
        select("facility_location", 3, similarity=np.eye(12), embeddings=probs)


def test_numbers_that_cannot_be_reckoned_with_are_refused() -> None:
    for method, more in (("d2", {"embeddings": np.zeros((4, 1))}), ("given", {"sampler": "strata"})):
        with pytest.raises(DataError, match="2 examples have values beyond 1e"):
            select(method, 2, scores=[1e308, -1e308, 0, 1], **more)


def test_options_of_scores_that_are_there_already_are_refused() -> None:
    scores = np.arange(12.0)
    with pytest.raises(SettingError, match="keep='easy' is for the scores of method 'aum'"):
        select("aum", 5, scores=scores, keep="easy")
    assert select("aum", 5, scores=scores, keep="hard").ids.tolist() == [11, 10, 9, 8, 7]
    assert select("ccs", 5, scores=scores, drop=0.5).ids.max() < 6  # the sampler uses its own

    def power(probs: Any, *, p: int) -> Any:
        return (probs**p).sum(axis=1)

    assert select(power, 2, scores=scores, p=3).ids.tolist() == [11, 10]  # it has to be named


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if "similarity" not in row.reads])
def test_a_similarity_that_nobody_reads_is_refused(method: str) -> None:
    with pytest.raises(SettingError, match=f"similarity: method '{method}' compares no examples"):
        select(method, 2, **given_to(method, 5), similarity=np.eye(5))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, MissingInput, "pass ids="),
        ({"ids": [1, 2, 2]}, DataError, r"1 ids are repeated, the first: \[2\]"),
        ({"ids": [0.5, 1.0]}, DataError, "whole numbers"),
        ({"ids": [1, 2, 3], "probs": [[1.0]]}, DataError, "probs 1, ids 3"),
        ({"ids": [1, 2], "already": [2, 9]}, DataError, r"already: 1 ids are not among the examples, the first: \[9\]"),
        ({"ids": [1, 2], "exclude": [[2]]}, DataError, "flat list"),
        (
            {"ids": [1, 2], "exclude": [2], "already": [1, 2]},
            SettingError,
            r"1 ids are in already and in exclude.*\[2\]",
        ),
        ({"ids": [1, 2], "seed": 0.5}, SettingError, "seed"),
        ({"ids": [1, 2], "labels": [0, -2]}, DataError, "labels: 1 examples"),
        ({"ids": [1, 2], "labels": np.array(["a", 1], object)}, DataError, "not numbers"),
        ({"ids": [1, 2], "probs": [0.5, 0.5]}, DataError, r"give \(n, classes\)"),
        ({"ids": [1, 2], "embeddings": np.zeros((2, 0))}, DataError, "no columns"),
        ({"ids": [1, 2], "signals": {"probs": [[1, 1]]}}, SettingError, "cannot be called"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Given, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        select("random", 1, **arguments)


@pytest.mark.parametrize(
    ("row", "ok"), [([0.5, 0.504], True), ([0.5, 0.52], False), ([1.5, -0.5], False), ([0, 0], False)]
)
def test_probabilities_are_probabilities(row: list[float], ok: bool) -> None:
    probs = np.array([[0.5, 0.5], row])
    if ok:
        assert np.isfinite(score("entropy", probs=probs)).all()
    else:
        with pytest.raises(DataError, match=r"probs: 1 examples have values that are no probabilities.*ids: \[1\]"):
            score("entropy", probs=probs)


@every_need
def test_a_mask_is_never_dropped(method: str, need: str) -> None:
    arguments = given_to(method, 30)
    need = MET_BY.get(need, need)
    home = arguments["signals"] if need in arguments["signals"] else arguments
    hidden = np.zeros(home[need].shape, bool)
    hidden.flat[[1, 5]] = True
    expected = select(method, 5, **arguments).ids.tolist()
    home[need] = np.ma.array(home[need], mask=False)
    assert select(method, 5, **arguments).ids.tolist() == expected  # nothing is masked
    home[need] = np.ma.array(home[need], mask=hidden)
    with pytest.raises(DataError, match=f"{need}: 2 values are masked"):
        select(method, 5, **arguments)


@pytest.mark.parametrize("name", ["ids", "already", "exclude", "costs", "scores", "similarity"])
def test_no_other_argument_loses_its_mask(name: str) -> None:
    shape = (4, 4) if name == "similarity" else 4
    masked = np.ma.masked_equal(np.arange(np.prod(shape)).reshape(shape), 2)
    with pytest.raises(DataError, match=f"{name}: 1 values are masked"):
        select("facility_location" if name == "similarity" else "given", 1, **{"scores": np.ones(4), name: masked})


def test_what_is_chosen_already_may_be_a_selection() -> None:
    arguments = given_to("margin", 30)
    first = select("margin", 5, **arguments)
    both = [select("margin", 5, **arguments, already=first), select("margin", 5, **arguments, exclude=first)]
    assert [one.ids.tolist() for one in both] == [select("margin", 10, **arguments).ids[5:].tolist()] * 2


@pytest.mark.parametrize("value", [None, 3, ["margin"], {"margin"}, b"margin"])
@pytest.mark.parametrize("call", [select, score])
def test_a_method_of_the_wrong_type_is_named(call: Callable[..., Any], value: Any) -> None:
    budget = (1,) if call is select else ()
    with pytest.raises(SettingError, match=r"method=.*; give a name.* or a function"):
        call(value, *budget, ids=[1, 2])


@pytest.mark.parametrize("value", [3, ["top"], b"top"])
def test_a_sampler_of_the_wrong_type_is_named(value: Any) -> None:
    with pytest.raises(SettingError, match=r"sampler=.*; give a name.* or a function"):
        select("margin", 1, probs=[[0.5, 0.5]], sampler=value)


@pytest.mark.parametrize("value", [3, [[1, 0]], np.ones((2, 3)), {0: [[1]]}])
@pytest.mark.parametrize("call", [select, score])
def test_signals_of_the_wrong_type_are_named(call: Callable[..., Any], value: Any) -> None:
    budget = (1,) if call is select else ()
    with pytest.raises(SettingError, match=r"signals: .*; give a mapping from kinds"):
        call("forgetting", *budget, signals=value)


def test_a_set_method_has_no_scores() -> None:
    with pytest.raises(SettingError, match="chooses sets"):
        score("k_center", embeddings=[[0.0]])


def test_select_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, svp.select; sys.exit(any(m in sys.modules for m in ('torch', 'pyarrow', 'pandas', 'sklearn', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_can_be_called() -> None:
    import svp
    import svp.select

    assert svp.select("random", 2, ids=[1, 2, 3]).ids.tolist() == select("random", 2, ids=[1, 2, 3]).ids.tolist()


def test_what_is_excluded_takes_no_part() -> None:
    # Never shown, far off, without a label: none of it matters for what is excluded.
    unseen = np.array([[0.1, np.nan, 0.3], [0.2, np.nan, 0.1]])
    assert select("el2n", 1, signals={"el2n": unseen}, exclude=[1]).ids.tolist() == [2]
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(30, 3)), rng.integers(2, size=30)
    for method in ("moderate", "ssl_prototypes"):
        first = select(method, 5, embeddings=embeddings[:-1], labels=labels[:-1])
        far = np.vstack([embeddings[:-1], np.full(3, 1e6)])
        again = select(method, 5, embeddings=far, labels=[*labels[:-1], -1], exclude=[29])
        assert again.ids.tolist() == first.ids.tolist()


def test_a_function_of_an_unknown_module_can_choose() -> None:
    def first(probs: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(probs[:, 0])

    first.__module__ = "made.of.nothing"
    assert find_method(first)[1].modules == {"made.of.nothing"}


@every_method
def test_memory_is_shared_between_what_a_method_holds_and_what_it_likes(method: str) -> None:
    cost = METHODS[method].cost
    assert cost is not None
    for memory in (1 << 22, 1 << 28, 1 << 34):
        small = Shape(n=200, c=3, d=4, n_epochs=5, budget=20, memory=memory)
        assert cost.bytes(small) < 1 << 25
        assert cost.peak(small) <= cost.bytes(small) + cost.left(small) <= max(memory, cost.bytes(small) + (1 << 22))
