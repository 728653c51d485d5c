"""From scores to a choice: each sampler against its definition."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from svp.chance import hash_ids, uniform
from svp.errors import BudgetError, DataError, MissingInput, SettingError
from svp.select import select
from svp.select.options import whole
from tests import reference

fixed = settings(deadline=None, derandomize=True, max_examples=100)


def by_chance(ids: NDArray[np.int64], seed: int) -> list[int]:
    return np.argsort(hash_ids(ids, seed, "ties").astype(np.int64)).tolist()


# --- temperature ---------------------------------------------------------------------------------------------------------


@fixed
@given(n=st.integers(1, 40), temperature=st.floats(0.01, 50), seed=st.integers(0, 10**6))
def test_temperature_draws_by_gumbel_keys(n: int, temperature: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, ids = rng.normal(size=n), rng.permutation(5 * n)[:n]
    chosen = select("given", n, scores=scores, ids=ids, sampler="temperature", temperature=temperature, seed=seed)
    chance = uniform(ids, seed, "temperature")
    deviation = scores.std() if n > 1 else 1
    keys = {i: s / deviation / temperature - np.log(-np.log(u)) for i, s, u in zip(ids, scores, chance, strict=True)}
    assert chosen.ids.tolist() == sorted(ids.tolist(), key=lambda i: -keys[i])
    assert chosen.gains.tolist() == [scores[ids.tolist().index(i)] for i in chosen.ids]


def test_the_first_is_drawn_with_the_chances_that_are_promised() -> None:
    scores, seeds, counts = np.array([0.0, 1, 2]), 1500, np.zeros(3)
    for seed in range(seeds):
        counts[select("given", 1, scores=scores, sampler="temperature", temperature=0.8, seed=seed).ids] += 1
    chances = np.exp(scores / scores.std() / 0.8)
    expected = seeds * chances / chances.sum()
    # Chi-squared with 2 degrees of freedom: above 18.4 once in 10,000.
    assert ((counts - expected) ** 2 / expected).sum() < 18.4


def test_a_very_small_temperature_takes_the_highest_and_equal_scores_are_left_to_chance() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    cold = select("given", 20, scores=scores, sampler="temperature", temperature=1e-300)
    assert cold.ids.tolist() == select("given", 20, scores=scores).ids.tolist()
    level = {
        tuple(select("given", 5, scores=np.full(50, 0.1), sampler="temperature", seed=seed).ids) for seed in range(20)
    }
    assert len(level) == 20


# --- strata --------------------------------------------------------------------------------------------------------------


@fixed
@given(
    n=st.integers(2, 60),
    share=st.floats(0, 1),
    drop=st.sampled_from([0, 0.1, 0.29, 0.5]),
    bins=st.sampled_from([1, 2, 5, 50]),
    seed=st.integers(0, 10**6),
)
def test_strata_take_of_each_bin_what_the_algorithm_says(
    n: int, share: float, drop: float, bins: int, seed: int
) -> None:
    scores = np.random.default_rng(seed).exponential(size=n)
    dropped = round(100 * drop) * n // 100
    budget = int(share * (n - dropped))
    chosen = select("given", budget, scores=scores, sampler="strata", drop=drop, bins=bins, seed=seed)
    low, high = np.sort(scores)[[0, n - dropped - 1]]
    assert (chosen.gains <= high).all()
    if low == high:
        return
    taken = np.minimum((chosen.gains - low) / (high - low) * bins, bins - 1).astype(int)
    expected = reference.strata_counts(scores.tolist(), budget, dropped, bins)
    assert np.bincount(taken, minlength=bins).tolist() == [expected[b] for b in range(bins)]


@fixed
@given(
    n=st.integers(2, 60),
    n_already=st.integers(0, 30),
    share=st.floats(0, 1),
    drop=st.sampled_from([0, 0.1, 0.29]),
    bins=st.sampled_from([1, 2, 5, 50]),
    seed=st.integers(0, 10**6),
)
def test_who_is_chosen_already_is_one_of_the_bins_share(
    n: int, n_already: int, share: float, drop: float, bins: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.exponential(size=n)
    by_score = np.argsort(scores)
    already = rng.permutation(n)[: min(n, n_already)]
    kept = by_score[: n - round(100 * drop) * n // 100]
    budget = int(share * np.isin(kept, already, invert=True).sum())
    chosen = select("given", budget, scores=scores, already=already, sampler="strata", drop=drop, bins=bins, seed=seed)
    low, high = scores[kept[[0, -1]]]
    if low == high:
        return
    bin_of = np.minimum((scores - low) / (high - low) * bins, bins - 1).astype(int)
    have, sizes, taken = (
        np.bincount(bin_of[i], minlength=bins) for i in (np.intersect1d(already, kept), kept, chosen.ids)
    )
    expected = reference.evenly(budget + have.sum(), sizes.tolist(), have.tolist())
    assert sorted(have + taken) == sorted(expected)


@fixed
@given(
    n=st.integers(1, 40),
    drop=st.sampled_from([0.1, 0.3, 0.6]),
    budget=st.sampled_from([0, 1.5, "30%", "100%", 1000]),
    seed=st.integers(0, 10**6),
)
def test_with_costs_strata_buy_what_fits_of_what_is_not_dropped(n: int, drop: float, budget: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, costs = rng.normal(size=n), rng.integers(0, 5, size=n) / 2
    kept = np.argsort(scores)[: n - round(100 * drop) * n // 100]
    chosen = select("given", budget, scores=scores, costs=costs, sampler="strata", drop=drop, seed=seed)
    amount = float(budget.removesuffix("%")) / 100 * costs.sum() if isinstance(budget, str) else budget
    left = amount - costs[chosen.ids].sum()
    assert set(chosen.ids) <= set(kept)
    assert left >= -1e-9
    assert not (costs[np.setdiff1d(kept, chosen.ids)] < left - 1e-9).any()


def test_minimums_reckon_without_what_is_dropped() -> None:
    scores, labels = np.arange(10.0), np.repeat([0, 1], [7, 3])
    how: Any = {"scores": scores, "labels": labels, "sampler": "strata", "drop": 0.2}
    with pytest.raises(BudgetError, match="min 2 of class 1 cannot be met: 0 are chosen already and 1 are candidates"):
        select("given", 4, **how, per_class={"min": 2})
    # The dropped ones are the cheap ones of their class: what its minimum costs is not theirs.
    costs = np.where(scores > 7, 0.1, 1.0)
    chosen = select("given", 3, **how, costs=costs, per_class={"min": {1: 1}})
    assert 7 in chosen.ids
    assert len(chosen) == 3


def test_inside_a_stratum_it_is_chance() -> None:
    counts = np.zeros(40)
    scores = np.repeat([0.0, 1.0], [10, 30])
    for seed in range(600):
        counts[select("given", 10, scores=scores, sampler="strata", seed=seed).ids] += 1
    # 5 of each bin: binomial with means 300 and 100, deviations of 12 and 9.
    assert abs(counts[:10] - 300).max() < 55
    assert abs(counts[10:] - 100).max() < 42


def test_the_share_that_ccs_drops_is_the_hardest() -> None:
    margins = np.array([[5.0, -3.0, 1.0, 2.0]])
    assert 1 not in select("ccs", 3, signals={"logit_margin": margins}, drop=0.25).ids
    with pytest.raises(SettingError, match="no option 'keep'"):
        select("ccs", 3, signals={"logit_margin": margins}, drop=0.25, keep="easy")


def test_ccs_is_strata_of_aum() -> None:
    margins = np.random.default_rng(0).normal(size=(5, 80))
    own = select("ccs", 30, signals={"logit_margin": margins}, drop=0.2, bins=10, seed=3)
    built = select("aum", 30, signals={"logit_margin": margins}, sampler="strata", drop=0.2, bins=10, seed=3)
    assert own.ids.tolist() == built.ids.tolist()
    assert own.options == {"drop": 0.2, "bins": 10}
    hardest = np.argsort(margins.mean(axis=0))[:16]
    assert not set(hardest) & set(own.ids)


def test_the_hardest_stay_out_when_limits_ask_again() -> None:
    scores, labels = np.arange(100.0), np.arange(100) % 2
    for seed in range(10):
        chosen = select(
            "given",
            60,
            scores=scores,
            labels=labels,
            per_class={"share": "equal"},
            sampler="strata",
            drop=0.2,
            seed=seed,
        )
        assert chosen.ids.max() < 80


def test_excluded_examples_are_not_in_the_share_dropped() -> None:
    scores = np.random.default_rng(0).normal(size=60)
    hard = np.argsort(scores)[-10:]
    chosen = select("given", 45, scores=scores, exclude=hard, sampler="strata", drop=0.1)
    rest = np.setdiff1d(np.arange(60), hard)
    alone = select("given", 45, scores=scores[rest], ids=rest, sampler="strata", drop=0.1)
    assert chosen.ids.tolist() == alone.ids.tolist()


# --- round robin ---------------------------------------------------------------------------------------------------------


@fixed
@given(
    n=st.integers(1, 25),
    d=st.integers(1, 4),
    pool=st.sampled_from([1, 2.5, 10]),
    size=st.sampled_from([1, 3, 10]),
    data=st.data(),
    seed=st.integers(0, 10**6),
)
def test_cluster_margin_as_defined(n: int, d: int, pool: float, size: int, data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs, points, ids = rng.dirichlet(np.ones(3), size=n), rng.normal(size=(n, d)), rng.permutation(9 * n)[:n]
    budget = data.draw(st.integers(0, n))
    chosen = select("cluster_margin", budget, probs=probs, embeddings=points, ids=ids, pool=pool, size=size, seed=seed)
    n_pool = min(n, int(np.ceil(pool * budget)))
    picks = reference.cluster_margin(
        reference.margin(probs), points, by_chance(ids, seed), budget, n_pool, int(np.ceil(n_pool / size))
    )
    assert chosen.ids.tolist() == ids[picks].tolist()


@fixed
@given(n=st.integers(2, 20), size=st.sampled_from([1, 3, 10]), data=st.data(), seed=st.integers(0, 10**6))
def test_who_is_chosen_already_had_a_turn_of_the_cluster(n: int, size: float, data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs, points, ids = rng.dirichlet(np.ones(3), size=n), rng.normal(size=(n, 2)), rng.permutation(9 * n)[:n]
    order = by_chance(ids, seed)
    already = [i for i in order if i in rng.permutation(n)[: data.draw(st.integers(0, n - 1))]]
    budget = data.draw(st.integers(0, n - len(already)))
    arrays: Any = {"probs": probs, "embeddings": points, "ids": ids, "size": size, "seed": seed}
    chosen = select("cluster_margin", budget, **arrays, pool=2, already=ids[already])
    pool = min(n - len(already), 2 * budget)
    n_clusters = int(np.ceil((pool + len(already)) / size))
    picks = reference.cluster_margin(reference.margin(probs), points, order, budget, pool, n_clusters, already)
    assert chosen.ids.tolist() == ids[picks].tolist()


def test_a_group_that_is_chosen_already_waits() -> None:
    points = np.repeat([[0.0], [50.0]], 10, axis=0) + np.arange(20)[:, None] * 0.01
    chosen = select("cluster_margin", 4, probs=np.full((20, 2), 0.5), embeddings=points, already=range(4), pool=9)
    assert chosen.ids.min() >= 10
    with pytest.raises(SettingError, match="largest=5 may be clustered, the budget is 4, 4 are chosen already"):
        select("cluster_margin", 4, probs=np.full((20, 2), 0.5), embeddings=points, already=range(4), largest=5)


@pytest.mark.parametrize("kind", ["normal", "grid", "near ties", "huge"])
def test_clusters_do_not_depend_on_the_order_of_rows(kind: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(3, size=(300, 3)) + rng.normal(size=(300, 3)) * {"normal": 1, "near ties": 1e-15}.get(kind, 0)
    points *= 1e200 if kind == "huge" else 1
    probs, order = rng.dirichlet(np.ones(3), size=300), rng.permutation(300)
    first = select("cluster_margin", 40, probs=probs, embeddings=points, pool=5)
    again = select("cluster_margin", 40, probs=probs[order], embeddings=points[order], ids=order, pool=5)
    assert again.ids.tolist() == first.ids.tolist()
    with threadpool_limits(1):
        one = select("cluster_margin", 40, probs=probs, embeddings=np.asfortranarray(points), pool=5)
    assert one.ids.tolist() == first.ids.tolist()


def test_a_batch_has_something_of_every_group() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), [200, 60, 20, 10, 10])
    points = rng.normal(size=(5, 8))[groups] * 20 + rng.normal(size=(300, 8))
    probs = np.full((300, 2), 0.5)
    chosen = select("cluster_margin", 25, probs=probs, embeddings=points, pool=12, size=60)
    assert np.bincount(groups[chosen.ids], minlength=5).tolist() == [5] * 5


# --- own -----------------------------------------------------------------------------------------------------------------


def last_of_group(scores: Any, labels: Any, already: Any, candidates: Any, budget: int, *, group: int = 0) -> Any:
    """A sampler of somebody's own: from the lowest score up, never one of a group."""
    left = candidates[labels[candidates] != group]
    return left[np.argsort(scores[left], kind="stable")[:budget]]


