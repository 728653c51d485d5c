"""A run's numbers in words: the claims first, each sentence saying what the numbers say."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.audit import payment
from svp.evaluate import better, difference, no_worse
from svp.words import claims, points, seconds, times, undertrained, verdict


def arm(name: str, seed: int, accuracy: float, n: int = 50, equal: str = "epochs") -> dict[str, Any]:
    return {"arm": name, "equal": equal, "seed": seed, "n": n, "accuracy": accuracy, "model": "preact20"}


def coreset_metrics(own: np.ndarray, random: np.ndarray, full: np.ndarray, margin: float = 1.0) -> dict[str, Any]:
    """As the workflow makes them, from (seeds, n_test) answers."""
    vs_random, vs_full = difference(own, random), difference(own, full)
    arms = [
        arm(name, seed, float(row.mean()), 100 if name == "full" else 50)
        for name, rows in (("proxy", own), ("random", random), ("full", full))
        for seed, row in enumerate(rows)
    ]
    shown = no_worse(vs_full, margin)
    return {
        "workflow": "coreset",
        "margin": margin,
        "majority_rate": 0.1,
        "arms": arms,
        "comparisons": [
            {
                "arm": "proxy",
                "against": "random",
                "equal": "epochs",
                "question": "better",
                "verdict": better(vs_random),
                **vs_random.facts(),
            },
            {
                "arm": "proxy",
                "against": "full",
                "equal": "epochs",
                "question": "no worse",
                "verdict": shown,
                **vs_full.facts(),
            },
        ],
        "agreement": [],
        "payments": [{"arm": "proxy", "equal": "epochs", **payment([40] * len(own), [100] * len(own), shown).facts()}],
    }


def test_what_speaks_against_a_choice_is_told() -> None:
    metrics = coreset_metrics(*(answers(0.8, 2, 100, i) for i in range(3))) | {"method": "forgetting"}
    choice = {"n": 50, "n_all": 100, "ties": 20, "never_learned": 2, "never_learned_of_all": 4}
    quiet = verdict(metrics)
    assert verdict({**metrics, "choices": [choice]}) == quiet
    (ties,) = set(verdict({**metrics, "choices": [choice, {**choice, "ties": 44}]})) - set(quiet)
    assert ties.startswith("Chance chose 64% of what is kept: forgetting gave it the same score")
    (never,) = set(verdict({**metrics, "choices": [{**choice, "ties": None, "never_learned": 3}]})) - set(quiet)
    assert never.startswith("Of what is kept the proxy got 6.0% right in no epoch, of all 4.0%")
    (many,) = set(verdict({**metrics, "choices": [{**choice, "ties": None, "never_learned": 8}]})) - set(quiet)
    assert "16.0% right in no epoch" in many
    assert "teaches less than chance" in many
    unknown = {**choice, "never_learned": None, "never_learned_of_all": None}
    assert verdict({**metrics, "choices": [unknown]}) == quiet


def answers(share: float, n_seeds: int, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n_seeds, n)) < share


@pytest.mark.parametrize(
    ("n_seeds", "shares"), itertools.product([1, 3], [(0.9, 0.5, 0.9), (0.5, 0.9, 0.9), (0.7, 0.7, 0.7)])
)
def test_words_say_what_the_numbers_say(n_seeds: int, shares: tuple[float, float, float]) -> None:
    metrics = coreset_metrics(*(answers(share, n_seeds, 3000, i) for i, share in enumerate(shares)), margin=3)
    said = verdict(metrics)
    assert all("\n" not in sentence for sentence in said)
    lead, outcome, *rest = said
    for found, sentence in zip(metrics["comparisons"], rest[:2], strict=True):
        assert f"{found['mean']:+.2f} points" in sentence
        claim = "Better" if found["question"] == "better" else "No worse (margin 3 points)"
        assert sentence.endswith(f" {claim}: {found['verdict']}.")
        if n_seeds == 1:
            assert found["verdict"] == "not shown"
            assert "--seeds 3" in sentence
        else:
            assert f"{found['low']:+.2f} to {found['high']:+.2f}" in sentence
            assert f"could show {found['smallest']:.2f}" in sentence
    assert "the part the proxy chose" in outcome
    for share, part in zip(shares, outcome.split(";"), strict=True):
        assert float(part.split("%")[0].split()[-1]) == pytest.approx(100 * share, abs=3)
    begins = {"pays": "It pays: ", "does not pay": "It does not pay: ", "not shown": "Not shown whether it pays: "}
    assert lead.startswith(begins[metrics["payments"][0]["verdict"]])
    assert "2.5 times as fast" in lead
    json.dumps(metrics, allow_nan=False)


def test_so_few_rows_that_nothing_can_be_shown_are_said_to_show_nothing() -> None:
    metrics = coreset_metrics(np.ones((2, 2), bool), np.zeros((2, 2), bool), np.ones((2, 2), bool))
    sentence = next(said for said in verdict(metrics) if "random part" in said and "against" in said)
    assert "95 % interval -59.12 to +100.00; 2 seeds and 2 test rows could show no difference" in sentence


def test_clear_cases_are_called_clear() -> None:
    metrics = coreset_metrics(answers(0.9, 5, 4000, 0), answers(0.5, 5, 4000, 1), answers(0.8, 5, 4000, 2))
    assert [c["verdict"] for c in metrics["comparisons"]] == ["shown", "shown"]
    assert metrics["payments"][0]["verdict"] == "pays"
    metrics = coreset_metrics(answers(0.5, 5, 4000, 0), answers(0.9, 5, 4000, 1), answers(0.9, 5, 4000, 2))
    assert [c["verdict"] for c in metrics["comparisons"]] == ["refuted", "refuted"]
    assert metrics["payments"][0]["verdict"] == "does not pay"


def test_what_was_not_measured_is_not_mentioned() -> None:
    metrics = coreset_metrics(*(answers(0.8, 3, 100, i) for i in range(3)))
    bare = {**metrics, "comparisons": [], "payments": [], "arms": metrics["arms"][:3]}
    lead, outcome = verdict(bare)
    assert lead == "Whether it pays was not measured: add --control random full."
    for word in ("random", "everything", "alike"):
        assert word not in outcome


def test_agreement_is_told_with_what_two_targets_reach() -> None:
    metrics = coreset_metrics(*(answers(0.8, 2, 100, i) for i in range(3)))
    own = {"overlap": 0.75, "spearman": 0.5, "chance": 0.5, "between": "proxy and target"}
    metrics["agreement"] = [
        own,
        {**own, "overlap": 0.85, "spearman": 0.7},
        {**own, "between": "target and target", "spearman": None},
    ]
    said = verdict(metrics)
    assert (
        "Proxy and target rank alike to this degree: Spearman 0.60, 80% of the choice in common (chance: 50%)." in said
    )
    assert "Two seeds of the target rank alike to this degree: 75% of the choice in common (chance: 50%)." in said


def test_a_proxy_as_good_as_the_target_is_said_so() -> None:
    metrics = coreset_metrics(*(answers(0.8, 3, 100, i) for i in range(3)))
    last = (
        "The proxy itself is no worse than the target (-0.3 points, -0.8 to +0.2; margin 1 point): "
        "you may not need the target at all."
    )
    for judged, expected in (("shown", True), ("not shown", False), ("refuted", False)):
        found = {**metrics["comparisons"][1], "arm": "proxy model", "verdict": judged}
        found |= {"mean": -0.3, "low": -0.8, "high": 0.2}
        said = verdict({**metrics, "comparisons": [*metrics["comparisons"], found]})
        assert (said[-1] == last) == expected
        assert not any("proxy model" in sentence for sentence in said)


ACTIVE = {
    "workflow": "active",
    "margin": 1,
    "majority_rate": 0.1,
    "arms": [arm("proxy", 0, 0.5)],
    "comparisons": [],
    "agreement": [],
    "same_model": False,
}


def test_speed_up_of_selection_is_told_at_each_total() -> None:
    speed_up = [
        {"n_labelled": 100, "seconds": 0.002, "target_seconds": 0.001, "ratio": 0.5},
        {"n_labelled": 200, "seconds": 10.0, "target_seconds": 45.0, "ratio": 4.5},
    ]
    assert verdict({**ACTIVE, "speed_up": speed_up})[:2] == [
        "To 200 labels, the proxy chose 4.5 times as fast as the target: 10.0 s against 45 s.",
        "To 100 labels, the proxy chose no faster than the target: 0.50 times as fast, 2 ms against 1 ms.",
    ]


def test_a_net_of_few_steps_is_named_once_a_role_with_the_flag_that_mends_it() -> None:
    def trained(name: str, steps: int | None, train_accuracy: float) -> dict[str, Any]:
        return {**arm(name, 0, 0.5), "steps": steps, "train_accuracy": train_accuracy}

    proxy, target = trained("proxy model", 60, 0.41), trained("proxy", 199, 0.899)
    metrics = {**ACTIVE, "speed_up": [], "proxies": [proxy], "arms": [target, trained("random", 150, 0.3)]}
    assert undertrained(metrics) == [
        "The proxy had only 60 steps of training in all (50 examples), and got 41 % of its own examples right by then: "
        "it is likely undertrained; give --proxy.min-steps 400.",
        "The target had only 150 steps of training in all (50 examples), and got 30 % of its own examples right by then: "
        "it is likely undertrained; give --target.min-steps 1200.",
    ]
    assert set(undertrained(metrics)) <= set(verdict(metrics))
    enough = [
        trained("proxy", 200, 0.1),
        trained("proxy", 20, 0.9),
        trained("random", None, 0.1),
        arm("random", 1, 0.1),
    ]
    assert undertrained({**metrics, "proxies": [], "arms": enough}) == []


@pytest.mark.parametrize(
    ("mean", "low", "high", "saves", "n_seeds", "needed", "rest"),
    [
        (310.4, 240.2, None, "shown", 3, "310", "(95 % interval 240 to more than 400): 110 were saved. Labels saved: shown."),
        (None, 0, None, "not shown", 1, "more than 400",
         "(one seed: what others would need is unknown): more than 200 were saved. Labels saved: not shown."),
        (0, 0, 150, "refuted", 3, "fewer than 100", "(95 % interval fewer than 100 to 150). Labels saved: refuted."),
    ],
)  # fmt: skip
def test_what_chance_would_need_is_told_in_labels(
    mean: float | None, low: float, high: float | None, saves: str, n_seeds: int, needed: str, rest: str
) -> None:
    found = {"n_labelled": 200, "totals": [100, 200, 400], "mean": mean, "low": low, "high": high}
    said = verdict({**ACTIVE, "speed_up": [], "by_chance": [{**found, "saves": saves, "n_seeds": n_seeds}]})
    assert f"Chance would need {needed} labels to be as accurate as what the proxy asked for with 200 {rest}" in said
    found = {**found, "n_labelled": 400, "totals": [400], "mean": None}
    said = verdict({**ACTIVE, "speed_up": [], "by_chance": [{**found, "saves": saves, "n_seeds": n_seeds}]})
    assert any("need more than 400 labels" in sentence and "(--evaluate)" in sentence for sentence in said)


def test_without_a_speed_up_the_reason_is_told() -> None:
    (claim,) = claims({**ACTIVE, "speed_up": []})
    assert (claim.line, claim.because) == (
        "How much faster the proxy chose was not measured",
        "add --control random target",
    )
    (claim,) = claims({**ACTIVE, "speed_up": [], "same_model": True})
    assert claim.line == "The target chose for itself"


def test_each_way_of_training_is_judged_in_a_line_of_its_own() -> None:
    metrics = coreset_metrics(*(answers(0.8, 3, 100, i) for i in range(3)))
    metrics["payments"] = [
        {"arm": "proxy", "equal": "epochs", **payment([0.2, 0.3], [0.4, 0.6], "shown").facts()},
        {"arm": "proxy", "equal": "steps", **payment([0.3, 0.7], [0.5, 0.6], "refuted").facts()},
        {"arm": "proxy", "equal": "steps", **payment([0.3, 0.7], [0.5, 0.6], "shown").facts()},
        {"arm": "proxy", "equal": "steps", **payment([0.5, 0.7], [0.5, 0.6], "shown").facts()},
    ]
    ends = "end to end as training on everything"
    assert verdict(metrics)[:4] == [
        f"It pays, at equal epochs: 2.0 times as fast {ends} (0.25 s against 0.50 s), and a loss above 1 point is excluded.",
        f"It does not pay, at equal steps: 1.10 times as fast {ends} (0.50 s against 0.55 s), "
        "but faster in 1 of 2 seeds only, and more than 1 point is lost.",
        f"Not shown whether it pays, at equal steps: 1.10 times as fast {ends} (0.50 s against 0.55 s), "
        "but faster in 1 of 2 seeds only, and a loss above 1 point is excluded.",
        f"It does not pay, at equal steps: choosing and training take longer; 0.92 times as fast {ends} (0.60 s against 0.55 s).",
    ]


def test_numbers_are_written_as_people_read_them() -> None:
    written = {
        0.0: "0 ms",
        0.00004: "0.04 ms",
        0.0004: "0.4 ms",
        0.0123: "12 ms",
        0.0994: "99 ms",
        0.0996: "0.10 s",
        0.5: "0.50 s",
        0.996: "1.0 s",
        6.54: "6.5 s",
        19.94: "19.9 s",
        19.96: "20 s",
        42.4: "42 s",
        119: "119 s",
        600: "10.0 min",
        7260: "2.0 h",
        90000: "25.0 h",
    }
    assert {value: seconds(value) for value in written} == written
    assert [times(r) for r in (0.664, 1.04, 1.5, 2.5, 10.07, 1234)] == ["0.66", "1.04", "1.50", "2.5", "10.1", "1,234"]
    assert [points(p) for p in (1, 0.5, 2.0)] == ["1 point", "0.5 points", "2 points"]


@settings(derandomize=True, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_no_time_is_written_as_nothing(value: float) -> None:
    unit = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
    number, name = seconds(value).split()
    assert float(number) * unit[name] == pytest.approx(value, rel=0.5)


def test_a_model_that_is_hardly_above_the_majority_is_said_to_be_so() -> None:
    good, poor = answers(0.9, 3, 400, 0), answers(0.72, 3, 400, 1)
    metrics = coreset_metrics(poor, poor, good)
    assert not any("most common class" in sentence for sentence in verdict(metrics))
    told = [s for s in verdict({**metrics, "majority_rate": 0.7}) if "most common class" in s]
    assert len(told) == 1
    assert "right for 70.00 %" in told[0]
    assert "the part the proxy chose, 50 examples; a random part, 50 examples:" in told[0]
    assert "everything" not in told[0]
    assert "every arm: less than 5 points" in "".join(verdict({**metrics, "majority_rate": 0.95}))
