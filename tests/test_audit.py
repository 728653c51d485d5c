"""Agreement of two rankings, what pays, and the words for it."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from svp.audit import agreement, payment, words
from svp.evaluate import better, difference, no_worse

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


def test_rankings_of_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="same examples"):
        agreement([1, 2], [1, 2, 3], 1)


@pytest.mark.parametrize(
    ("seconds", "full", "accuracy", "said"),
    [
        (50, 100, "shown", "pays"),
        (50, 100, "not shown", "not shown"),
        (50, 100, "refuted", "does not pay"),
        (100, 100, "shown", "does not pay"),  # as long is not faster
        (150, 100, "not shown", "does not pay"),
    ],
)
def test_what_pays(seconds: float, full: float, accuracy: Any, said: str) -> None:
    found = payment(seconds, full, accuracy)
    assert found.verdict == said
    assert found.ratio == full / seconds


# --- words ----------------------------------------------------------------------------------------------------------------


def arm(name: str, seed: int, accuracy: float, n: int = 50, equal: str = "epochs") -> dict[str, Any]:
    return {"arm": name, "equal": equal, "seed": seed, "n": n, "accuracy": accuracy, "model": "preact20"}


def coreset_metrics(own: np.ndarray, random: np.ndarray, full: np.ndarray, margin: float = 1.0) -> dict[str, Any]:
    """As the workflow makes them, from (seeds, n_test) answers."""
    vs_random, vs_full = difference(own, random), difference(own, full)
    arms = [
        arm(name, seed, float(row.mean()), 100 if name == "full" else 50)
        for name, rows in (("proxy", own), ("random", random), ("full", full))
        for seed, row in enumerate(rows)
    ]
    verdict = no_worse(vs_full, margin)
    return {
        "workflow": "coreset",
        "margin": margin,
        "arms": arms,
        "comparisons": [
            {
                "arm": "proxy",
                "against": "random",
                "equal": "epochs",
                "question": "better",
                "verdict": better(vs_random),
                **vs_random.facts(),
            },
            {
                "arm": "proxy",
                "against": "full",
                "equal": "epochs",
                "question": "no worse",
                "verdict": verdict,
                **vs_full.facts(),
            },
        ],
        "agreement": [],
        "payment": payment(40, 100, verdict).facts(),
    }


def answers(share: float, n_seeds: int, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n_seeds, n)) < share


@pytest.mark.parametrize(
    ("n_seeds", "shares"), itertools.product([1, 3], [(0.9, 0.5, 0.9), (0.5, 0.9, 0.9), (0.7, 0.7, 0.7)])
)
def test_words_say_what_the_numbers_say(n_seeds: int, shares: tuple[float, float, float]) -> None:
    metrics = coreset_metrics(*(answers(share, n_seeds, 3000, i) for i, share in enumerate(shares)), margin=3)
    said = words(metrics)
    assert all("\n" not in sentence for sentence in said)
    lead, outcome, *rest = said
    for found, sentence in zip(metrics["comparisons"], rest[:2], strict=True):
        assert f"{found['mean']:+.2f} points" in sentence
        claim = "Better" if found["question"] == "better" else "No worse (margin 3 points)"
        assert sentence.endswith(f" {claim}: {found['verdict']}.")
        if n_seeds == 1:
            assert found["verdict"] == "not shown"
            assert "--seeds 3" in sentence
        else:
            assert f"{found['low']:+.2f} to {found['high']:+.2f}" in sentence
            assert f"could show {found['smallest']:.2f}" in sentence
    assert "the part the proxy chose" in outcome
    for share, part in zip(shares, outcome.split(";"), strict=True):
        assert float(part.split("%")[0].split()[-1]) == pytest.approx(100 * share, abs=3)
    begins = {"pays": "It pays: ", "does not pay": "It does not pay: ", "not shown": "Not shown whether it pays: "}
    assert lead.startswith(begins[metrics["payment"]["verdict"]])
    assert "2.50 times as fast" in lead
    json.dumps(metrics, allow_nan=False)


def test_clear_cases_are_called_clear() -> None:
    metrics = coreset_metrics(answers(0.9, 5, 4000, 0), answers(0.5, 5, 4000, 1), answers(0.8, 5, 4000, 2))
    assert [c["verdict"] for c in metrics["comparisons"]] == ["shown", "shown"]
    assert metrics["payment"]["verdict"] == "pays"
    metrics = coreset_metrics(answers(0.5, 5, 4000, 0), answers(0.9, 5, 4000, 1), answers(0.9, 5, 4000, 2))
    assert [c["verdict"] for c in metrics["comparisons"]] == ["refuted", "refuted"]
    assert metrics["payment"]["verdict"] == "does not pay"


def test_what_was_not_measured_is_not_mentioned() -> None:
    metrics = coreset_metrics(*(answers(0.8, 3, 100, i) for i in range(3)))
    bare = {**metrics, "comparisons": [], "payment": None, "arms": metrics["arms"][:3]}
    lead, outcome = words(bare)
    assert lead == "Whether it pays was not measured: add --control full."
    for word in ("random", "everything", "alike"):
        assert word not in outcome


def test_agreement_is_told_with_what_two_targets_reach() -> None:
    metrics = coreset_metrics(*(answers(0.8, 2, 100, i) for i in range(3)))
    own = {"overlap": 0.75, "spearman": 0.5, "chance": 0.5, "between": "proxy and target"}
    metrics["agreement"] = [
        own,
        {**own, "overlap": 0.85, "spearman": 0.7},
        {**own, "between": "target and target", "spearman": None},
    ]
    said = words(metrics)
    assert (
        "Proxy and target rank alike to this degree: Spearman 0.60, 80% of the choice in common (chance: 50%)." in said
    )
    assert "Two seeds of the target rank alike to this degree: 75% of the choice in common (chance: 50%)." in said


def test_a_proxy_as_good_as_the_target_is_said_so() -> None:
    metrics = coreset_metrics(*(answers(0.8, 3, 100, i) for i in range(3)))
    last = "The proxy itself is no less accurate than the target: you may not need the target at all."
    for verdict, expected in (("shown", True), ("not shown", False), ("refuted", False)):
        found = {**metrics["comparisons"][1], "arm": "proxy model", "verdict": verdict}
        said = words({**metrics, "comparisons": [*metrics["comparisons"], found]})
        assert (said[-1] == last) == expected
        assert not any("proxy model" in sentence for sentence in said)


def test_speed_up_of_selection_is_told_at_each_total() -> None:
    speed_up = [{"n_labelled": 200, "seconds": 10.0, "target_seconds": 45.0, "ratio": 4.5}]
    metrics = {
        "workflow": "active",
        "margin": 1,
        "arms": [arm("proxy", 0, 0.5)],
        "comparisons": [],
        "agreement": [],
        "speed_up": speed_up,
    }
    assert words(metrics)[0] == "The proxy asked for 200 labels 4.5 times as fast as the target (10 s against 45 s)."
