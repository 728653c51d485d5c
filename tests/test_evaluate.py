"""Differences between arms and what they can carry: against formulas by hand, a bootstrap, and simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from svp.evaluate import (
    Difference,
    agreement_of,
    better,
    difference,
    labels_needed,
    macro_f1,
    majority_rate,
    mean_and_spread,
    no_worse,
    per_class,
)

TRY = settings(derandomize=True, deadline=None, max_examples=50)


def made(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, low, high, (high - low) / 2, low, high, 3, 100)


def half_length(values: list[float]) -> float:
    """By the textbook."""
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


WON_AND_LOST = [100.0, -100.0]  # one row of each is added to those that were drawn


def test_by_hand() -> None:
    a = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], bool)
    b = np.array([[1, 0, 0, 1], [0, 0, 1, 1]], bool)
    d = difference(a, b)
    # Pairs: seed 0 wins row 1, seed 1 wins row 0: 25 points each.
    assert d.mean == 25
    # Of 50, 50, 0, 0, 100, -100: mean 100/6, variance (2 x 2500 + 2 x 10000 - 6 (100/6)^2) / 5 = 4666.67; t at 5 is 2.5706.
    rows = 2.5705818366147395 * np.sqrt(4666.666666666667 / 6)
    assert rows == pytest.approx(half_length([50, 50, 0, 0, *WON_AND_LOST]))
    seeds = 0.0  # both seeds differ by 25
    assert (d.rows_low, d.rows_high) == pytest.approx((25 - rows, 25 + rows))
    assert (d.low, d.high, d.smallest) == pytest.approx(
        (25 - np.hypot(rows, seeds), 25 + np.hypot(rows, seeds), np.hypot(rows, seeds))
    )
    assert (d.n_seeds, d.n_test) == (2, 4)


def test_seeds_and_rows_by_hand() -> None:
    a, b = np.ones((2, 10), bool), np.ones((2, 10), bool)
    b[0, :3] = False  # 30 points for one seed, 10 for the other
    b[1, :1] = False
    d = difference(a, b)
    seeds = stats.t.ppf(0.975, 1) * np.std([30, 10], ddof=1) / np.sqrt(2)
    rows = half_length([100, 50, 50, 0, 0, 0, 0, 0, 0, 0, *WON_AND_LOST])
    assert d.mean == pytest.approx(20)  # the added rows widen, they do not draw towards 0
    assert d.rows_high - d.mean == pytest.approx(rows)
    assert d.smallest == pytest.approx(np.sqrt(seeds**2 + rows**2))
    assert (d.low, d.high) == (-100, 100)  # as far as a difference can go; 20 points and 128 to each side


def test_the_rows_interval_is_that_of_a_bootstrap_over_rows() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 3, 400)) < np.array([0.9, 0.85])[:, None, None]
    d = difference(a, b)
    per_row = 100 * (a.astype(float) - b).mean(axis=0)
    resampled = np.array([rng.choice(per_row, 400).mean() for _ in range(4000)])
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert d.rows_low == pytest.approx(low, abs=0.35)
    assert d.rows_high == pytest.approx(high, abs=0.35)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("n_test", [1, 8, 40, 100])
def test_rows_that_never_differ_say_little_of_those_not_drawn(n_test: int, value: int) -> None:
    same = np.full((3, n_test), value, bool)
    d = difference(same, same)
    assert d.mean == 0
    assert d.smallest == pytest.approx(half_length([0.0] * n_test + WON_AND_LOST))
    assert no_worse(d, 1.0) == no_worse(d, 2.0) == "not shown"
    # "rule of three": 3 in n rows may differ unseen.
    assert d.smallest > 100 * 1.5 / n_test


def test_many_rows_that_never_differ_are_evidence() -> None:
    same = np.ones((3, 10_000), bool)
    assert no_worse(difference(same, same), 1.0) == "shown"


@pytest.mark.parametrize(("n_test", "loss"), [(40, 3.0), (100, 3.0), (200, 1.0), (400, 1.0)])
def test_a_loss_that_few_rows_show_is_seldom_taken_for_none(n_test: int, loss: float) -> None:
    """Every seed loses the same rows, `loss` in a hundred, which few draws of test rows hold: seeds that agree prove nothing."""
    rng, said, draws = np.random.default_rng(3), 0, 600
    for _ in range(draws):
        lost = rng.random(n_test) < loss / 100
        reference = np.ones((3, n_test), bool)
        said += no_worse(difference(reference & ~lost, reference), 1.0) == "shown"
    # One side of 95 %, and two and a half deviations of this many draws.
    assert said / draws <= 0.025 + 2.5 * np.sqrt(0.025 * 0.975 / draws)


@pytest.mark.parametrize(("n_test", "loss"), [(40, 3.0), (200, 1.0)])
def test_so_is_a_loss_among_rows_won_and_lost(n_test: int, loss: float) -> None:
    rng, said, draws = np.random.default_rng(4), 0, 600
    for _ in range(draws):
        fate = rng.random(n_test)
        won, lost = fate < 0.02, fate > 1 - 0.02 - loss / 100
        either = rng.random(n_test) < 0.9
        arm, reference = (either | won) & ~lost, (either | lost) & ~won
        said += no_worse(difference(np.tile(arm, (3, 1)), np.tile(reference, (3, 1))), 1.0) == "shown"
    assert said / draws <= 0.025 + 2.5 * np.sqrt(0.025 * 0.975 / draws)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(n_seeds: int) -> None:
    # Worlds with a known difference: trainings differ (seed effect on the margin) and test rows differ in how hard they are.
    rng, inside, n = np.random.default_rng(11), 0, 400
    truth = 100 * (0.80 - 0.77)
    for _ in range(n):
        hardness = rng.normal(0, 0.05, 300)
        effect = rng.normal(0, 0.02, (2, n_seeds, 1))
        p = np.clip(np.array([0.80, 0.77])[:, None, None] + hardness + effect, 0, 1)
        a, b = rng.random((2, n_seeds, 300)) < p
        d = difference(a, b)
        inside += d.low <= truth <= d.high
    # 95 %, less two and a half deviations of 400 draws. (Above is allowed: the two sources are both counted.)
    assert inside / n >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / n)


def test_one_seed_has_no_ends() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50)) < 0.5
    d = difference(a, b)
    assert (d.low, d.high, d.smallest) == (-np.inf, np.inf, np.inf)
    assert np.isfinite([d.rows_low, d.rows_high]).all()
    facts = d.facts()
    assert facts["low"] is facts["high"] is facts["smallest"] is None
    assert facts["mean"] == d.mean
    assert better(d) == "not shown"
    assert no_worse(d, 1e9) == "not shown"


@TRY
@given(st.integers(2, 4), st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**32))
def test_no_interval_holds_what_cannot_be(n_seeds: int, n_test: int, share: float, seed: int) -> None:
    a, b = np.random.default_rng(seed).random((2, n_seeds, n_test)) < np.array([share, 1 - share])[:, None, None]
    d = difference(a, b)
    assert -100 <= d.low <= d.rows_low <= d.mean <= d.rows_high <= d.high <= 100
    # Nothing is cut but what is beyond: where half the length reaches no end, the ends are as far from the mean as it says.
    assert d.high == min(100, d.mean + d.smallest)
    assert d.low == max(-100, d.mean - d.smallest)


@TRY
@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**32))
def test_turning_the_arms_round_turns_the_answer_round(n_seeds: int, n_test: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).random((2, n_seeds, n_test)) < 0.6
    one, other = difference(a, b), difference(b, a)
    assert (one.mean, one.low, one.high, one.smallest) == pytest.approx(
        (-other.mean, -other.high, -other.low, other.smallest)
    )
    assert one.low <= one.rows_low <= one.mean <= one.rows_high <= one.high
    assert better(one) == {"shown": "refuted", "refuted": "shown", "not shown": "not shown"}[better(other)]
    if n_seeds > 1:  # which seed comes first is nothing
        again = difference(a[::-1], b[::-1])
        assert (again.mean, again.smallest) == pytest.approx((one.mean, one.smallest))


def test_arms_must_be_paired() -> None:
    for a, b in (
        (np.ones((2, 5)), np.ones((3, 5))),
        (np.ones((2, 5)), np.ones((2, 4))),
        (np.ones((1, 0)), np.ones((1, 0))),
    ):
        with pytest.raises(ValueError, match="share seeds and test rows"):
            difference(a, b)


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (-0.99, 5, 1, "shown"),
        (-1, 5, 1, "not shown"),  # the margin itself is too much
        (-1.01, -1, 1, "not shown"),
        (-3, -1.01, 1, "refuted"),
        (-3, 3, 1, "not shown"),
        (-0.3, -0.1, 1, "shown"),  # worse, surely, and by less than matters
        (0, 0, 0.5, "shown"),
    ],
)
def test_no_worse_at_the_edges(low: float, high: float, margin: float, said: str) -> None:
    assert no_worse(made(low, high), margin) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 1, "shown"), (0, 1, "not shown"), (-1, 0, "not shown"), (-1, -0.01, "refuted"), (0, 0, "not shown")],
)
def test_better_at_the_edges(low: float, high: float, said: str) -> None:
    assert better(made(low, high)) == said


ARMS = st.tuples(st.integers(1, 4), st.sampled_from([5, 40, 300]), st.integers(1, 4), st.integers(0, 10**6))


@TRY
@given(ARMS, st.floats(0.2, 0.9), st.floats(0.0, 0.6))
def test_labels_needed_are_where_the_curve_looked_at_in_small_steps_gets_as_far(
    made_of: tuple[int, int, int, int], share: float, rise: float
) -> None:
    n_seeds, n_test, n_totals, seed = made_of
    rng = np.random.default_rng(seed)
    totals = np.cumsum(rng.integers(10, 200, n_totals)).tolist()
    own = rng.random((n_seeds, n_test)) < share
    luck = rng.random((n_seeds, n_test))  # shared, as rows are easy or hard for all
    curve = [luck < 0.2 + rise * (i + rng.random()) / n_totals for i in range(n_totals)]
    found = labels_needed(own, totals, curve)

    at = np.unique(np.concatenate([np.arange(totals[0], totals[-1], 1.0), totals]))
    along = []
    for n in at:
        i = min(int(np.searchsorted(totals, n, "right")) - 1, max(n_totals - 2, 0))
        part = (n - totals[i]) / (totals[i + 1] - totals[i]) if n_totals > 1 else 0.0
        mixed = (1 - part) * np.array(curve[i], float) + part * np.array(curve[min(i + 1, n_totals - 1)], float)
        along.append(difference(own, mixed))
    as_far = [n for n, d in zip(at, along, strict=True) if d.mean <= 1e-9]
    not_better = [n for n, d in zip(at, along, strict=True) if d.low <= 1e-9]
    not_worse = [n for n, d in zip(at, along, strict=True) if d.high >= -1e-9]
    mean = as_far[0] if as_far and (as_far[0] > totals[0] or along[0].mean > -1e-9) else 0 if as_far else np.inf
    low = not_better[0] if not_better and not_better[0] > totals[0] else 0 if not_better else np.inf
    high = not_worse[-1] if not_worse and not_worse[-1] < totals[-1] else np.inf if not_worse else 0
    for name, slow in (("mean", mean), ("low", low), ("high", high)):
        assert found[name] == slow or abs(found[name] - slow) <= 1.01, name
    assert found["low"] <= found["mean"] <= found["high"]
    if n_seeds == 1:
        assert (found["low"], found["high"]) == (0, np.inf)


def test_labels_needed_by_hand() -> None:
    """Chance has 40, 60 and 80 of 100 right with 100, 200 and 400 labels."""
    curve = [np.arange(100) < right for right in (40, 60, 80)]
    for right, needed in ((39, 0), (40, 100), (50, 150), (70, 300), (80, 400), (81, np.inf)):
        assert labels_needed(np.arange(100) < right, [100, 200, 400], curve)["mean"] == pytest.approx(needed)


def test_accuracy_by_class() -> None:
    correct, labels = np.array([True, False, True, True]), np.array([0, 0, 2, 2])
    assert per_class(correct, labels, 4) == [0.5, None, 1.0, None]


def test_mean_and_spread() -> None:
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(np.sqrt(2)))
    assert mean_and_spread([4.0]) == (4.0, None)


@TRY
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score

    predicted, labels = np.array(pairs).T
    assert macro_f1(predicted, labels) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_the_majority_is_that_of_the_training_part() -> None:
    assert majority_rate(np.array([2, 2, 0, 1]), np.array([0, 0, 2, 0, 1])) == 0.2
    assert majority_rate(np.array([1, 0, 0, 1]), np.array([0, 1, 1])) == pytest.approx(1 / 3)


def test_agreement_is_krippendorffs_alpha() -> None:
    """His example of four observers and twelve units, in which the nominal alpha is 0.743 (2011, section C)."""
    seen = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    votes = [
        (unit, str(who), int(value)) for who, row in enumerate(seen) for unit, value in enumerate(row) if value != "."
    ]
    found = agreement_of(votes)
    assert found["examples"] == 11
    assert found["alpha"] == pytest.approx(0.743, abs=5e-4)
    assert agreement_of([]) == {"examples": 0, "observed": None, "alpha": None}
    assert agreement_of([(0, "a", 1), (0, "b", 1)]) == {"examples": 1, "observed": 1.0, "alpha": None}
    assert agreement_of([(0, "a", 1), (0, "b", 1), (1, "a", 2), (1, "b", 2)])["alpha"] == 1
