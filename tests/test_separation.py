"""Features that cannot tell classes apart are found; features that can, and few labels, are not accused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from svp.separation import HALF_WAY, LEAST, auc, separation


def clouds(
    seed: int, n: int, n_classes: int, d: int, distance: float, same: tuple[tuple[int, int], ...] = ()
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussian clouds whose centres lie about `distance` apart, but for pairs that share one."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_classes, d)) * distance / np.sqrt(2 * d)
    for a, b in same:
        centres[b] = centres[a]
    labels = rng.integers(0, n_classes, n)
    return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_that_are_the_same_in_feature_space_are_named_and_no_others(seed: int) -> None:
    x, y = clouds(seed, 2000, 6, 32, 4, same=((1, 4),))
    found = separation(x, y, np.arange(len(x)))
    assert [pair.classes for pair in found.pairs] == [(1, 4)]
    assert found.judged == 15
    assert 0.4 < found.pairs[0].auc < 0.6
    assert found.pairs[0].limit < HALF_WAY
    assert found.accuracy > 2 * found.chance


@pytest.mark.parametrize("seed", range(3))
def test_classes_that_features_separate_are_not_accused(seed: int) -> None:
    x, y = clouds(seed, 1000, 6, 32, 4)
    found = separation(x, y, np.arange(len(x)))
    assert not found.pairs
    assert found.accuracy > 0.8


@pytest.mark.parametrize(("n", "d"), [(24, 16), (80, 256), (150, 512), (400, 512)])
def test_few_labels_in_many_dimensions_are_no_failure_of_the_features(n: int, d: int) -> None:
    """Here a probe is hardly better than chance, and would be right with more labels."""
    for seed in range(3):
        x, y = clouds(seed, n, 3, d, 3.5)
        assert not separation(x, y, np.arange(n)).pairs


def test_what_neighbours_can_tell_apart_is_told_apart() -> None:
    """A ring around a disc: no line separates them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    angle, radius = rng.uniform(0, 2 * np.pi, 600), np.where(y == 1, 3, 1) + 0.3 * rng.normal(size=600)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    found = separation(x, y, np.arange(600))
    assert not found.pairs
    assert found.accuracy > 0.95


def test_what_a_model_asked_for_is_not_scored() -> None:
    """Chosen examples are hard because they were chosen: they lie where the two clouds meet. Drawn ones say what is true."""
    x, y = clouds(0, 30_000, 2, 8, 2.5)
    centres = np.stack([x[y == c].mean(axis=0) for c in (0, 1)]).astype(float)
    nearer = np.square(x - centres[0]).sum(axis=1) - np.square(x - centres[1]).sum(axis=1)
    drawn = np.arange(len(x)) < 120
    asked = np.isin(np.arange(len(x)), np.argsort(np.abs(nearer))[:900])
    rows = np.flatnonzero(drawn | asked)
    assert separation(x[rows], y[rows], rows, np.ones(len(rows), bool)).pairs  # what the guard is for
    found = separation(x[rows], y[rows], rows, drawn[rows])
    assert not found.pairs
    assert found.n == 120


def test_constant_features_separate_nothing() -> None:
    y = np.arange(400) % 2
    found = separation(np.ones((400, 3), np.float32), y, np.arange(400))
    assert [pair.classes for pair in found.pairs] == [(0, 1)]
    assert found.pairs[0].auc == 0.5


def test_classes_with_too_few_labels_are_not_judged() -> None:
    y = np.r_[np.zeros(200, int), np.ones(200, int), np.full(LEAST - 1, 2)]
    found = separation(np.random.default_rng(0).normal(size=(len(y), 2)), y, np.arange(len(y)))
    assert found.judged == 1
    nothing = separation(np.zeros((3, 2)), np.array([0, 1, 1]), np.arange(3))
    assert nothing.judged == 0
    assert not nothing.pairs
    one = separation(np.zeros((30, 2)), np.zeros(30, int), np.arange(30))
    assert one.judged == 0


def test_thousands_of_rare_classes_take_no_room_and_hide_no_pair() -> None:
    rng = np.random.default_rng(0)
    y = np.r_[np.repeat([3, 700], 150), np.arange(2000, 3600)]
    x = rng.normal(size=(len(y), 3))
    tracemalloc.start()
    found = separation(x, y, np.arange(len(y)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.judged == 1
    assert [pair.classes for pair in found.pairs] == [(3, 700)]
    assert peak < 8 * len(y) * 1600 * 3  # scores of all classes by two probes, whole and quarter, would be 4


def test_order_of_rows_changes_nothing() -> None:
    x, y = clouds(1, 400, 3, 8, 1)
    ids = np.arange(400) * 3
    order = np.random.default_rng(0).permutation(400)
    one, other = separation(x, y, ids), separation(x[order], y[order], ids[order])
    assert one.accuracy == pytest.approx(other.accuracy)
    assert [pair.classes for pair in one.pairs] == [pair.classes for pair in other.pairs]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
)
def test_auc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, first = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[first] for b in scores[~first]]
    assert auc(scores, first, ~first) == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)
