"""Who stands for whom: each example that was not chosen belongs to the nearest that was."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import svp
from svp.errors import DataError
from svp.select import Selection, select
from svp.select.representatives import described, stands_for
from tests import reference
from tests.test_k_center import KINDS, made, scaled


@settings(deadline=None, derandomize=True, max_examples=60)
@given(kind=st.sampled_from(KINDS), n=st.integers(1, 40), d=st.sampled_from([1, 2, 9]), seed=st.integers(0, 10**6))
def test_each_other_example_has_its_nearest_pick(kind: str, n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = made(kind, n, d, rng)
    ids = rng.permutation(10 * n)[:n]
    selection = select("random", int(rng.integers(n + 1)), ids=ids, seed=seed)
    found = svp.stands_for(selection, points, ids=ids)
    at = {int(i): row for row, i in enumerate(ids)}
    others = sorted(set(ids.tolist()) - set(selection.ids.tolist()))
    assert found.ids.tolist() == others
    assert found.picks.tolist() == selection.ids.tolist()
    if not len(selection):
        assert (found.nearest == -1).all()
        assert np.isnan(found.distances).all()
        return
    rows = [at[int(i)] for i in selection.ids]
    expected = reference.neighbors(scaled(points), [at[i] for i in others], rows, 1)
    assert found.nearest.tolist() == [int(ids[names[0]]) for names, _ in expected]
    back = np.frexp(np.abs(points.astype(float)).max())[1]
    assert found.distances.tolist() == [float(np.ldexp(np.sqrt(squares[0]), back)) for _, squares in expected]
    assert found.counts.tolist() == [found.nearest.tolist().count(i) for i in selection.ids.tolist()]
    for pick in selection.ids.tolist():
        mine = {i: x for i, x, p in zip(others, found.distances, found.nearest, strict=True) if p == pick}
        assert found.of(pick).tolist() == sorted(mine, key=lambda i: (mine[i], i))


def test_of_equally_near_picks_the_first_chosen_stands_for_it() -> None:
    selection = Selection(np.array([7, 3]), np.zeros(2), np.ones(2), "own")
    found = svp.stands_for(selection, [[0.0], [1.0], [2.0]], ids=[3, 5, 7])
    assert (found.nearest.tolist(), found.counts.tolist()) == ([7], [1, 0])
    later = svp.stands_for(selection.head(1), [[0.0], [1.0], [2.0]], ids=[3, 5, 7], already=[3])
    assert (later.nearest.tolist(), later.counts.tolist()) == ([3], [0])  # what was there already was chosen first
    before = svp.stands_for(selection.head(0), [[1.0], [0.0], [2.0]], ids=[5, 7, 3], already=[7, 3])
    assert before.nearest.tolist() == [3]
    with pytest.raises(DataError, match="5 is not among the 2 chosen"):
        found.of(5)
    with pytest.raises(DataError, match=r"selection: 1 ids are not among the examples.*\[7\]"):
        svp.stands_for(selection, [[0.0], [1.0]], ids=[3, 5])


def test_what_was_chosen_before_may_be_a_selection() -> None:
    points = np.arange(8.0)[:, None]
    before, now = (select("k_center", 2, embeddings=points, already=ids) for ids in ([], [0, 7]))
    for call in (stands_for, described):
        assert call(now, points, already=before) is not None
    ids = stands_for(now, points, already=before.ids.tolist())
    np.testing.assert_array_equal(stands_for(now, points, already=before).nearest, ids.nearest)
    expected = svp.forecast("k_center", 2, embeddings=points, already=before, exclude=now)
    assert expected.bytes == svp.forecast("k_center", 2, embeddings=points, already=before.ids, exclude=now.ids).bytes


@pytest.mark.parametrize("sparse", [True, False])
def test_a_matrix_is_compared_in_the_memory_there_is(sparse: bool) -> None:
    n = 1200
    matrix = np.eye(n)
    selection = select("random", n // 2, ids=np.arange(n))
    given = scipy.sparse.csr_array(matrix) if sparse else matrix
    tracemalloc.start()
    found = stands_for(selection, similarity=given, memory="1MiB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.nearest == -1).all()
    assert peak < 3 << 20


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_similarities_that_are_no_numbers_are_named(form: str, value: float) -> None:
    similarity = np.eye(6)
    similarity[4, 1] = value
    matrix = similarity if form == "dense" else scipy.sparse.csr_array(similarity)
    selection = Selection(np.array([11, 10]), np.zeros(2), np.ones(2), "own")
    with pytest.raises(DataError, match=r"similarity: 1 examples have NaN or infinite values, the first ids: \[14\]"):
        svp.stands_for(selection, similarity=matrix, ids=np.arange(10, 16))


def test_counts_are_saved_with_the_selection_and_a_head_has_none(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(30, 2))
    selection = select("k_center", 4, embeddings=points)
    found = svp.stands_for(selection, points)
    assert found.counts.sum() == 26
    counted = replace(selection, stands_for=found.counts)
    counted.save(tmp_path / "picks.parquet")
    again = Selection.load(tmp_path / "picks.parquet")
    assert again.stands_for is not None
    assert again.stands_for.tolist() == found.counts.tolist()
    assert counted.head(2).stands_for is None
    selection.save(tmp_path / "plain.parquet")
    assert Selection.load(tmp_path / "plain.parquet").stands_for is None


def earlier(far: Any, picks: list[int], before: list[int]) -> list[int]:
    """For each pick the nearest of those chosen before it, of equals the first; -1 where there is none."""
    found = []
    for t, i in enumerate(picks):
        base = [j for j in [*before, *picks[:t]] if np.isfinite(far(i, j))]
        found.append(min(base, key=lambda j: far(i, j)) if base else -1)
    return found


@settings(deadline=None, derandomize=True, max_examples=40)
@given(kind=st.sampled_from(KINDS), n=st.integers(1, 110), d=st.sampled_from([1, 3]), seed=st.integers(0, 10**6))
def test_who_was_chosen_before_and_is_nearest(kind: str, n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = made(kind, n, d, rng)
    chosen, before, out = np.split(rng.permutation(n), np.sort(rng.integers(n + 1, size=2)))
    before, out = np.sort(before[: len(before) // 2]), out[: len(out) // 2]
    selection = Selection(chosen, np.zeros(len(chosen)), np.ones(len(chosen)), "own")
    found = described(selection, points, already=before[::-1], exclude=out)
    rows = scaled(points)
    expected = earlier(lambda i, j: reference.squared(rows[i], rows[j]), chosen.tolist(), before.tolist())
    assert found.nearest.tolist() == expected
    back = np.frexp(np.abs(points.astype(float)).max())[1]
    far = [
        np.ldexp(np.sqrt(reference.squared(rows[i], rows[j])), back)
        for i, j in zip(chosen, expected, strict=True)
        if j >= 0
    ]
    assert found.distances[found.nearest >= 0].tolist() == far
    assert np.isnan(found.distances[found.nearest < 0]).all()
    others = np.setdiff1d(np.arange(n), [*chosen, *before, *out]).tolist()
    by = reference.neighbors(rows, others, [*before, *chosen], 1)
    counts = [sum(names == [i] for names, _ in by) for i in chosen.tolist()]
    assert found.stands_for.tolist() == counts
    taken = select("k_center", 1, embeddings=points)
    assert described(taken, points).nearest is taken.nearest  # what a method says itself stays


@settings(deadline=None, derandomize=True, max_examples=40)
@given(n=st.integers(1, 80), form=st.sampled_from(["dense", "csr", "coo"]), seed=st.integers(0, 10**6))
def test_of_a_matrix_it_is_the_most_similar(n: int, form: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-2, 4, size=(n, n)).astype(float)
    chosen, before = np.split(rng.permutation(n)[: n - n // 3], [n // 2])
    before = np.sort(before)
    given_ = matrix if form == "dense" else getattr(scipy.sparse, f"{form}_array")(matrix)
    selection = Selection(chosen, np.zeros(len(chosen)), np.ones(len(chosen)), "own")
    found = described(selection, similarity=given_, already=before)

    def far(i: int, j: int) -> float:
        return -matrix[i, j] if matrix[i, j] > 0 else np.inf

    assert found.nearest.tolist() == earlier(far, chosen.tolist(), before.tolist())
    assert found.distances is None
    order = [*before.tolist(), *chosen.tolist()]
    others = np.setdiff1d(np.arange(n), order).tolist()
    by = [min(near, key=lambda j: far(i, j)) for i in others if (near := [j for j in order if np.isfinite(far(i, j))])]
    assert found.stands_for.tolist() == [by.count(i) for i in chosen.tolist()]
