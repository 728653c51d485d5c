"""Chance with each class's share of it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.chance import hash_ids
from svp.select import select

fixed = settings(deadline=None, derandomize=True, max_examples=150)


@fixed
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 10**6))
def test_every_prefix_is_less_than_one_from_each_share(sizes: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(labels)
    taken = labels[select("stratified_random", n, labels=labels, seed=seed).ids]
    for k in range(n + 1):
        counts = np.bincount(taken[:k], minlength=len(sizes))
        # In whole numbers: |count - k size / n| < 1.
        assert (abs(counts * n - k * np.array(sizes)) < n).all()


@fixed
@given(n=st.integers(1, 60), seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_what_is_chosen_already_counts(n: int, seed: int, share: float) -> None:
    labels = np.random.default_rng(seed).integers(-1, 3, size=n)
    whole = select("stratified_random", n, labels=labels, seed=seed).ids.tolist()
    k = int(share * n)
    rest = select("stratified_random", n - k, labels=labels, already=whole[:k], seed=seed).ids.tolist()
    assert Counter(labels[rest]) == Counter(labels[whole[k:]])
    taken = whole[:k]
    for i in rest:
        taken.append(i)
        for c in set(labels.tolist()):
            assert abs((labels[taken] == c).sum() * n - len(taken) * (labels == c).sum()) < n


def test_a_class_with_more_than_its_share_waits() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    chosen = select("stratified_random", 8, labels=labels, already=np.arange(6))
    assert labels[chosen.ids[:6]].tolist() == [1] * 6
    assert sorted(labels[chosen.ids[6:]]) == [0, 1]


def test_inside_a_class_it_is_the_chance_of_the_ids() -> None:
    labels, ids = np.array([0, 1] * 50), np.arange(100) * 7
    chosen = select("stratified_random", 60, labels=labels, ids=ids, seed=4).ids
    by_chance = ids[np.argsort(hash_ids(ids, 4, "ties").astype(np.int64))]
    for c in (0, 1):
        own = chosen[labels[chosen // 7] == c].tolist()
        assert own == [i for i in by_chance if labels[i // 7] == c][:30]


@pytest.mark.parametrize("budget", [1, 2, 4])
def test_which_class_a_rounded_share_falls_to_is_chance(budget: int) -> None:
    labels = np.repeat(np.arange(5), 4)
    counts = Counter(
        int(c) for seed in range(400) for c in labels[select("stratified_random", budget, labels=labels, seed=seed).ids]
    )
    # Binomial with mean 80 * budget and a deviation of at most 10: 4.5 of them either way.
    assert all(abs(counts[c] - 80 * budget) < 45 for c in range(5)), counts
