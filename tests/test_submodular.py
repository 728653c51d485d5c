"""Facility location and graph cut: the picks of the slow version, whatever form the similarities come in."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from svp import machine
from svp.errors import DataError, MissingInput, SettingError, UnknownName
from svp.select import bounded, compared, select, submodular
from svp.select.similarity import KERNELS, Similarity
from tests import reference
from tests.test_k_center import KINDS, made

fixed = settings(deadline=None, derandomize=True, max_examples=60)
both_methods = pytest.mark.parametrize("method", ["facility_location", "graph_cut"])

# Blocks far smaller than the data; entries are thinned out as soon as every row has been looked at once, or never.
SMALL = {
    (compared, "_ROWS"): 3,
    (compared, "_COLUMNS"): 4,
    (bounded, "_ROWS"): 20,
    (bounded, "_COLUMNS"): 16,
    (submodular, "_AHEAD"): 2,
    (submodular, "_FEW"): 2,
    (submodular, "_HELD"): 10**9,
}
THINNED = {**SMALL, (submodular, "_SPARSE"): 1}
HELD = {**SMALL, (submodular, "_SPARSE"): 1, (submodular, "_HELD"): 1}
NEVER = {**SMALL, (submodular, "_SPARSE"): 10**9, (submodular, "_NOTED"): 1}


@pytest.fixture(params=[{}, THINNED, NEVER, HELD], ids=["as it is", "thinned", "never thinned", "held"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for (module, name), value in request.param.items():
        monkeypatch.setattr(module, name, value)


def matrix(n: int, seed: int, *, symmetric: bool = False, levels: int = 1 << 12) -> NDArray[np.float64]:
    """(n, n) similarities that floats hold exactly, some below 0; with few levels many are equal."""
    values = np.random.default_rng(seed).integers(-levels // 4, levels + 1, size=(n, n)) / levels
    return np.maximum(values, values.T) if symmetric else values


def cosines(embeddings: Any) -> NDArray[np.float64]:
    rows = np.asarray(embeddings, np.float64)
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def value_of(method: str, similarity: Any, ground: Any, **options: Any) -> Callable[[Any], float]:
    """The objective as a function of the chosen positions."""
    table = np.asarray(similarity, np.float64).tolist()
    if method == "graph_cut":
        return lambda chosen: reference.cut(table, ground, chosen, options.get("lambda_", 2.0))
    return lambda chosen: reference.coverage(table, ground, chosen)


def drawn(n: int, seed: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """already, exclude, candidates and ground of n examples."""
    order = np.random.default_rng(seed + 1000).permutation(n).tolist()
    already, exclude = order[: n // 5], order[n // 5 : n // 3]
    candidates = sorted(order[n // 3 :])
    return already, exclude, candidates, sorted(already + candidates)


@both_methods
@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("form", ["dense", "float32", "sparse", "coo", "integers"])
@pytest.mark.parametrize("levels", [2, 1 << 12])
def test_it_picks_what_the_slow_version_picks(method: str, form: str, levels: int) -> None:
    for seed in range(4):
        n = 5 + 8 * seed
        similarity = matrix(n, seed, levels=levels, symmetric=seed % 2 == 0)
        if form in ("sparse", "coo"):
            similarity[np.random.default_rng(seed).random((n, n)) < 0.7] = 0
        given = {
            "dense": lambda s: s,
            "float32": lambda s: np.asfortranarray(s, np.float32),
            "sparse": lambda s: sparse.csr_matrix(s),
            "coo": lambda s: sparse.coo_array(s),
            "integers": lambda s: (s * (1 << 12)).astype(np.int64),
        }[form](similarity)
        already, exclude, candidates, ground = drawn(n, seed)
        value = value_of(method, given.toarray() if sparse.issparse(given) else given, ground)
        expected, gains = reference.greedy(value, already, candidates, len(candidates))
        got = select(method, len(candidates), similarity=given, already=already, exclude=exclude, tie_break="id")
        assert got.ids.tolist() == expected
        assert got.gains.tolist() == gains  # exact: these numbers and their sums are floats


def test_both_ways_of_a_choice_are_tested_above(monkeypatch: pytest.MonkeyPatch) -> None:
    # The test of `sizes`: that they do lead to thinning, and to none.
    thinned = []
    original = submodular._Thin.__init__

    def noted(self: Any, *given: Any, **named: Any) -> None:
        thinned.append(True)
        original(self, *given, **named)

    monkeypatch.setattr(submodular._Thin, "__init__", noted)
    for sizes, expected in ((THINNED, [True]), (NEVER, [])):
        thinned.clear()
        for (module, name), value in sizes.items():
            monkeypatch.setattr(module, name, value)
        select("facility_location", 20, similarity=matrix(35, 0))
        assert thinned == expected


@both_methods
@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("kernel", ["cosine", "dot", "rbf"])
def test_each_gain_is_what_the_objective_grew_by_and_the_most_it_could(method: str, kernel: str) -> None:
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(40, 5)) * 3
    squared = ((embeddings[:, None] - embeddings) ** 2).sum(axis=2)
    already, exclude, candidates, ground = drawn(40, 3)
    within = squared[np.ix_(ground, ground)]
    similarity = {
        "cosine": cosines(embeddings),
        "dot": embeddings @ embeddings.T,
        "rbf": np.exp(-squared / within.mean()),
    }[kernel]
    value = value_of(method, similarity, ground)
    got = select(method, 20, embeddings=embeddings, already=already, exclude=exclude, kernel=kernel)
    near = 1e-5 * abs(similarity).max()
    for i in range(20):
        before = [*already, *got.ids[:i].tolist()]
        added = {c: value([*before, c]) - value(before) for c in candidates if c not in before}
        assert got.gains[i] == pytest.approx(added[int(got.ids[i])], abs=near)
        assert added[int(got.ids[i])] >= max(added.values()) - near


@both_methods
@fixed
@given(n=st.integers(1, 9), budget=st.integers(1, 4), seed=st.integers(0, 999))
def test_it_is_at_least_as_good_as_guaranteed(method: str, n: int, budget: int, seed: int) -> None:
    budget = min(n, budget)
    similarity = np.abs(matrix(n, seed, symmetric=True))
    value = value_of(method, similarity, range(n))
    best = max(value(chosen) for chosen in itertools.combinations(range(n), budget))
    got = select(method, budget, similarity=similarity)
    assert value(got.ids.tolist()) == pytest.approx(got.gains.sum())
    assert got.gains.sum() >= (1 - 1 / np.e) * best - 1e-9
    assert (np.diff(got.gains) <= 0).all()  # submodular
    assert (got.gains >= 0).all()  # monotone, for graph cut from lambda_=2 on


@both_methods
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_data_and_the_seed_decides(
    method: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    embeddings = made(kind, 60, 7, rng)
    ids = np.arange(60) * 7 + 2
    order = rng.permutation(60)
    np.save(tmp_path / "embeddings.npy", embeddings)

    def chosen(rows: Any = slice(None), source: Any = embeddings, **more: Any) -> tuple[list[int], list[float]]:
        got = select(method, 30, embeddings=source[rows], ids=ids[rows], already=ids[:9], exclude=ids[-5:], **more)
        return got.ids.tolist(), got.gains.tolist()

    first = chosen()
    assert chosen(order) == first
    assert chosen(memory="1MiB") == first
    assert chosen(source=np.asfortranarray(embeddings)) == first
    assert chosen(source=np.load(tmp_path / "embeddings.npy", mmap_mode="r")) == first
    with threadpool_limits(1):
        assert chosen() == first
    for sizes in (THINNED, HELD, NEVER):
        for (module, name), value in sizes.items():
            monkeypatch.setattr(module, name, value)
        assert chosen(order) == first
        assert chosen(memory="1MiB") == first
    monkeypatch.setattr(bounded, "_TILES", 1)
    for n_threads in (1, 3):
        monkeypatch.setattr(machine, "n_cores", lambda n_threads=n_threads: n_threads)
        assert chosen() == first


@both_methods
def test_a_matrix_on_disk_or_given_chooses_like_embeddings(method: str, tmp_path: Path) -> None:
    # Rows of one 1 each and of two equal numbers: cosines of 0, 1 and 1/2, without rounding.
    rng = np.random.default_rng(0)
    embeddings = np.zeros((60, 12), np.float32)
    for row in embeddings:
        row[rng.choice(12, size=rng.choice([1, 2]), replace=False)] = 1
    similarity = cosines(embeddings).round(6)
    similarity[similarity == 0.707107] = np.round(np.sqrt(0.5) * 2**22) / 2**22
    np.save(tmp_path / "similarity.npy", similarity)
    first = select(method, 30, embeddings=embeddings)
    mapped = np.load(tmp_path / "similarity.npy", mmap_mode="r")
    for source in (similarity, mapped, sparse.csr_array(similarity), similarity.tolist()):
        for memory in (None, "1MiB"):
            again = select(method, 30, similarity=source, memory=memory)
            assert again.ids.tolist() == first.ids.tolist()
            assert again.gains.tolist() == first.gains.tolist()
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, similarity)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [1, 1e12, 1e-12])
def test_products_are_exact_however_many_dimensions(kernel: str, size: float) -> None:
    # All of one sign: the largest sums there are. Exact means that no order of additions matters.
    embeddings = np.abs(np.random.default_rng(0).normal(size=(3, 1000))) * size
    product = KERNELS[kernel](embeddings, np.arange(3))
    left, right = product.left(slice(None)), product.right(np.arange(3))
    exact = [[sum(Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)) for y in right] for x in left]
    assert [[Fraction(value) for value in row] for row in (left @ right.T).tolist()] == exact


def truncated(similarity: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The k highest entries of each row, its own among them, of equals the first."""
    kept = np.zeros_like(similarity)
    for v, row in enumerate(similarity):
        others = sorted((s for s in range(len(row)) if s != v), key=lambda s: (-row[s], s))
        for s in [v, *others[: k - 1]]:
            kept[v, s] = row[s]
    return kept


