"""What the numbers of a run say, in words: made when somebody reads them, on a terminal or in a report; stored nowhere."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Name:
    """What an arm is called in tables and charts, and in a sentence about either workflow."""

    short: str
    coreset: str = ""
    active: str = ""


ARMS = {
    "proxy": Name("proxy", "the part the proxy chose", "what the proxy asked for"),
    "random": Name("random", "a random part", "what chance asked for"),
    "full": Name("everything", "everything"),
    "short": Name("everything, cut short", "everything in as few steps"),
    "target": Name("target", active="what the target asked for"),
    "selection": Name("earlier selection", "the part of an earlier selection"),
    "proxy model": Name("proxy itself", "the proxy itself"),
}
PAYMENTS = {"pays": "It pays", "does not pay": "It does not pay", "not shown": "Not shown whether it pays"}

NEAR = 0.05  # so little above the majority-class rate that a model has hardly learned

# With fewer steps in all preact8 is less accurate even on digits (trained on 718: 84 % after 24 steps, 97 % after 96, 98 % after
# 192), and photos are harder; so a net of fewer is named, unless it gets its own examples right by then.
FEW_STEPS, LEARNED = 200, 0.9
ENOUGH_STEPS = {"proxy": 400, "target": 1200}  # as `svp active` and `svp session` have them

TIED, NEVER = 0.5, 0.01  # shares of a choice: told apart by chance; got right in no epoch
# With 16 % of these and more every choice that was measured fell 9 points and more behind chance, with 13 % and less none by them
# (docs/results.md, "what the proxy never got right").
UNLEARNED = 0.15

COMPARISONS = {
    ("better", "shown"): "better",
    ("better", "not shown"): "not shown to be better",
    ("better", "refuted"): "worse",
    ("no worse", "shown"): "no worse",
    ("no worse", "not shown"): "not shown to be no worse",
    ("no worse", "refuted"): "worse",
}


# --- numbers as people read them --------------------------------------------------------------------------------------


def seconds(value: float) -> str:
    """A time to two or three digits, in the unit that suits it."""
    if value < 0.0995:
        return f"{1000 * value:.2g} ms"
    if value < 0.995:
        return f"{value:.2f} s"
    for limit, unit in ((120.0, "s"), (120.0, "min")):
        if value < limit:
            return f"{value:.0f} {unit}" if value >= 19.95 else f"{value:.1f} {unit}"
        value /= 60
    return f"{value:.1f} h"


def times(n: float) -> str:
    """A ratio: 0.66, 1.04, 2.5, 10.1."""
    return f"{n:.2f}" if n < 1.995 else f"{n:.1f}" if n < 99.5 else f"{n:,.0f}"


def points(n: float) -> str:
    """A margin: 1 point, 0.5 points."""
    return f"{n:g} point" if n == 1 else f"{n:g} points"


# --- before a run -----------------------------------------------------------------------------------------------------

SAVES = {
    "coreset": ("By what is kept, the proxy counted", "training on everything", "what is kept is as good", "full"),
    "active": ("Choosing by the proxy", "by the target itself", "it chooses as well", "target"),
}


def foretold(forecast: dict[str, Any]) -> list[str]:
    """What `RunForecast.facts` say."""
    parts = [part for part in forecast["parts"] if part["asked"]]
    width = max((len(part["what"]) for part in parts), default=0)
    lines = [f"{part['what']:<{width}}  {seconds(part['seconds'])}" for part in parts]
    lines.append(f"In all {seconds(forecast['seconds'])}, within a factor of about two")
    own, against = forecast["own"], forecast["against"]
    if against is not None:
        ours, theirs, proviso, control = SAVES[forecast["workflow"]]
        sides = f"{ours} {seconds(own)}, {theirs} {seconds(against)}"
        if own < against:
            lines.append(
                f"{sides}: {times(against / own)} times as fast, if {proviso}, which --control {control} measures"
            )
        else:
            lines.append(f"{sides}: no time is saved; take a smaller proxy, or fewer epochs for it")
    return lines


# --- a session ------------------------------------------------------------------------------------------------------------

ON = {
    "random": "cross-validated on the {scored:,} of the labels that were drawn at random, which are like the pool",
    "asked": "cross-validated on all {scored:,} labels, which were mostly asked for as hard: on the pool it is higher",
    "holdout": "on {scored:,} held-out examples",
}


def learning(curve: dict[str, Any]) -> list[str]:
    """What a learning curve found, in sentences: how accurate the proxy is, and what more labels would add."""
    last, gain = curve["points"][-1], curve["gain"]
    low, high = 100 * last["low"], 100 * last["high"]
    said = [
        f"With {curve['n']:,} labels the proxy is right for {100 * last['accuracy']:.1f} % ({low:.1f} to {high:.1f}), "
        + ON[curve["on"]].format(**curve)
    ]
    if gain is None:
        n = len(curve["points"])
        said.append(f"What more labels would add cannot be told yet: {n} round{'s' if n > 1 else ''} of four at least")
    else:
        said.append(
            f"The next {gain['more']:,} labels are predicted to add {gain['points']:.1f} points "
            f"({gain['low']:.1f} to {gain['high']:.1f})"
        )
    return said


# --- the verdict ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """What can be said from across the room, and what it rests on."""

    line: str
    because: str


def verdict(metrics: dict[str, Any]) -> list[str]:
    """The verdict of a run in sentences, from its metrics: the claims first."""
    return [f"{claim.line}: {claim.because}." for claim in claims(metrics)] + details(metrics)


def claims(metrics: dict[str, Any]) -> list[Claim]:
    """Does it pay? Or, of active learning, how much faster was it? A claim for each way that was measured."""
    if not metrics["arms"]:
        because = "there is no test data; bring a test part, or have one held out (--test-share 0.2)"
        return [Claim("Chosen, not judged", because)]
    return _speed_ups(metrics) if metrics["workflow"] == "active" else _payments(metrics)


def details(metrics: dict[str, Any]) -> list[str]:
    """What was reached, compared and agreed on, in sentences; what was not measured is not mentioned."""
    if not metrics["arms"]:
        return [*_doubts(metrics), *_saw(metrics)]
    said = [_outcome(metrics), *undertrained(metrics), *_doubts(metrics), *_against_the_majority(metrics)]
    said += [_by_chance(found) for found in metrics.get("by_chance", [])]
    said += [_comparison(metrics, found) for found in metrics["comparisons"] if found["arm"] != "proxy model"]
    said += _ranking(metrics["agreement"])
    said += _separation(metrics.get("separation", [])) + _saw(metrics)
    for found in metrics["comparisons"]:
        if found["arm"] == "proxy model" and found["verdict"] == "shown":
            ends = f"{found['mean']:+.1f} points, {found['low']:+.1f} to {found['high']:+.1f}"
            said.append(
                f"The proxy itself is no worse than the target ({ends}; margin {points(metrics['margin'])}): "
                "you may not need the target at all."
            )
    return said


def _speed_ups(metrics: dict[str, Any]) -> list[Claim]:
    if metrics["same_model"]:
        because = "proxy and target are the same model, there is no speed-up to measure"
        return [Claim("The target chose for itself", because)]
    if machines := _several_machines(metrics):
        return [Claim("How much faster the proxy chose is not known", machines)]
    if not metrics["speed_up"]:
        return [Claim("How much faster the proxy chose was not measured", _controls(metrics, "target"))]
    found = []
    for speed in reversed(metrics["speed_up"]):
        line = f"To {speed['n_labelled']:,} labels, the proxy chose "
        took = f"{seconds(speed['seconds'])} against {seconds(speed['target_seconds'])}"
        if speed["ratio"] > 1:
            found.append(Claim(f"{line}{times(speed['ratio'])} times as fast as the target", took))
        else:
            found.append(Claim(f"{line}no faster than the target", f"{times(speed['ratio'])} times as fast, {took}"))
    return found


def _controls(metrics: dict[str, Any], missing: str) -> str:
    """How to have it measured, and beside it whether the choice is better than chance, if that is missing too."""
    by_chance = any(arm["arm"] == "random" for arm in metrics["arms"])
    return f"add --control {missing if by_chance else f'random {missing}'}"


def _several_machines(metrics: dict[str, Any]) -> str:
    """Why seconds cannot be compared, if they cannot."""
    machines = metrics.get("machines", [])
    return f"its seconds are of {len(machines)} machines ({'; '.join(machines)})" if len(machines) > 1 else ""


def _payments(metrics: dict[str, Any]) -> list[Claim]:
    if not metrics["payments"]:
        if any(arm["arm"] == "selection" for arm in metrics["arms"]):
            because = "what the earlier selection had cost is not part of this run"
            return [Claim("Whether it pays is not known", because)]
        if machines := _several_machines(metrics):
            return [Claim("Whether it pays is not known", machines)]
        return [Claim("Whether it pays was not measured", _controls(metrics, "full"))]
    several = len(metrics["payments"]) > 1
    return [
        Claim(
            PAYMENTS[paid["verdict"]] + (f", at equal {paid['equal']}" if several or paid["equal"] == "steps" else ""),
            _why(paid, points(metrics["margin"])),
        )
        for paid in metrics["payments"]
    ]


def _why(paid: dict[str, Any], margin: str) -> str:
    """What speaks for a payment or against it: the time, and the loss that it may have cost."""
    took = f"{seconds(paid['seconds'])} against {seconds(paid['full_seconds'])}"
    said = f"{times(paid['ratio'])} times as fast end to end as training on everything ({took})"
    if paid["ratio"] <= 1:
        return f"choosing and training take longer; {said}"
    but = "but"
    if paid["n_faster"] < paid["n_seeds"]:
        said, but = f"{said}, but faster in {paid['n_faster']} of {paid['n_seeds']} seeds only", "and"
    loss = {
        "shown": f"and a loss above {margin} is excluded",
        "not shown": f"{but} a loss above {margin} is not excluded",
        "refuted": f"{but} more than {margin} is lost",
    }
    return f"{said}, {loss[paid['no_worse']]}"


def _outcome(metrics: dict[str, Any]) -> str:
    """Accuracies by arm, averaged over seeds."""
    reached: dict[tuple[str, str, int], list[float]] = {}
    for arm in metrics["arms"]:
        reached.setdefault((arm["arm"], arm["equal"], arm["n"]), []).append(100 * arm["accuracy"])
    parts = []
    for (arm, equal, n), accuracies in reached.items():
        who = getattr(ARMS[arm], metrics["workflow"]) + (", equal steps" if equal == "steps" else "")
        parts.append(f"{np.mean(accuracies):.2f} % on {n:,} examples ({who})")
    n_seeds = max(len(values) for values in reached.values())
    model = metrics["arms"][0]["model"]
    return f"Accuracy of {model}, mean of {n_seeds} seed{'s' if n_seeds > 1 else ''}: {'; '.join(parts)}."


def undertrained(metrics: dict[str, Any]) -> list[str]:
    """Whether proxy or target had too few steps to learn much: a sentence for each that had, and the flag that mends it."""
    said: dict[str, str] = {}
    for trained in sorted(
        (arm for arm in [*metrics.get("proxies", []), *metrics["arms"]] if (arm.get("steps") or FEW_STEPS) < FEW_STEPS),
        key=lambda arm: arm["steps"],
    ):
        role = "proxy" if trained["arm"] == "proxy model" else "target"
        if trained.get("train_accuracy", 1) < LEARNED:  # unknown of a run of before
            said.setdefault(
                role,
                f"The {role} had only {_steps(trained['steps'])} of training in all ({trained['n']:,} examples), and got "
                f"{100 * trained['train_accuracy']:.0f} % of its own examples right by then: it is likely undertrained; give "
                f"--{role}.min-steps {ENOUGH_STEPS[role]}.",
            )
    return [said[role] for role in ("proxy", "target") if role in said]


def _doubts(metrics: dict[str, Any]) -> list[str]:
    """What speaks against a choice, whatever is then trained on it."""
    choices = [choice for choice in metrics.get("choices", []) if choice["n"]]
    said = []
    ties = [choice["ties"] / choice["n"] for choice in choices if choice["ties"] is not None]
    if ties and (share := np.mean(ties)) > TIED:
        said.append(
            f"Chance chose {share:.0%} of what is kept: {metrics['method']} gave it the same score as some that is not. Train "
            "the proxy for longer (--proxy.epochs), or take another method (svp advise)."
        )
    return [*said, *unlearned(choices, NEVER)]


def unlearned(choices: list[dict[str, Any]], least: float = UNLEARNED) -> list[str]:
    """A sentence where `least` of what is kept, and more than of all, was got right in no epoch."""
    told = [choice for choice in choices if choice["never_learned"] is not None]
    if not told:
        return []
    kept = sum(choice["never_learned"] for choice in told) / sum(choice["n"] for choice in told)
    everywhere = sum(choice["never_learned_of_all"] for choice in told) / sum(choice["n_all"] for choice in told)
    if kept < least or kept <= everywhere:
        return []
    said = f"Of what is kept the proxy got {kept:.1%} right in no epoch, of all {everywhere:.1%}: "
    if kept < UNLEARNED:
        return [
            f"{said}look whether these labels are wrong. Where many are, a method that leaves the hardest out does better (ccs, "
            "moderate)."
        ]
    return [
        f"{said}what is so hard, or labelled wrongly, usually teaches less than chance does. Train the proxy for longer "
        "(--proxy.epochs), keep more (--budget), or take a method that leaves the hardest out (moderate; ccs with its drop)."
    ]


def _steps(n: int) -> str:
    return "1 step" if n == 1 else f"{n:,} steps"


def _against_the_majority(metrics: dict[str, Any]) -> list[str]:
    """Which arms are hardly better than an answer that needs no input, if any."""
    rate = metrics["majority_rate"]
    reached: dict[str, list[float]] = {}
    for arm in metrics["arms"]:
        who = f"{getattr(ARMS[arm['arm']], metrics['workflow'])}, {arm['n']:,} examples"
        reached.setdefault(who, []).append(arm["accuracy"])
    near = [who for who, accuracies in reached.items() if np.mean(accuracies) < rate + NEAR]
    if not near:
        return []
    listed = "; ".join(near) if len(near) < len(reached) else "every arm"
    return [
        f"Always answering the most common class is right for {100 * rate:.2f} %, and {listed}: less than "
        f"{100 * NEAR:.0f} points above that. Such a model has learned little, and what it would choose says little."
    ]


def _comparison(metrics: dict[str, Any], found: dict[str, Any]) -> str:
    """One difference, what it can carry, and the claim."""
    one, other = (getattr(ARMS[found[side]], metrics["workflow"]) for side in ("arm", "against"))
    at = (
        f" at {found['n_labelled']:,} labels"
        if "n_labelled" in found
        else " at equal steps"
        if found["equal"] == "steps"
        else ""
    )
    if found["low"] is None:
        spread = (
            f"one seed; other test rows could make it {found['rows_low']:+.2f} to {found['rows_high']:+.2f}, "
            "what other seeds could do is unknown: repeat with --seeds 3"
        )
    else:
        least = "no difference" if found["smallest"] >= 100 else f"{found['smallest']:.2f}"
        spread = (
            f"95 % interval {found['low']:+.2f} to {found['high']:+.2f}; "
            f"{found['n_seeds']} seeds and {found['n_test']:,} test rows could show {least}"
        )
    margin = f" (margin {points(metrics['margin'])})" if found["question"] == "no worse" else ""
    claim = f"{found['question'].capitalize()}{margin}: {found['verdict']}."
    return f"{one[0].upper()}{one[1:]} against {other}{at}: {found['mean']:+.2f} points ({spread}). {claim}"


def _by_chance(found: dict[str, Any]) -> str:
    """How much labelling the proxy saved: what chance would need to get as far."""
    n, first, last = found["n_labelled"], found["totals"][0], found["totals"][-1]

    def labels(needed: float | None) -> str:
        return f"more than {last:,}" if needed is None else f"{needed:,.0f}" if needed else f"fewer than {first:,}"

    spread = (
        "one seed: what others would need is unknown"
        if found["n_seeds"] == 1
        else f"95 % interval {labels(found['low'])} to {labels(found['high'])}"
    )
    needs = f"Chance would need {labels(mean := found['mean'])} labels to be as accurate as what the proxy asked for"
    said = f"{needs} with {n:,} ({spread})"
    if mean is None and last > n:
        said += f": more than {last - n:,} were saved"
    elif (mean or 0) >= n + 1:
        said += f": {mean - n:,.0f} were saved"
    if len(found["totals"]) == 1:
        said += "; evaluate more totals to know how many (--evaluate)"
    return f"{said}. Labels saved: {found['saves']}."


def _ranking(agreements: list[dict[str, Any]]) -> list[str]:
    """The proxy's agreement with the target, beside that of two targets."""
    said = []
    for between in ("proxy and target", "target and target"):
        found = [a for a in agreements if a["between"] == between]
        if not found:
            continue
        overlap = np.mean([a["overlap"] for a in found])
        rhos = [a["spearman"] for a in found if a["spearman"] is not None]
        rank = f"Spearman {np.mean(rhos):.2f}, " if rhos else ""
        who = "Proxy and target rank" if between == "proxy and target" else "Two seeds of the target rank"
        said.append(
            f"{who} alike to this degree: {rank}{overlap:.0%} of the choice in common (chance: {found[0]['chance']:.0%})."
        )
    return said


