"""TypiClust, ProbCover, D2, SEALS: the picks of slow versions written from their papers, whatever rows, blocks, memory."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.errors import SettingError, UnknownName
from svp.select import clusters, neighbors, score, select
from svp.select.probcover import probcover, pure_radius
from tests import reference
from tests.test_k_center import KINDS, made, scaled

fixed = settings(deadline=None, derandomize=True, max_examples=40)
# Values whose distances the slow versions compute to the last bit as they are.
PLAIN = [kind for kind in KINDS if kind not in ("huge", "tiny", "dust", "outlier")]
METHODS = {
    "typiclust": {"max_clusters": 7},
    "probcover": {"n_classes": 4},
    "d2": {"n_neighbors": 5},
    "seals": {"n_neighbors": 4},
}


class Case:
    """Points in an order by chance as `select` hands them over, some of them chosen already, some excluded."""

    def __init__(self, kind: str, n: int, d: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.points = scaled(made(kind, n, d, rng))
        self.scores = rng.integers(-2, 5, size=n).astype(float)
        self.probs = rng.dirichlet(np.ones(3), size=n).round(1)
        self.probs /= self.probs.sum(axis=1, keepdims=True)
        self.ids = rng.permutation(10 * n)[:n]
        part = rng.integers(4, size=n)
        order = np.argsort(hash_ids(self.ids, seed, "ties").astype(np.int64))
        self.already = [int(i) for i in order if part[i] == 0]
        self.exclude = [int(i) for i in order if part[i] == 1]
        self.ground = [int(i) for i in order if part[i] != 1]
        self.candidates = [int(i) for i in order if part[i] > 1]
        self.budget = int(rng.integers(len(self.candidates) + 1))
        self.seed = seed

    def select(self, method: str, budget: int | None = None, **arguments: Any) -> Any:
        return select(
            method,
            self.budget if budget is None else budget,
            embeddings=self.points,
            ids=self.ids,
            already=self.ids[self.already],
            exclude=self.ids[self.exclude],
            seed=self.seed,
            **arguments,
        )


cases = st.builds(
    Case,
    kind=st.sampled_from(PLAIN),
    n=st.integers(1, 40),
    d=st.sampled_from([1, 2, 9]),
    seed=st.integers(0, 10**6),
)


@fixed
@given(case=cases, max_clusters=st.integers(1, 12))
def test_typiclust_is_the_slow_version(case: Case, max_clusters: int) -> None:
    chosen = case.select("typiclust", max_clusters=max_clusters)
    if not case.budget:
        return
    k = min(len(case.already) + case.budget, max_clusters)
    ground = np.array(case.ground)
    found = clusters.k_means(case.points, ground, k, seed=case.seed)
    members = [ground[places].tolist() for places in found.members()]
    picks = reference.typiclust(case.points, members, case.already, case.candidates, case.budget)
    assert chosen.ids.tolist() == case.ids[picks].tolist()


def test_typiclust_takes_one_of_each_cluster_then_a_second() -> None:
    rng = np.random.default_rng(0)
    sizes = [40, 30, 20, 10, 3]
    true = np.repeat(np.arange(5), sizes)
    points = np.eye(5)[true] * 100 + rng.normal(size=(103, 5))
    chosen = select("typiclust", 103, embeddings=points, max_clusters=5)
    # Everything of clusters of 5 and more, by turns; the odd three at the end.
    assert true[chosen.ids][:9].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert true[chosen.ids][-3:].tolist() == [4, 4, 4]
    given_first = select("typiclust", 4, embeddings=points, max_clusters=5, already=[0, 1, 41])
    assert true[given_first.ids].tolist() == [2, 3, 1, 2]
    for c in range(4):
        members = np.flatnonzero(true == c)
        k = min(20, len(members) - 1)
        far = np.sort(np.linalg.norm(points[members][:, None] - points[members], axis=2), axis=1)[:, 1 : k + 1].mean(
            axis=1
        )
        assert chosen.ids[c] == members[far.argmin()]
        assert chosen.gains[c] == pytest.approx(-far.min())


@fixed
@given(case=cases, pick=st.integers(0, 10**6), memory=st.sampled_from([None, "1MiB"]))
def test_probcover_is_the_slow_version_and_goes_on_as_k_center(case: Case, pick: int, memory: Any) -> None:
    far = neighbors.nearest(case.points, np.arange(len(case.points)), np.arange(len(case.points)), 9)[1]
    every = np.append(np.sort(far[np.isfinite(far)]), 0.0)
    radius = float(every[pick % len(every)])  # some are exactly on the edge
    chosen = case.select("probcover", radius=radius, memory=memory)
    picks, gains = reference.max_cover(case.points, case.ground, case.already, case.candidates, case.budget, radius)
    assert chosen.ids[: len(picks)].tolist() == case.ids[picks].tolist()
    assert chosen.gains.tolist() == gains + [0] * (case.budget - len(gains))
    # Pairs that do not fit into memory are found again.
    arrays = [np.array(part, np.int64) for part in (case.already, case.candidates, case.ground)]
    found_again = probcover(
        case.points, *arrays[:2], case.budget, ids=case.ids, ground=arrays[2], seed=case.seed, memory=7, radius=radius
    )
    assert case.ids[found_again.pos].tolist() == chosen.ids.tolist()
    assert found_again.gains.tolist() == chosen.gains.tolist()
    rest = select(
        "k_center",
        case.budget - len(picks),
        embeddings=case.points,
        ids=case.ids,
        already=case.ids[case.already + picks],
        exclude=case.ids[case.exclude],
        seed=case.seed,
    )
    if len(rest):
        assert chosen.ids[len(picks) :].tolist() == rest.ids.tolist()


def test_probcover_gives_every_example_its_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1001 pairs of neighbours: each ball holds two, whichever block its centre is in.
    points = np.repeat(np.arange(1001.0) * 10, 2)[:, None] + np.tile([0.0, 1.0], 1001)[:, None]
    for rows in (500, 1024):
        monkeypatch.setattr(neighbors, "_ROWS", rows)
        chosen = select("probcover", 1001, embeddings=points, radius=1)
        assert chosen.gains.tolist() == [2.0] * 1001
        assert sorted(chosen.ids // 2) == list(range(1001))


@pytest.mark.parametrize("kind", PLAIN)
def test_the_radius_is_the_largest_that_is_pure(kind: str) -> None:
    points = scaled(made(kind, 60, 3, np.random.default_rng(5)))
    ground = np.arange(60)
    radius = pure_radius(points, ground, 4, seed=1, memory=1 << 30)
    labels = clusters.k_means(points, ground, 4, seed=1).labels.tolist()
    assert reference.purity(points, labels, radius) >= 0.95
    if len(set(labels)) > 1:
        assert reference.purity(points, labels, float(np.nextafter(radius, np.inf))) < 0.95
    chosen = select("probcover", 20, embeddings=points, n_classes=4, seed=1, tie_break="id")
    assert (
        chosen.ids.tolist()
        == select("probcover", 20, embeddings=points, radius=radius, seed=1, tie_break="id").ids.tolist()
    )


@fixed
@given(case=cases, k=st.integers(0, 6))
def test_d2_is_the_slow_version_where_sums_are_exact(case: Case, k: int) -> None:
    # Whole scores and weights of 1: what is equal on paper is equal, and the earlier goes first.
    chosen = case.select("d2", scores=case.scores, n_neighbors=k, gamma_f=0, gamma_r=0)
    picks, gains, _ = reference.d2(
        case.scores.tolist(), case.points, case.ground, case.already, case.candidates, case.budget, k, 0, 0
    )
    assert chosen.ids.tolist() == case.ids[picks].tolist()
    assert chosen.gains.tolist() == gains


@fixed
@given(
    case=cases,
    k=st.integers(0, 6),
    gamma_f=st.sampled_from([0.0, 1.0, 3.0]),
    gamma_r=st.sampled_from([0.0, 1.0, 0.5]),
)
def test_each_pick_of_d2_has_the_highest_value_of_the_slow_version(
    case: Case, k: int, gamma_f: float, gamma_r: float
) -> None:
    # Examples that share their neighbours have sums of the same numbers in another order: they may differ in the last bits,
    # so which is taken is not compared, but that nothing was higher. One example at most is `already`: its turn is certain.
    case.scores = np.random.default_rng(case.seed).normal(size=len(case.scores))
    others = case.already[1:]
    case.already, case.exclude = case.already[:1], case.exclude + others
    case.ground = [i for i in case.ground if i not in others]
    chosen = case.select("d2", scores=case.scores, n_neighbors=k, gamma_f=gamma_f, gamma_r=gamma_r)
    rows = {id_: row for row, id_ in enumerate(case.ids.tolist())}
    picks = [rows[id_] for id_ in chosen.ids.tolist()]
    _, gains, highest = reference.d2(
        case.scores.tolist(), case.points, case.ground, case.already, case.candidates, case.budget, k, gamma_f, gamma_r,
        picks,
    )  # fmt: skip
    assert len(set(picks) & set(case.candidates)) == case.budget
    np.testing.assert_allclose(chosen.gains, gains, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(chosen.gains, highest, rtol=1e-9, atol=1e-9)


def test_d2_without_neighbours_is_the_ranking_and_forgetting_is_its_default() -> None:
    rng = np.random.default_rng(0)
    correct = rng.integers(2, size=(9, 50)).astype(np.uint8)
    points = rng.normal(size=(50, 3))
    forgotten = score("forgetting", signals={"correct": correct})
    by_signal = select("d2", 20, signals={"correct": correct}, embeddings=points)
    assert by_signal.ids.tolist() == select("d2", 20, scores=forgotten, embeddings=points).ids.tolist()
    ranked = select("forgetting", 20, signals={"correct": correct})
    for alone in ({"n_neighbors": 0}, {"gamma_f": np.inf, "gamma_r": np.inf}):
        assert select("d2", 20, scores=forgotten, embeddings=points, **alone).ids.tolist() == ranked.ids.tolist()
    # A crowd of hard ones: the second pick is from elsewhere.
    points = np.array([[0.0], [0.0], [0.0], [9.0], [9.0], [9.0]])
    picked = select("d2", 2, scores=[5, 5, 5, 4, 4, 4], embeddings=points, n_neighbors=2)
    assert sorted(picked.ids // 3) == [0, 1]


@fixed
@given(case=cases, k=st.integers(1, 8), name=st.sampled_from(["margin", "entropy", "least_confidence"]))
def test_seals_is_the_slow_version(case: Case, k: int, name: str) -> None:
    chosen = case.select("seals", probs=case.probs, score=name, n_neighbors=k)
    values = score(name, probs=case.probs)
    picks = reference.seals(values, case.points, case.ground, case.already, case.candidates, case.budget, k)
    assert chosen.ids.tolist() == case.ids[picks].tolist()
    assert chosen.gains.tolist() == values[picks].tolist()
    if not case.already:
        by_score = select(
            name, case.budget, probs=case.probs, ids=case.ids, exclude=case.ids[case.exclude], seed=case.seed
        )
        assert chosen.ids.tolist() == by_score.ids.tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_blocks_and_memory_change_nothing(method: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    n = 45
    arrays: dict[str, NDArray[Any]] = {"embeddings": made(kind, n, 6, rng)}
    if method == "d2":
        arrays["scores"] = rng.integers(3, size=n)
    if method == "seals":
        arrays["probs"] = rng.dirichlet(np.ones(3), size=n)
    order, already = rng.permutation(n), np.arange(9)

    def run(order: Any = order, memory: Any = None) -> tuple[Any, ...]:
        rows = {name: np.asfortranarray(values[order]) for name, values in arrays.items()}
        chosen = select(method, 18, **rows, ids=order, already=already, memory=memory, **METHODS[method])
        return chosen.ids.tolist(), chosen.gains.tolist()

    first = run()
    assert run(np.arange(n)) == first
    for size in (4, 30):
        for name in ("_ROWS", "_COLUMNS", "_FIRST", "_PAIR_NUMBERS"):
            monkeypatch.setattr(neighbors, name, size)
        monkeypatch.setattr(clusters, "_ROWS", size)
        assert run(rng.permutation(n), "1MiB") == first


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("typiclust", {"max_clusters": 0}, "max_clusters=0"),
        ("probcover", {"radius": -1}, "radius=-1"),
        ("probcover", {"radius": "automatic"}, "radius='automatic'"),
        ("probcover", {"radius": np.nan}, "radius=nan"),
        ("probcover", {"n_classes": 1}, "n_classes=1"),
        ("d2", {"n_neighbors": -1}, "n_neighbors=-1"),
        ("d2", {"gamma_f": -1}, "gamma_f=-1"),
        ("d2", {"gamma_r": np.nan}, "gamma_r=nan"),
        ("seals", {"n_neighbors": 0}, "n_neighbors=0"),
    ],
)
def test_options_that_make_no_sense(method: str, options: dict[str, Any], words: str) -> None:
    given_ = {"embeddings": [[0.0], [1.0]], "probs": [[1.0], [1.0]]} | ({"scores": [1, 2]} if method == "d2" else {})
    with pytest.raises(SettingError, match=words):
        select(method, 1, **given_, **options)


def test_a_score_that_seals_does_not_know() -> None:
    with pytest.raises(UnknownName, match="did you mean 'margin'"):
        select("seals", 1, embeddings=[[0.0]], probs=[[1.0]], score="margins")
