"""Each score against its slow version, and cases that published code gets wrong."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from svp.errors import DataError, MissingInput, SettingError
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


def history(n_epochs: int, n: int, rng: np.random.Generator, dtype: Any = np.float64) -> NDArray[Any]:
    """A signal with holes, but none without a value in the first epoch or two."""
    values = rng.normal(size=(n_epochs, n))
    holes = rng.random((n_epochs, n)) < 0.3
    holes[rng.integers(min(2, n_epochs), size=n), np.arange(n)] = False
    return np.where(holes, np.nan, values).astype(dtype)


@fixed
@given(
    n=st.integers(0, 20),
    n_epochs=st.integers(1, 14),
    epochs=st.integers(2, 20),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_scores_of_signals_as_defined(n: int, n_epochs: int, epochs: int, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    signal = history(n_epochs, n, rng, dtype)
    correct = np.where(np.isnan(signal), 255, rng.integers(2, size=signal.shape)).astype(np.uint8)
    exact: Any = {"rtol": 1e-11, "atol": 1e-13}
    np.testing.assert_allclose(score("aum", signals={"logit_margin": signal}), reference.aum(signal), **exact)
    easy = score("aum", signals={"logit_margin": signal}, keep="easy")
    np.testing.assert_allclose(easy, -np.array(reference.aum(signal)), **exact)
    norms = score("el2n", signals={"el2n": signal}, epochs=epochs)
    np.testing.assert_allclose(norms, reference.el2n(signal, epochs), **exact)
    for by, expected in reference.data_map(signal.astype(float), correct).items():
        values = score("data_map", signals={"p_true": signal, "correct": correct}, by=by)
        np.testing.assert_allclose(values, expected, **exact)


@fixed
@given(n=st.integers(0, 12), c=st.integers(1, 6), d=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_grand_and_moderate_as_defined(n: int, c: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs, points, labels = rng.dirichlet(np.ones(c), size=n), rng.normal(size=(n, d)), rng.integers(c, size=n)
    values = score("grand", probs=probs, embeddings=points, labels=labels)
    np.testing.assert_allclose(values, reference.grand(probs, points, labels.tolist()), rtol=1e-12)
    for median in ("all", "class"):
        expected = reference.moderate(points, labels.tolist(), per_class=median == "class") if n else []
        values = score("moderate", embeddings=points, labels=labels, median=median)
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def test_el2n_counts_the_first_ten_epochs() -> None:
    norms = np.array([[1.0]] * 10 + [[0.0]] * 5)
    assert score("el2n", signals={"el2n": norms}).tolist() == [1]
    assert score("el2n", signals={"el2n": norms}, epochs=20).tolist() == [10 / 15]


@pytest.mark.parametrize(
    ("method", "kinds"), [("el2n", ["el2n"]), ("aum", ["logit_margin"]), ("data_map", ["p_true", "correct"])]
)
def test_what_training_never_showed_has_no_score(
    method: str, kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: dict[str, Any] = {kind: np.ones((12, 9)) for kind in kinds}
    for signal in signals.values():
        signal[:10, [2, 5]] = 255 if signal is signals.get("correct") else np.nan
        signal[10:, [2, 5]] = 255 if signal is signals.get("correct") else np.nan if method != "el2n" else 1
    monkeypatch.setattr("svp.select.inputs.CHUNK_NUMBERS", 12)
    with pytest.raises(DataError, match=rf"'{method}' gave 2 scores.*\[12, 15\].*never showed"):
        select(method, 1, signals=signals, ids=np.arange(9) + 10)


def test_on_the_map_an_ambiguous_example_goes_before_a_hard_and_an_easy_one() -> None:
    signals = {
        "p_true": np.array([[0.9, 0.1, 0.1], [0.9, 0.1, 0.9]], np.float16),
        "correct": np.array([[1, 0, 0], [1, 0, 1]], np.uint8),
    }
    assert select("data_map", 1, signals=signals).ids[0] == 2
    assert select("data_map", 3, signals=signals, by="confidence").ids.tolist() == [1, 2, 0]
    assert select("data_map", 3, signals=signals, by="correctness").ids.tolist() == [1, 2, 0]


def test_the_map_reads_the_signal_that_it_is_drawn_of() -> None:
    p_true, correct = {"p_true": [[0.9, 0.1]]}, {"correct": np.array([[1, 0]], np.uint8)}
    assert select("data_map", 1, signals=p_true, by="confidence").ids.tolist() == [1]
    assert select("data_map", 1, signals=correct, by="correctness").ids.tolist() == [1]
    assert score("data_map", signals=correct, by="correctness").tolist() == [-1, 0]
    for signals, by, lacks in ((correct, "variability", "p_true"), (p_true, "correctness", "correct")):
        with pytest.raises(MissingInput, match=f"needs the signal '{lacks}'"):
            select("data_map", 1, signals=signals, by=by)


def test_a_mislabelled_example_goes_first_by_aum_and_last_with_keep_easy() -> None:
    signals = {"logit_margin": [[4.0, -6, 1], [5, -3, 2]]}
    assert select("aum", 3, signals=signals).ids.tolist() == [1, 2, 0]
    assert select("aum", 3, signals=signals, keep="easy").ids.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("el2n", {"epochs": 0}),
        ("el2n", {"epochs": 1.5}),
        ("el2n", {"epochs": True}),
        ("aum", {"keep": "best"}),
        ("data_map", {"by": "chance"}),
        ("moderate", {"median": "mean"}),
        ("ssl_prototypes", {"clusters": 0}),
        ("ssl_prototypes", {"clusters": 2.5}),
    ],
)
def test_options_that_make_no_sense(method: str, options: dict[str, Any]) -> None:
    signals = {kind: np.ones((2, 3)) for kind in ("el2n", "logit_margin", "p_true", "correct")}
    with pytest.raises(SettingError, match=next(iter(options))):
        score(method, signals=signals, embeddings=np.ones((3, 2)), labels=[0, 1, 0], **options)


@pytest.mark.parametrize("method", ["grand", "moderate"])
def test_labels_that_a_score_of_labels_cannot_use(method: str) -> None:
    arrays: Any = {"probs": np.full((3, 2), 0.5), "embeddings": np.ones((3, 2)), "ids": [7, 8, 9]}
    with pytest.raises(DataError, match=rf"{method}: .*without a label.*\[8\]"):
        score(method, labels=[0, -1, 1], **arrays)
    if method == "grand":
        with pytest.raises(DataError, match=r"class 2, but probs has the classes 0 to 1"):
            score(method, labels=[0, 1, 2], **arrays)


@pytest.mark.parametrize("d", [1, 3, 40])
def test_moderate_does_not_depend_on_the_order_of_rows(d: int) -> None:
    rng = np.random.default_rng(0)
    points, labels = (rng.integers(3, size=(3000, d)) * 0.1).astype(np.float32), rng.integers(2, size=3000)
    values = score("moderate", embeddings=points, labels=labels)
    order = rng.permutation(3000)
    again = score("moderate", embeddings=np.asfortranarray(points[order]), labels=labels[order], ids=order)
    assert again.tolist() == values[order].tolist()


def test_prototypes_are_the_middles_of_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(3, size=200)
    points = np.array([[0.0, 0], [50, 0], [0, 50]])[groups] + rng.normal(size=(200, 2))
    values = score("ssl_prototypes", embeddings=points, clusters=3)
    middles = np.array([points[groups == g].mean(axis=0) for g in range(3)])
    np.testing.assert_allclose(values, np.linalg.norm(points - middles[groups], axis=1), rtol=1e-9)
    chosen = select("ssl_prototypes", 200, embeddings=points, clusters=3)
    assert chosen.gains.tolist() == sorted(values.tolist(), reverse=True)


def test_scores_of_ones_own_are_numbers_of_any_kind() -> None:
    whole = np.array([3, 0, 250], np.uint8)
    for chosen in (select("given", 3, scores=whole), select("margin", 3, scores=whole)):
        assert chosen.ids.tolist() == [2, 0, 1]
        assert chosen.gains.tolist() == [250, 3, 0]
    assert score("given", scores=whole).tolist() == [3, 0, 250]