@both_methods
@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("levels", [2, 1 << 12])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_neighbors_keeps_the_most_similar_of_each(method: str, levels: int, k: int) -> None:
    for seed in range(3):
        similarity = np.abs(matrix(20, seed, levels=levels))
        expected = select(method, 13, similarity=truncated(similarity, k), tie_break="id")
        # On the way back from sparse zeros are entries like others: nothing may be missing.
        full = sparse.csr_array((similarity.ravel(), np.indices((20, 20)).reshape(2, -1)), shape=(20, 20))
        for source in (similarity, full):
            got = select(method, 13, similarity=source, neighbors=k, tie_break="id")
            assert got.ids.tolist() == expected.ids.tolist()
            assert got.gains.tolist() == expected.gains.tolist()
    embeddings = np.random.default_rng(1).normal(size=(20, 4))
    whole, part = select(method, 9, embeddings=embeddings), select(method, 9, embeddings=embeddings, neighbors=20)
    assert part.ids.tolist() == whole.ids.tolist()


def test_neighbors_among_equals_are_decided_by_the_seed_not_by_the_row() -> None:
    embeddings = np.repeat(np.eye(3), 20, axis=0)
    ids, order = np.arange(60), np.random.default_rng(0).permutation(60)
    one = select("facility_location", 30, embeddings=embeddings, ids=ids, neighbors=5)
    two = select("facility_location", 30, embeddings=embeddings[order], ids=ids[order], neighbors=5)
    assert one.ids.tolist() == two.ids.tolist()
    assert one.gains.tolist() == two.gains.tolist()
    assert set(one.ids) != set(select("facility_location", 30, embeddings=embeddings, neighbors=5, seed=1).ids)