# --- frozen features, and other data ----------------------------------------------------------------------------------

TOLD_APART = 0.75  # a pair of classes by the target, as in svp.separation
PAIRS_SHOWN = 5


def _separation(looks: list[dict[str, Any]]) -> list[str]:
    """Whether the frozen features of the proxy tell the classes apart, and what to do where they do not."""
    judged = [look for look in looks if look["judged"]]
    if not judged:
        return (
            ["There are too few labels to say whether the proxy's frozen features tell the classes apart."]
            if looks
            else []
        )
    pairs = {tuple(pair["names"]): pair for look in judged for pair in look["pairs"]}
    said = (
        f"A simple classifier on the proxy's frozen features gets {_mean(judged, 'accuracy')} of examples right that it was not "
        f"shown (the largest class alone: {_mean(judged, 'chance')}; "
        f"the target on the test part: {_mean(judged, 'target_accuracy')})"
    )
    if not pairs:
        return [f"{said}; no pair of classes was found that more labels could not tell apart."]
    first = sorted(pairs.items(), key=lambda item: item[1]["auc"])[:PAIRS_SHOWN]
    named = "; ".join(_pair(names, pair) for names, pair in first)
    more = f"; and {len(pairs) - PAIRS_SHOWN} more pairs" if len(pairs) > PAIRS_SHOWN else ""
    by_target = [pair["target_auc"] for pair in pairs.values()]
    mended = all(auc is not None and auc >= TOLD_APART for auc in by_target)
    cause = "the target does; " if mended else "unless these labels are at fault, "
    return [
        f"{said}.",
        f"The proxy's frozen features cannot tell these classes apart, and more labels would not mend it: {named}{more}. What it "
        f"chooses among them is chance: {cause}let the proxy see the inputs, or features of a model that learned these classes.",
    ]


