"""Agreement of two rankings, and what pays."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from svp.audit import agreement, payment, tied

TRY = settings(derandomize=True, deadline=None, max_examples=60)
SCORES = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 2), min_size=n, max_size=n) for _ in range(2)], st.integers(0, n))
)


@TRY
@given(SCORES)
def test_overlap_is_the_mean_over_all_ways_to_break_ties(case: tuple[list[int], list[int], int]) -> None:
    a, b, budget = case
    found = agreement(a, b, budget)
    ways = [_all_choices(values, budget) for values in (a, b)]
    shared = [len(one & other) for one, other in itertools.product(*ways)]
    assert found.overlap == pytest.approx(np.mean(shared) / budget if budget else 1.0)
    assert found.chance == budget / len(a)
    assert (found.n, found.budget) == (len(a), budget)


def _all_choices(values: list[int], budget: int) -> list[set[int]]:
    """Every set of `budget` positions of which none is beaten by one left out."""
    n = len(values)
    choices = [set(c) for c in itertools.combinations(range(n), budget)]
    return [c for c in choices if all(values[i] >= values[j] for i in c for j in range(n) if j not in c)]


@TRY
@given(SCORES)
def test_spearman_is_pearson_of_mean_ranks(case: tuple[list[int], list[int], int]) -> None:
    a, b, budget = case
    rho = agreement(a, b, budget).spearman
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert rho is None
        return
    ranks = [np.array([np.mean([sorted(v).index(x) + i for i in range(v.count(x))]) for x in v]) for v in (a, b)]
    assert rho == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rho == pytest.approx(stats.spearmanr(a, b).statistic)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 12), st.randoms())
def test_ties_are_those_that_another_order_of_equals_could_have_left_out(
    values: list[int], budget: int, rng: Any
) -> None:
    order = list(range(len(values)))
    rng.shuffle(order)
    order.sort(key=lambda i: -values[i])
    chosen = np.isin(np.arange(len(values)), order[:budget])
    left = {values[i] for i in order[budget:]}
    assert tied(values, chosen) == sum(values[i] in left for i in order[:budget])


def test_chance_is_the_mean_overlap_of_unrelated_rankings() -> None:
    rng = np.random.default_rng(3)
    found = [agreement(rng.random(60), rng.random(60), 15) for _ in range(300)]
    assert np.mean([f.overlap for f in found]) == pytest.approx(found[0].chance, abs=0.02)


def test_a_ranking_agrees_with_itself() -> None:
    scores = np.random.default_rng(0).random(50)
    found = agreement(scores, scores, 20)
    assert (found.spearman, found.overlap) == (pytest.approx(1), pytest.approx(1))
    assert agreement(-scores, scores, 50).overlap == 1.0  # of everything
    json.dumps(found.facts(), allow_nan=False)


def test_sharing_a_rule_for_ties_is_no_agreement() -> None:
    found = agreement(np.zeros(50), np.zeros(50), 20)
    assert found.overlap == pytest.approx(found.chance)


def test_what_was_chosen_counts_where_it_is_not_the_highest() -> None:
    scores, low = np.arange(6.0), np.arange(6) < 2
    found = agreement(scores, scores, 2, (low, np.arange(6) == 1))
    assert (found.overlap, found.spearman) == (0.5, pytest.approx(1))


def test_rankings_of_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="same examples"):
        agreement([1, 2], [1, 2, 3], 1)


@pytest.mark.parametrize(
    ("seconds", "full", "accuracy", "said"),
    [
        ([50], [100], "shown", "pays"),
        ([50], [100], "not shown", "not shown"),
        ([50], [100], "refuted", "does not pay"),
        ([100], [100], "shown", "does not pay"),  # as long is not faster
        ([150], [100], "not shown", "does not pay"),
        ([50, 60, 70], [100, 90, 80], "shown", "pays"),
        ([50, 60, 81], [100, 90, 80], "shown", "not shown"),  # faster on the mean, but not whenever it was tried
        ([50, 60, 81], [100, 90, 80], "not shown", "not shown"),
        ([50, 99, 151], [100, 100, 100], "shown", "does not pay"),
    ],
)
def test_what_pays(seconds: list[float], full: list[float], accuracy: Any, said: str) -> None:
    found = payment(seconds, full, accuracy)
    assert found.verdict == said
    assert found.ratio == pytest.approx(sum(full) / sum(seconds))
    assert (found.n_faster, found.n_seeds) == (sum(a < b for a, b in zip(seconds, full, strict=True)), len(full))


def test_payments_of_other_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        payment([1, 2], [1, 2, 3], "shown")