@fixed
@given(seed=st.integers(0, 999), k=st.integers(2, 12), budget=st.integers(0, 12))
def test_what_neighbors_costs_is_bounded_as_stated(seed: int, k: int, budget: int) -> None:
    similarity = np.abs(matrix(12, seed, symmetric=True))
    got = select("facility_location", budget, similarity=similarity, neighbors=k)
    kept = truncated(similarity, k)
    covered = kept[:, got.ids].max(axis=1, initial=0)
    least = np.array([np.sort(np.delete(row, v))[1 - k] for v, row in enumerate(similarity)])
    exact = similarity[:, got.ids].max(axis=1, initial=0).sum()
    assert got.gains.sum() == covered.sum()
    assert covered.sum() <= exact <= covered.sum() + np.maximum(least - covered, 0).sum()


def test_what_is_excluded_represents_nobody_and_need_not_be_represented() -> None:
    embeddings = np.vstack([np.tile([0.0, 1.0], (9, 1)), np.tile([1.0, 0.0], (3, 1))])
    assert select("facility_location", 1, embeddings=embeddings).ids[0] < 9
    few = select("facility_location", 2, embeddings=embeddings, exclude=range(7))
    assert few.ids[0] >= 9
    assert few.gains.tolist() == [3, 2]
    rest = select("facility_location", 1, embeddings=embeddings, already=[0])
    assert rest.ids[0] >= 9
    assert rest.gains.tolist() == [3]