last_of_group.needs = "labels"  # type: ignore[attr-defined]
last_of_group.check = lambda shape, group: whole("group", group, 0)  # type: ignore[attr-defined]


def test_a_sampler_may_be_a_function_or_its_path() -> None:
    scores, labels = np.arange(9.0), np.arange(9) % 3
    path = "tests.test_samplers:last_of_group"
    for sampler in (last_of_group, path):
        chosen = select("given", 3, scores=scores, labels=labels, sampler=sampler, group=1)
        assert chosen.ids.tolist() == [0, 2, 3]
        assert (chosen.sampler, chosen.options) == (path, {"group": 1})
        assert select("given", 5, scores=scores, labels=labels, sampler=sampler).ids.tolist() == [1, 2, 4, 5, 7]
        with pytest.raises(DataError, match="had to give 7 distinct candidates"):
            select("given", 7, scores=scores, labels=labels, sampler=sampler)
        with pytest.raises(SettingError, match="group=-1"):
            select("given", 3, scores=scores, labels=labels, sampler=sampler, group=-1)
        with pytest.raises(MissingInput, match="needs labels"):
            select("given", 3, scores=scores, sampler=sampler)


# --- options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        *[("temperature", {"temperature": value}) for value in (0, -1, float("nan"), float("inf"), "1", True)],
        *[("strata", {"bins": value}) for value in (0, 1.5, "5", True)],
        *[("strata", {"drop": value}) for value in (-0.1, 1, float("nan"), "10%", True)],
        *[("round_robin", {"pool": value}) for value in (0.5, float("inf"), "10", True)],
        *[("round_robin", {"size": value}) for value in (0, float("nan"), True)],
        *[("round_robin", {"largest": value}) for value in (3, 4.5, "9")],
    ],
)
def test_options_that_make_no_sense(sampler: str, options: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(options))}="):
        select("given", 4, scores=np.arange(9.0), embeddings=np.ones((9, 1)), sampler=sampler, **options)


def test_too_much_dropped_for_the_budget() -> None:
    with pytest.raises(SettingError, match=r"drop=0\.5 leaves 5 of 10 candidates, fewer than the budget 6"):
        select("given", 6, scores=np.arange(10.0), sampler="strata", drop=0.5)