def _mean(looks: list[dict[str, Any]], what: str) -> str:
    return f"{100 * np.mean([look[what] for look in looks]):.1f} %"


def _pair(names: tuple[str, ...], pair: dict[str, Any]) -> str:
    target = "" if pair["target_auc"] is None else f", {100 * pair['target_auc']:.0f} % by the target"
    return f"{names[0]} and {names[1]} (ranked rightly {100 * pair['auc']:.0f} % of the time{target}; by chance 50 %)"


def _saw(metrics: dict[str, Any]) -> list[str]:
    """What the models knew before their first label; and whether the proxy knew more, for then that chose too."""
    saw = metrics.get("saw") or {}
    said = [sentence for role in ("proxy", "target") for sentence in _knew(role, saw.get(role), metrics["workflow"])]
    if _other_data(saw.get("proxy")) - _other_data(saw.get("target")):
        said.append("So the proxy saw other data than the target: how well it chose is the merit of that data too.")
    return said


def _knew(role: str, saw: dict[str, Any] | None, workflow: str) -> list[str]:
    if saw is None:
        return []
    said = []
    if saw["initial_weights"] is not None:
        said.append(f"The {role} began with weights learned on other data ({_short(saw['initial_weights'])}).")
    if saw["features"] is not None:
        said.append(
            f"The {role} saw frozen features in place of the inputs: {_SEEN[saw['features']['kind']](saw['features'])}."
        )
        if saw["features"].get("same_data") and workflow == "active":
            said.append("The labels that these features learned from are not counted among those asked for.")
    return said