@both_methods
def test_a_class_that_is_full_is_still_to_be_represented(method: str) -> None:
    similarity = matrix(24, 2)
    labels = np.arange(24) % 3
    got = select(method, 8, similarity=similarity, labels=labels, per_class={"max": {0: 1, 1: 2}})
    value = value_of(method, similarity, range(24))
    grown = [value(got.ids[: i + 1].tolist()) - value(got.ids[:i].tolist()) for i in range(8)]
    assert got.gains.tolist() == grown
    assert np.bincount(labels[got.ids])[:2].tolist() <= [1, 2]


def test_coverage_starts_from_0() -> None:
    # The second stands for all, but unlike the first for none well: below 0 nothing is lost.
    similarity = [[1.0, 0.25, -1], [-1, 0.25, -1], [-1, 0.25, -0.5]]
    got = select("facility_location", 3, similarity=similarity)
    assert got.ids.tolist()[:2] == [0, 1]
    assert got.gains.tolist() == [1, 0.5, 0]


@pytest.mark.parametrize("lambda_", [0, 0.5, np.float32(0.25), 2, 10.0])
def test_lambda_weighs_what_is_represented(lambda_: float) -> None:
    similarity = matrix(20, 1)
    value = value_of("graph_cut", similarity, range(20), lambda_=lambda_)
    expected, gains = reference.greedy(value, [], range(20), 20)
    got = select("graph_cut", 20, similarity=similarity, lambda_=lambda_, tie_break="id")
    assert got.ids.tolist() == expected
    assert got.gains.tolist() == gains


def test_rows_of_zeros_are_like_nothing() -> None:
    got = select("facility_location", 3, embeddings=[[0, 0], [1, 0], [0, 0], [1, 1]])
    assert sorted(got.ids[:2]) == [1, 3]
    assert got.gains[2] == 0


def nothing(n: int) -> NDArray[np.float64]:
    values = np.zeros((n, n))
    values[[1, 3, 4, 4], [0, 2, 1, 2]] = np.nan, np.inf, -np.inf, np.nan
    return values


