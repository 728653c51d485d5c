"""When labelling may stop: plain functions, against what can be worked out by hand or by chance."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from svp.workflows.judging import confidently_wrong, led
from svp.workflows.stopping import (
    APART,
    Gain,
    fold_of,
    kappa,
    points_of,
    predicted_gain,
    reasons_to_stop,
    settled,
    share,
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_has_wilsons_interval(counts: tuple[int, int]) -> None:
    k, n = counts
    found, expected = share(k, n), binomtest(k, n).proportion_ci(method="wilson")
    assert found.mean == k / n
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=50))
def test_kappa_is_cohens(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(of) for of in zip(*pairs, strict=True))
    if len(set(a.tolist()) | set(b.tolist())) == 1:
        assert kappa(a, b) == 1
    else:
        assert kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_a_fold_belongs_to_the_id() -> None:
    ids = np.arange(0, 1000, 3)
    fold = fold_of(ids, 5, seed=1)
    assert fold_of(ids[::-7], 5, seed=1).tolist() == fold[::-7].tolist()
    assert np.bincount(fold, minlength=5).min() > 40
    assert fold_of(ids, 5, seed=2).tolist() != fold.tolist()


def answers(errors: list[float], m: int, seed: int) -> np.ndarray:
    """Which of m examples each point has right: an example is got right once the error falls below its own difficulty."""
    difficulty = np.random.default_rng(seed).random(m)
    return np.stack([difficulty >= error for error in errors])


SIZES = [100, 200, 300, 400, 500, 600]


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_gain_of_a_power_law_is_foretold(exponent: float) -> None:
    """In most of 20 samples of 400 examples the interval holds what the law itself says."""

    def error(n: int) -> float:
        return 0.05 + 0.5 * (n / 100) ** -exponent

    truth = 100 * (error(600) - error(700))
    found = [predicted_gain(SIZES, answers([error(n) for n in SIZES], 400, seed), 600) for seed in range(20)]
    assert all(gain is not None and gain.low <= gain.points <= gain.high for gain in found)
    assert sum(gain.low <= truth <= gain.high for gain in found if gain) >= 16
    assert abs(float(np.median([gain.points for gain in found if gain])) - truth) < 1.0


def test_a_flat_curve_gains_nothing_and_a_steep_one_much() -> None:
    flat = predicted_gain(SIZES, answers([0.1] * 6, 2000, 0), 600)
    steep = predicted_gain(SIZES, answers([0.9, 0.75, 0.6, 0.45, 0.3, 0.15], 2000, 0), 600)
    assert flat is not None
    assert steep is not None
    assert flat.high < 0.5 < 2 < steep.points
    assert predicted_gain(SIZES, answers([0.1] * 6, 2000, 0), 600) == flat


def test_the_interval_counts_what_another_training_would_give() -> None:
    """Each point 2 points beside the law by luck: with four points one degree of freedom is left to see how far."""

    def error(n: int) -> float:
        return 0.05 + 0.4 * (n / 100) ** -0.5

    sizes, held = [100, 200, 300, 400], 0
    truth = 100 * (error(400) - error(500))
    for seed in range(40):
        luck = np.random.default_rng(seed).normal(0, 0.02, 4)
        errors = [error(n) + more for n, more in zip(sizes, luck.tolist(), strict=True)]
        gain = predicted_gain(sizes, answers(errors, 2000, seed), 400, seed)
        assert gain is not None
        held += gain.low <= truth <= gain.high
    assert held >= 34  # of 40; 65 % of the time where the distances are divided by r - 2 and drawn as normal


def test_points_that_answer_alike_claim_no_certainty() -> None:
    few, many = (predicted_gain(SIZES, answers([0.1] * 6, m, 0), 600) for m in (20, 2000))
    assert few is not None
    assert many is not None
    assert few.points == many.points == 0
    assert few.high > 0.5 > 0.1 > many.high > 0


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 8))
def test_points_of_a_curve_lie_apart_and_stay(steps: list[int], most: int) -> None:
    sizes = np.cumsum(steps).tolist()
    points = points_of(sizes, most)
    chosen = [sizes[i] for i in points]
    assert points[-1] == len(sizes) - 1
    assert len(points) <= most
    assert all(size >= APART * before for before, size in pairwise(chosen))
    longer = points_of([*sizes, 2 * sizes[-1]], 40)
    assert set(points[:-1]) <= set(longer)  # what was trained is of use later
    for i, size in enumerate(sizes):  # nothing that lies apart from all is left out
        if len(points) < most and i not in points:
            assert any(max(size, other) < APART * min(size, other) for other in chosen)


def test_three_points_foretell_nothing() -> None:
    assert predicted_gain(SIZES[:3], answers([0.5, 0.4, 0.3], 100, 0), 300) is None


def test_answers_have_settled_after_three_pairs_of_rounds() -> None:
    assert settled([0.5, 0.99, 0.995, 1.0])
    assert not settled([1.0, 1.0])
    assert not settled([1.0, 1.0, 1.0, 0.98, 1.0])


def test_each_reason_to_stop_is_said_and_none_is_none() -> None:
    little, much = Gain(100, 0.3, 0.0, 0.9), Gain(100, 0.3, 0.0, 1.1)
    assert reasons_to_stop(much, 1.0, [0.9, 1.0, 1.0], 5) == []
    assert reasons_to_stop(None, 1.0, [], 5) == []
    assert "less than 1" in reasons_to_stop(little, 1.0, [], 5)[0]
    assert reasons_to_stop(little, 0.5, [], 5) == []
    assert "hardly change" in reasons_to_stop(None, 1.0, [1.0, 1.0, 0.99], 5)[0]
    assert reasons_to_stop(None, 1.0, [], 0) == ["everything was asked"]


def test_a_label_is_led_by_the_best_other_class() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]], np.float32)
    assert led(probs, np.array([0, 1, 0])) == pytest.approx([-0.5, 0.3, 0.3])
    # Class 2 is never a label: nothing is known of how sure one is of it, so the second is not counted.
    others = np.repeat(np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]], np.float32), 4, axis=0)  # about which it is right
    assert confidently_wrong(np.concatenate([probs, others]), np.array([0, 1, 0, *[0] * 4, *[1] * 4])) == 1


def test_confident_learning_counts_about_as_many_as_are_wrong() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 3000)
    probs = rng.dirichlet(np.ones(3), 3000).astype(np.float32) * 0.5
    probs[np.arange(3000), truth] += 0.5
    flipped = rng.random(3000) < 0.2
    labels = np.where(flipped, (truth + 1) % 3, truth)
    assert 0.7 * flipped.sum() < confidently_wrong(probs, labels) < 1.3 * flipped.sum()
    assert confidently_wrong(probs, truth) < 0.05 * 3000


def test_a_proxy_that_is_often_wrong_itself_doubts_no_more_labels_for_that() -> None:
    """Right about two in five of ten classes, and surer then: by what is usual for a class it would doubt most labels."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 5000)
    right = rng.random(5000) < 0.4
    taken = np.where(right, truth, rng.integers(0, 10, 5000))
    sure = np.where(right, 0.5, 0.3).astype(np.float32)
    probs = rng.dirichlet(np.ones(10), 5000).astype(np.float32) * (1 - sure[:, None])
    probs[np.arange(5000), taken] += sure
    flipped = rng.random(5000) < 0.2
    labels = np.where(flipped, (truth + 1) % 10, truth)
    own = probs[np.arange(5000), labels]
    usual = np.array([own[labels == c].mean() for c in range(10)])
    lead = np.where(np.arange(10) == labels[:, None], -1, probs)
    by_the_book = int(((lead >= usual) & (lead > own[:, None])).any(axis=1).sum())
    assert by_the_book > 2.5 * flipped.sum()
    assert confidently_wrong(probs, labels) < 1.5 * flipped.sum()
