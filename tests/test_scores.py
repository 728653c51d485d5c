"""Each score against its slow version, and cases that published code gets wrong."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.select import score, select
from tests import reference

fixed = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.mark.parametrize("method", ["least_confidence", "margin", "entropy"])
@fixed
@given(
    n=st.integers(0, 20),
    c=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_uncertainty_as_defined(method: str, n: int, c: int, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(c, 0.2), size=n)
    probs[rng.random(n) < 0.2] = np.eye(c)[0]
    probs = probs.astype(dtype)
    np.testing.assert_allclose(
        score(method, probs=probs), getattr(reference, method)(probs.astype(float)), rtol=1e-12, atol=1e-15
    )


@fixed
@given(n=st.integers(0, 20), n_epochs=st.integers(0, 12), seed=st.integers(0, 10**6))
def test_forgetting_as_defined(n: int, n_epochs: int, seed: int) -> None:
    correct = np.random.default_rng(seed).choice(np.array([0, 1, 1, 255], np.uint8), size=(n_epochs, n))
    assert score("forgetting", signals={"correct": correct}).tolist() == reference.forgetting(correct)


def test_entropy_of_a_certain_example_is_0_and_it_goes_last() -> None:
    probs = [[1, 0, 0], [0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]]
    values = score("entropy", probs=probs)
    assert values[0] == 0
    assert values[2] == pytest.approx(np.log(3))
    assert select("entropy", 3, probs=probs).ids.tolist() == [2, 1, 0]


def test_one_class_leaves_nothing_to_be_unsure_of() -> None:
    probs = np.ones((3, 1))
    assert score("margin", probs=probs).tolist() == [-1, -1, -1]
    assert score("least_confidence", probs=probs).tolist() == [0, 0, 0]
    assert score("entropy", probs=probs).tolist() == [0, 0, 0]


def test_a_level_margin_is_plain_zero() -> None:
    assert not np.signbit(score("margin", probs=[[0.5, 0.5]]))[0]


@pytest.mark.parametrize(
    ("history", "events"),
    [
        ([1, 0, 1, 0], 2),
        ([0, 0, 1, 1], 0),  # learned late, never forgotten
        ([0, 1, 0, 0], 1),
        ([1, 255, 0, 1], 1),  # not shown in between: still the next showing
        ([1, 255, 255, 255], 0),
        ([0, 0, 0, 0], 4),  # never learned: above any count
        ([255, 255, 255, 255], 4),  # never shown is never learned
        ([255, 0, 255, 1], 0),
    ],
)
def test_forgetting_by_hand(history: list[int], events: int) -> None:
    correct = np.array(history, np.uint8)[:, None]
    assert score("forgetting", signals={"correct": correct}).tolist() == [events]


def test_never_learned_goes_before_the_most_forgotten() -> None:
    correct = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], np.uint8)
    assert select("forgetting", 2, signals={"correct": correct}).ids.tolist() == [1, 0]


def test_booleans_are_right_and_wrong() -> None:
    correct = np.array([[True], [False]])
    assert score("forgetting", signals={"correct": correct}).tolist() == [1]


def test_random_is_uniform_over_positions_and_belongs_to_the_id() -> None:
    n, budget, seeds = 40, 10, 2000
    counts = np.zeros(n)
    for seed in range(seeds):
        counts[select("random", budget, ids=np.arange(n), seed=seed).ids] += 1
    expected = seeds * budget / n
    # Chi-squared with 39 degrees of freedom, thinned by sampling without replacement: above 80 once in 10,000.
    assert ((counts - expected) ** 2 / expected / (1 - budget / n)).sum() < 80
    some = score("random", ids=[7, 3, 12])
    assert some[1] == score("random", ids=[3])[0]
    assert some[1] != score("random", ids=[3], seed=1)[0]