def _of_file(features: dict[str, Any]) -> str:
    return f"{features['source']}; what made them, from which data and at what cost, is not known here"


def _of_net(features: dict[str, Any]) -> str:
    return f"those of {features['source']} with weights learned on other data ({_short(features['initial_weights'])})"


def _of_training(features: dict[str, Any]) -> str:
    whose = "this same data" if features["same_data"] else "other data"
    before = f", which began with {_short(features['before'])}" if features["before"] else ""
    return f"those of {features['model']}, trained on {features['n']:,} labelled examples of {whose}{before}"


def _of_previous(features: dict[str, Any]) -> str:
    return "those of the target as it was a round before, trained on labels of this run"


_SEEN = {"file": _of_file, "net": _of_net, "trained": _of_training, "previous": _of_previous}


def _other_data(saw: dict[str, Any] | None) -> set[str]:
    """What a model has from beside the data of the run, by the names of what holds it."""
    if saw is None:
        return set()
    features = saw["features"] or {"kind": None}
    held = {
        "file": [features.get("source")],
        "net": [features.get("initial_weights")],
        "trained": [features.get("before"), None if features.get("same_data") else features.get("initial_weights")],
    }
    return {name for name in [saw["initial_weights"], *held.get(features["kind"], [])] if name is not None}


def _short(origin: str) -> str:
    return f"{origin[:19]}..." if origin.startswith("sha256:") else origin
