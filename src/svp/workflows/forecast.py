"""How long a run will take, and what it can save, said before it is begun: each model timed on a few hundred of the examples."""

from dataclasses import dataclass

from svp.config import PREVIOUS, ActiveConfig, CoresetConfig, RunConfig, TrainConfig
from svp.data.base import Dataset, silent
from svp.files import Json
from svp.select import find_method
from svp.workflows import active, coreset
from svp.workflows.check import test_part
from svp.workflows.outcomes import Show
from svp.workflows.timing import Times, timer


@dataclass(frozen=True)
class Part:
    """What a run does of one kind: in words, seconds over all run seeds, trainings, whether only for comparison's sake.

    asked  False for what the settings do not ask for, which is here to be compared with alone
    """

    what: str
    seconds: float
    trainings: int
    asked: bool = True


@dataclass(frozen=True)
class RunForecast:
    """What a run will take from the beginning, if nothing of it stands.

    parts    in the order in which they are done
    own      seconds of one run seed that the choice stands for: core-set: choosing, and the target on the chosen part; active
             learning: choosing by the proxy
    against  what these save: core-set: the target on everything; active learning: choosing by the target itself. None where
             there is nothing to compare with
    Choosing itself, once examples are scored, is not counted, nor is reading the data.
    """

    workflow: str
    parts: tuple[Part, ...]
    own: float
    against: float | None

    @property
    def seconds(self) -> float:
        """Of all that is asked for."""
        return sum(part.seconds for part in self.parts if part.asked)

    def facts(self) -> Json:
        """Plain values."""
        parts = [vars(part) for part in self.parts]
        return {
            "workflow": self.workflow,
            "seconds": self.seconds,
            "own": self.own,
            "against": self.against,
            "parts": parts,
        }


def forecast_run(
    config: CoresetConfig | ActiveConfig, dataset: Dataset | None = None, *, show: Show = silent
) -> RunForecast:
    """How long `svp.coreset` or `svp.active` will take with these settings, and what they can save. Makes no run folder.

    Right within a factor of about 1.5 for nets (steps are timed as they are, not compiled); what grows faster than its examples
    (neighbours, kernels) takes longer. Raises what the run would before its first training. Cost: a few steps of each model,
    about ten seconds for small nets.
    """
    if isinstance(config, ActiveConfig):
        return _of_active(active.prepare(config, dataset, show), show)
    return _of_coreset(coreset.prepare(config, dataset, show), show)


def _of_coreset(ready: coreset.Ready, show: Show) -> RunForecast:
    config, n, budget, seeds = ready.config, len(ready.dataset), ready.budget, ready.config.seeds
    timed = timer(config, ready.dataset, show)
    parts: list[Part] = []
    choosing, trained = 0.0, 0
    if ready.earlier is None and find_method(config.method)[1].asks_model:
        proxy, trained = timed(config.proxy), config.proxy.seeds
        choosing = proxy.embedding(n) + trained * (proxy.training(n) + (proxy.scoring(n) if _scores(config) else 0.0))
        parts.append(Part(f"the proxy, {config.proxy.model}, on all {n:,} examples", seeds * choosing, seeds * trained))
    if not ready.judges:
        return RunForecast("coreset", tuple(parts), choosing, None)
    target, n_test = timed(config.target), len(test_part(ready.dataset))
    once = target.embedding(n + n_test)
    itself = trained > 0 and config.proxy == config.target

    def part(name: str, size: int, train: TrainConfig = config.target, *, asked: bool = True) -> float:
        seconds = target.training(size, train) + target.scoring(n_test)
        parts.append(Part(f"the target, {train.model}, on {name}", seeds * seconds, seeds, asked))
        return seconds

    steps = coreset.as_many_steps(config.target, budget, n)
    ways = {_equal(config, equal): config.target if equal == "epochs" else steps for equal in config.equal}
    on_choice = [part(f"the {budget:,} that are kept{equal}", budget, train) for equal, train in ways.items()]
    for equal, train in ways.items() if "random" in config.control else ():
        part(f"{budget:,} at random{equal}", budget, train)
    if "short" in config.control:
        part("everything in as few steps", n, coreset.as_many_steps(config.target, n, budget))
    everything = part("everything", n, asked="full" in config.control and not itself)
    return RunForecast("coreset", tuple(parts), once + choosing + on_choice[0], once + everything)


def _of_active(ready: active.Ready, show: Show) -> RunForecast:
    config, dataset, n_test = ready.config, ready.dataset, len(test_part(ready.dataset))
    timed, seeds = timer(config, dataset, show), config.seeds
    target = timed(config.target)
    asks = find_method(config.method)[1].asks_model
    arms = {"the proxy": config.proxy if asks else None}
    arms |= {"chance": None} if "random" in config.control else {}
    arms |= {"the target": config.target} if config.target != config.proxy else {}
    parts: list[Part] = []
    choosing: dict[str, float] = {}
    for who, model in arms.items():
        asked = who != "the target" or "target" in config.control
        trained = list[int]()  # totals at which the arm has the target already
        if model is not None:
            trained = _targets_of(model, ready)
            choosing[who] = _asking(timed(model), ready, len(dataset))
            choosing[who] += sum(target.training(n) for n in trained if model != config.target)
            times = len(ready.totals) - 1
            what = f"{who}, {model.model}, asking {times} time{'s' * (times > 1)}"
            parts.append(Part(what, seeds * choosing[who], seeds * times, asked))
        seconds = len(ready.at) * target.scoring(n_test)
        seconds += sum(target.training(n) for n in ready.at if n not in trained)
        what = f"the target, {config.target.model}, on what {who} asked for"
        parts.append(Part(what, seeds * seconds, seeds * len(ready.at), asked))
    parts.sort(key=lambda part: "asking" not in part.what)
    return RunForecast("active", tuple(parts), choosing.get("the proxy", 0.0), choosing.get("the target"))


def _asking(times: Times, ready: active.Ready, n: int) -> float:
    """Seconds of one model that chooses up to the last total, as the paper counts them: that one's own training is left out."""
    model = times.config
    embedded = len(_targets_of(model, ready)) if model.features.source == PREVIOUS else 1
    rounds = ready.totals[:-1]
    return embedded * times.embedding(n) + model.seeds * sum(times.training(k) + times.scoring(n - k) for k in rounds)


def _targets_of(model: TrainConfig, ready: active.Ready) -> list[int]:
    """Totals at which the target is trained while a model asks: it is that model itself, or what makes its features, which is the
    target of the round before.
    """
    if model.features.source == PREVIOUS:
        return sorted({ready.totals[max(0, round_ - 1)] for round_ in range(len(ready.totals) - 1)})
    return ready.totals[:-1] if model == ready.config.target else []


def _equal(config: CoresetConfig, equal: str) -> str:
    return f", equal {equal}" if len(config.equal) > 1 else ""


def _scores(config: RunConfig) -> bool:
    """Is the pool scored after the training, or does the method read what that recorded?"""
    _, row = find_method(config.method)
    reads = row.under(row.settle(config.method, config.options)).reads
    return bool({"probs", "embeddings", "similarity"} & set(reads))
