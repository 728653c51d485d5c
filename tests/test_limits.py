"""Limits of class and cost: kept by every method, and the best choice of a ranking under them."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.errors import BudgetError, DataError, MissingInput, SettingError
from svp.select import METHODS, select
from tests import reference
from tests.test_select_contract import given_to, rows

fixed = settings(deadline=None, derandomize=True, max_examples=40)
few = settings(fixed, max_examples=10)  # for each of two dozen methods, which share what keeps the limits
every_method = pytest.mark.parametrize("method", METHODS)

FEW_SCORES = st.lists(st.integers(0, 3), min_size=1, max_size=7)


def with_labels(method: str, n: int, seed: int) -> dict[str, Any]:
    arguments = given_to(method, n, seed)
    arguments.setdefault("labels", np.random.default_rng(seed).integers(3, size=n))
    return arguments


@fixed
@given(data=st.data(), scores=FEW_SCORES)
def test_a_ranking_under_minimum_and_maximum_has_the_highest_total_there_is(data: st.DataObject, scores: Any) -> None:
    n = len(scores)
    labels = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    n_classes = labels.max() + 1
    low = {c: data.draw(st.integers(0, 2)) for c in range(n_classes)}
    high = {c: low[c] + data.draw(st.integers(0, 2)) for c in range(n_classes)}
    budget = data.draw(st.integers(0, n))

    def allowed(chosen: tuple[int, ...]) -> bool:
        counts = [sum(labels[i] == c for i in chosen) for c in range(n_classes)]
        return all(low[c] <= counts[c] <= high[c] for c in range(n_classes))

    totals = [sum(scores[i] for i in chosen) for chosen in combinations(range(n), budget) if allowed(chosen)]
    limits = {"min": low, "max": high}
    if totals:
        chosen = select("forgetting", budget, **history(scores), labels=labels, per_class=limits)
        assert allowed(tuple(chosen.ids.tolist()))
        assert chosen.gains.sum() == max(totals)
    else:
        with pytest.raises(BudgetError, match="per_class"):
            select("forgetting", budget, **history(scores), labels=labels, per_class=limits)


def history(scores: list[int]) -> dict[str, Any]:
    """Training histories with these numbers of forgetting events."""
    correct = np.array([[step % 2 == 0 or step > 2 * s for s in scores] for step in range(8)], np.uint8)
    return {"signals": {"correct": correct}}


@every_method
@few
@given(n=st.integers(1, 30), seed=st.integers(0, 9), low=st.integers(0, 2), spread=st.integers(0, 9))
def test_minimum_and_maximum_are_kept_by_every_method(method: str, n: int, seed: int, low: int, spread: int) -> None:
    arguments = with_labels(method, n, seed)
    ids, labels = arguments["ids"], arguments["labels"]
    already = ids[: n // 5]
    limits = {"min": low, "max": low + spread}
    try:
        chosen = select(method, n // 2, **arguments, already=already, per_class=limits, seed=seed)
    except BudgetError:  # that this is right where it happens is what the test above shows
        return
    assert len(set(chosen.ids.tolist())) == n // 2
    mine = np.isin(ids, [*chosen.ids, *already])
    counts = np.bincount(labels[mine], minlength=labels.max() + 1)
    given_already = np.bincount(labels[np.isin(ids, already)], minlength=labels.max() + 1)
    assert (counts[np.unique(labels)] >= low).all()
    assert (counts <= np.maximum(low + spread, given_already)).all()


@every_method
def test_limits_that_do_not_bind_change_nothing(method: str) -> None:
    arguments = with_labels(method, 20, 1)
    free = select(method, 8, **arguments)
    bound = select(method, 8, **arguments, per_class={"min": 0, "max": 20})
    assert bound.ids.tolist() == free.ids.tolist()
    np.testing.assert_array_equal(bound.gains, free.gains)


@every_method
@few
@given(n=st.integers(3, 30), seed=st.integers(0, 9), share=st.sampled_from(["equal", "natural"]))
def test_shares_are_met_to_the_nearest_whole_number(method: str, n: int, seed: int, share: str) -> None:
    arguments = with_labels(method, n, seed)
    labels = arguments["labels"]
    chosen = select(method, n // 2, **arguments, per_class={"share": share}, seed=seed)
    there = np.bincount(labels)
    counts = np.bincount(chosen.labels, minlength=len(there))
    if share == "natural":
        assert (abs(counts - there * (n // 2) / n) < 1).all()
    else:  # nobody has two more than another who still has candidates
        assert all(counts[a] <= counts[b] + 1 for a in np.flatnonzero(there) for b in np.flatnonzero(counts < there))


def test_shares_in_numbers_count_what_was_chosen_already() -> None:
    labels = np.repeat([0, 1], [60, 40])
    chosen = select("random", 20, labels=labels, already=range(10), per_class={"share": {0: 0.5, 1: 0.5}})
    assert np.bincount(chosen.labels).tolist() == [5, 15]
    # 0.7 of 11 is 7.7: rounded down, and the one left over goes to the larger remainder.
    chosen = select("random", 11, labels=labels, per_class={"share": {0: 0.7, 1: 0.3}})
    assert np.bincount(chosen.labels).tolist() == [8, 3]
    with pytest.raises(BudgetError, match=r"class 1 should have 50 of 100.*40 are candidates"):
        select("random", 100, labels=labels, per_class={"share": {0: 0.5, 1: 0.5}})


@fixed
@given(data=st.data(), scores=st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_a_ranking_with_costs_goes_down_its_order_and_takes_what_still_fits(data: st.DataObject, scores: Any) -> None:
    costs = data.draw(st.lists(st.integers(0, 4), min_size=len(scores), max_size=len(scores)))
    budget = data.draw(st.integers(0, 20))
    left, expected = budget, []
    for i in select("forgetting", len(scores), **history(scores)).ids.tolist():
        if costs[i] <= left:
            left -= costs[i]
            expected.append(i)
    assert select("forgetting", budget, **history(scores), costs=costs).ids.tolist() == expected


@every_method
@few
@given(n=st.integers(0, 25), seed=st.integers(0, 9), budget=st.sampled_from([0, 1.5, "30%", "100%", 1000]))
def test_no_method_spends_more_or_leaves_what_it_could_buy(method: str, n: int, seed: int, budget: Any) -> None:
    arguments = given_to(method, n, seed)
    costs = np.random.default_rng(seed).integers(0, 5, size=n) / 2
    chosen = select(method, budget, **arguments, costs=costs, seed=seed)
    amount = float(budget.removesuffix("%")) / 100 * costs.sum() if isinstance(budget, str) else budget
    taken = np.isin(arguments["ids"], chosen.ids)
    left = amount - costs[taken].sum()
    assert len(set(chosen.ids.tolist())) == len(chosen.ids)
    assert left >= -1e-9
    assert not (costs[~taken] < left - 1e-9).any()


def test_minimums_are_bought_first_and_with_money_kept_for_the_dear_ones() -> None:
    labels, costs = [0, 0, 0, 1, 1], [1, 1, 1, 5, 9]
    scores = [5, 4, 3, 1, 2]
    chosen = select("given", 8, scores=scores, labels=labels, costs=costs, per_class={"min": {0: 1, 1: 1}})
    assert chosen.ids.tolist() == [0, 3, 1, 2]  # not 4: after it there is nothing left for class 0
    with pytest.raises(BudgetError, match="minimums cost 6 at least, the budget is 5"):
        select("given", 5, scores=scores, labels=labels, costs=costs, per_class={"min": 1})


@fixed
@given(data=st.data(), scores=st.lists(st.integers(0, 9), min_size=1, max_size=12, unique=True))
def test_once_the_minimums_are_met_the_order_begins_again(data: st.DataObject, scores: Any) -> None:
    n = len(scores)
    labels = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    costs = data.draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    budget = data.draw(st.integers(0, 20))
    low = {c: data.draw(st.integers(0, int((labels == c).sum()))) for c in range(labels.max() + 1)}

    def dues(chosen: list[int]) -> int:
        rest = [sorted(costs[i] for i in range(n) if labels[i] == c and i not in chosen) for c in low]
        return sum(
            sum(r[: max(0, low[c] - sum(labels[i] == c for i in chosen))]) for c, r in zip(low, rest, strict=True)
        )

    if dues([]) > budget:
        with pytest.raises(BudgetError, match="minimums cost"):
            select("given", budget, scores=scores, labels=labels, costs=costs, per_class={"min": low})
        return
    expected: list[int] = []
    order = sorted(range(n), key=lambda i: -scores[i])
    for minimums in (True, False):
        for i in order:
            lacks = labels[i] >= 0 and sum(labels[j] == labels[i] for j in expected) < low[labels[i]]
            fits = sum(costs[j] for j in [*expected, i]) + dues([*expected, i]) <= budget
            if i not in expected and fits and (lacks or not minimums):
                expected.append(i)
    chosen = select("given", budget, scores=scores, labels=labels, costs=costs, per_class={"min": low})
    assert chosen.ids.tolist() == expected


def test_money_is_not_lost_to_rounding() -> None:
    costs = [0.1, 0.1, 0.1]
    assert len(select("random", 0.3, ids=[0, 1, 2], costs=costs)) == 3
    assert len(select("random", "100%", ids=[0, 1, 2], costs=costs)) == 3
    for method in ("random", "stratified_random"):
        assert len(select(method, float("inf"), ids=[0, 1, 2], labels=[0, 1, 1], costs=costs)) == 3


def test_sums_of_costs_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(60, 2))
    for seed in range(5):
        costs, order = np.exp(np.random.default_rng(seed).normal(size=60)), np.random.default_rng(seed).permutation(60)
        first = select("typiclust", "10%", embeddings=embeddings, costs=costs)
        again = select("typiclust", "10%", embeddings=embeddings[order], costs=costs[order], ids=order)
        assert again.ids.tolist() == first.ids.tolist()


def test_one_minimum_for_all_means_the_classes_that_occur() -> None:
    chosen = select("random", 4, labels=[0, 0, 1, 1, 3, 3], per_class={"min": 1})
    assert set(chosen.labels.tolist()) == {0, 1, 3}
    many = np.arange(3000) % 1500  # a budget far above the number of classes
    assert len(select("random", 2500, labels=many, per_class={"share": "equal"})) == 2500


def test_a_greedy_method_goes_on_as_if_the_closed_class_were_not_there() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(60, 3)), rng.integers(3, size=60)
    chosen = select("k_center", 12, embeddings=embeddings, labels=labels, per_class={"max": 4})
    picks: list[int] = []
    while len(picks) < 12:  # one at a time
        full = [c for c in range(3) if sum(labels[i] == c for i in picks) == 4]
        closed = [i for i in np.flatnonzero(np.isin(labels, full)).tolist() if i not in picks]
        picks += select("k_center", 1, embeddings=embeddings, already=picks, exclude=closed).ids.tolist()
    assert chosen.ids.tolist() == picks


@pytest.mark.parametrize("seed", range(8))
def test_d2_goes_on_from_what_was_chosen_when_a_class_closes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, points, labels = rng.normal(size=40), rng.normal(size=(40, 3)), rng.integers(3, size=40)
    already = np.sort(rng.choice(40, 6, replace=False)).tolist()
    most = max(np.bincount(labels[already]).max(), 4)
    chosen = select(
        "d2", 5, scores=scores, embeddings=points, labels=labels, already=already, per_class={"max": int(most)},
        n_neighbors=5, tie_break="id",
    )  # fmt: skip
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < 5:  # one at a time
        taken = [*already, *picks]
        open_ = [i for i in range(40) if i not in taken and (labels[taken] == labels[i]).sum() < most]
        pick, gain, _ = reference.d2(scores.tolist(), points, range(40), taken, open_, 1, 5, 1.0, 1.0)
        picks, gains = picks + pick, gains + gain
    assert chosen.ids.tolist() == picks
    np.testing.assert_allclose(chosen.gains, gains)


def test_costs_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(DataError, match="too much to add up"):
        select("random", "50%", ids=range(3), costs=[1e308] * 3)


ORDERS = [
    ("margin", {}),
    ("margin", {"sampler": "temperature"}),
    ("seals", {"n_neighbors": 3}),
]


@pytest.mark.parametrize(("method", "options"), ORDERS)
@fixed
@given(n=st.integers(4, 40), seed=st.integers(0, 9), most=st.integers(1, 4))
def test_an_order_that_depends_on_nothing_taken_is_passed_over(
    method: str, options: dict[str, Any], n: int, seed: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    arguments = {"probs": rng.dirichlet(np.ones(3), n), "embeddings": rng.normal(size=(n, 2)), "seed": seed, **options}
    labels, costs = rng.integers(3, size=n), rng.integers(1, 5, size=n)
    order = select(method, n - 1, already=[0], **arguments).ids.tolist()
    open_ = [i for place, i in enumerate(order) if (labels[order[:place]] == labels[i]).sum() < most]
    limits = {"max": {c: most + (labels[0] == c) for c in range(labels.max() + 1)}}
    chosen = select(method, len(open_), already=[0], labels=labels, per_class=limits, **arguments)
    assert chosen.ids.tolist() == open_
    money, expected = n, []
    for i in order:
        if costs[i] <= money:
            expected.append(i)
            money -= costs[i]
    assert select(method, n, already=[0], costs=costs, **arguments).ids.tolist() == expected


def test_a_random_start_that_limits_would_cut_off_is_refused() -> None:
    arguments: dict[str, Any] = {"embeddings": np.arange(9.0)[:, None], "start": 3}
    for limits in ({"costs": np.ones(9)}, {"labels": np.arange(9) % 3, "per_class": {"max": 2}}):
        with pytest.raises(SettingError, match=r"start=3: under per_class or costs .*give it as already"):
            select("k_center", 5, **arguments, **limits)
        assert len(select("k_center", 5, **arguments, **limits, already=[0])) == 5


@every_method
@pytest.mark.parametrize("how", ["class", "cost", "both"])
def test_the_order_of_rows_changes_nothing_under_limits(method: str, how: str) -> None:
    rng = np.random.default_rng(3)
    arguments = {**with_labels(method, 40, 3), "costs": rng.integers(1, 4, size=40)}
    limits = {} if how == "cost" else {"per_class": {"min": 2, "max": 9}}
    if how == "class":
        del arguments["costs"]
    first = select(method, 20, **arguments, **limits)
    again = select(method, 20, **rows(arguments, rng.permutation(40)), **limits)
    assert again.ids.tolist() == first.ids.tolist()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"per_class": {"min": 1}}, MissingInput, "pass labels="),
        ({"per_class": 5, "labels": [0, 1, 1]}, SettingError, "per_class=5"),
        ({"per_class": {}, "labels": [0, 1, 1]}, SettingError, "give one such as"),
        ({"per_class": {"most": 1}, "labels": [0, 1, 1]}, SettingError, "give one such as"),
        ({"per_class": {"min": -1}, "labels": [0, 1, 1]}, SettingError, "min -1"),
        ({"per_class": {"min": 2, "max": 1}, "labels": [0, 1, 1]}, SettingError, "above max"),
        ({"per_class": {"min": {7: 1}}, "labels": [0, 1, 1]}, SettingError, "no class 7"),
        ({"per_class": {"min": 2}, "labels": [0, 1, 1]}, BudgetError, "min 2 of class 0"),
        ({"per_class": {"max": 0}, "labels": [0, 1, 1]}, BudgetError, "maximums leave 0"),
        ({"per_class": {"min": 1}, "labels": [0, 1, 2]}, BudgetError, "minimums want 3"),
        ({"per_class": {"share": "fair"}, "labels": [0, 1, 1]}, SettingError, "share 'fair'"),
        ({"per_class": {"share": {0: 0.5}}, "labels": [0, 1, 1]}, SettingError, "together 1"),
        ({"per_class": {"share": "equal", "min": 1}, "labels": [0, 1, 1]}, SettingError, "without min and max"),
        ({"per_class": {"share": "equal"}, "labels": [0, 1, -1]}, SettingError, "1 candidates have no class"),
        ({"per_class": {"share": "equal"}, "labels": [0, 1, 1], "costs": [1, 1, 1]}, SettingError, "with costs"),
        ({"costs": [1, 2]}, DataError, r"shape \(2,\) for 3 examples"),
        ({"costs": [1, -2, np.nan]}, DataError, r"2 examples have a cost.*\[1, 2\]"),
        ({"costs": ["a", 1, 1]}, DataError, "no numbers"),
        ({"costs": [1, 1, 1], "budget": "x"}, BudgetError, "total cost"),
        ({"costs": [1, 1, 1], "budget": -1}, BudgetError, "less than nothing"),
        ({"costs": [1, 1, 1], "budget": "101%"}, BudgetError, "above 100%"),
    ],
)
def test_limits_that_make_no_sense_are_named(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    budget = arguments.pop("budget", 2)
    with pytest.raises(error, match=words):
        select("random", budget, ids=[0, 1, 2], **arguments)


def test_class_numbers_too_large_to_count_are_refused() -> None:
    labels = np.array([0, 1, 4_000_000_000_000])
    with pytest.raises(DataError, match=r"class 4000000000000, .*names as text"):
        select("given", 2, scores=np.arange(3.0), labels=labels, per_class={"max": 1})
    chosen = select("given", 2, scores=np.arange(3.0), labels=labels.astype(str), per_class={"max": 1})
    assert chosen.ids.tolist() == [2, 1]