@both_methods
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"similarity": nothing(9)}, DataError, r"similarity: 3 examples have NaN or inf.*first ids: \[11, 13, 14\]"),
        (
            {"similarity": sparse.csr_array(nothing(9))},
            DataError,
            r"similarity: 3 examples .*first ids: \[11, 13, 14\]",
        ),
        ({"similarity": np.zeros((9, 8))}, DataError, r"similarity: shape \(9, 8\)"),
        ({"similarity": np.zeros(9)}, DataError, r"similarity: shape \(9,\)"),
        ({"similarity": 3}, DataError, r"similarity: shape \(\)"),
        ({"similarity": np.zeros((4, 4))}, DataError, "similarity 4, ids 9"),
        ({"similarity": np.full((9, 9), "x")}, DataError, "similarity: type .* not numbers"),
        ({"similarity": np.ones((9, 9)), "kernel": "rbf"}, SettingError, "kernel='rbf'"),
        ({"embeddings": np.ones((9, 2)), "kernel": "cosin"}, UnknownName, "did you mean 'cosine'"),
        ({"embeddings": np.full((9, 2), 1e200), "kernel": "dot"}, DataError, "embeddings: .*kernel='dot'"),
        ({"embeddings": np.ones((9, 2)), "neighbors": 0}, SettingError, "neighbors=0"),
        ({"embeddings": np.ones((9, 2)), "neighbors": 2.0}, SettingError, r"neighbors=2\.0"),
        ({"embeddings": np.ones((9, 2)), "neighbors": True}, SettingError, "neighbors=True"),
        ({"similarity": np.zeros((9, 9), bool), "neighbors": "5"}, SettingError, "neighbors='5'"),
        ({"probs": np.full((9, 2), 0.5)}, MissingInput, "similarity=.*or embeddings="),
    ],
)
def test_what_makes_no_sense_is_named(method: str, given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        select(method, 2, ids=np.arange(9) + 10, **given)


@pytest.mark.parametrize("lambda_", [-1, np.nan, np.inf, True, "2"])
def test_a_lambda_that_makes_no_sense_is_named(lambda_: Any) -> None:
    with pytest.raises(SettingError, match="lambda_="):
        select("graph_cut", 1, embeddings=[[1.0]], lambda_=lambda_)


def test_the_callers_matrix_is_left_as_it_was() -> None:
    given = sparse.coo_array(([0.5, 0.25, 0.5], ([0, 0, 1], [1, 1, 1])), shape=(2, 2)).tocsr(copy=True)
    before = given.copy()
    assert select("facility_location", 1, similarity=given).ids.tolist() == [1]
    assert (given.indices.tolist(), given.data.tolist()) == (before.indices.tolist(), before.data.tolist())


def test_similarities_that_cannot_cover_anything_are_refused() -> None:
    distances = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    for source in (-distances, sparse.csr_array(-distances)):
        with pytest.raises(DataError, match=r"no value is above 0.*add a constant"):
            select("facility_location", 2, similarity=source)
        assert len(select("graph_cut", 2, similarity=source)) == 2
    assert select("facility_location", 1, similarity=5 - distances).ids.tolist() == [2]
    assert len(select("facility_location", 2, similarity=np.zeros((3, 3), bool))) == 2


def test_neighbors_of_a_method_that_has_none_is_refused() -> None:
    with pytest.raises(SettingError, match="neighbors=5: method 'random'"):
        select("random", 1, ids=[1, 2], neighbors=5)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("kernel", ["cosine", "dot"])
def test_bounds_hold_and_what_is_above_is_found(kernel: str) -> None:
    rng = np.random.default_rng(2)
    ground, s = rng.permutation(50), rng.permutation(50)[:30]
    for embeddings in (rng.normal(size=(50, 3)), rng.random((50, 400))):
        embeddings[7] = 0
        columns = Similarity.made(embeddings, None).among(ground, kernel, 1 << 20).columns(s)
        assert isinstance(columns, compared.DenseColumns)
        assert columns.rough is not None
        whole = columns.block(np.arange(50), np.arange(30)).astype(np.int64)
        low = np.maximum(whole[:, :2].max(axis=1), 0).astype(np.int32)
        v = np.flatnonzero(rng.random(50) < 0.5)
        high = low + rng.integers(1, 1 << 20, size=50, dtype=np.int32)
        of = bounded.Bounded(columns, columns.rough(), 1 << 20)
        assert (of.rough.at_most(low) >= np.maximum(whole - low[:, None], 0).sum(axis=0)).all()
        for own, top in ((np.arange(50), None), (v, high[v])):
            over = np.maximum(whole[own] - low[own, None], 0)
            exact = (over if top is None else np.minimum(over, (top - low[own])[:, None])).sum(axis=0)
            sums, error = of.between(np.arange(30), own, low[own], top)
            assert (abs(sums - exact) <= error).all()
            assert (error <= 1e-4 * (1 << 22) * 50).all()
            some = np.array([4, 1, 17])
            assert columns.sums(low[own], top, own, some).tolist() == exact[some].tolist()
        found = of.above(low, 50 * 30)
        assert np.array_equal(found.toarray(), np.where(whole > low[:, None], whole, 0))
        assert of.above(low, found.nnz - 1) is None
        assert columns.keep(1 << 20)
        assert np.array_equal(columns.block(v, some), whole[np.ix_(v, some)])
        assert columns.sums(low[v], high[v], v, some).tolist() == exact[some].tolist()
