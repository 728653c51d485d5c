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

    Right within a factor of about two for nets (steps are timed as they are, not compiled); what grows faster than its examples
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
    choosing, asked = 0.0, list[Times]()
    if ready.earlier is None and find_method(config.method)[1].asks_model:
        proxy = timed(config.proxy)
        asked = [proxy]
        choosing = config.proxy.seeds * (proxy.training(n) + (proxy.scoring(n) if _scores(config) else 0.0))
        what = f"the proxy, {config.proxy.model}, on all {n:,} examples"
        parts.append(Part(what, seeds * choosing, seeds * config.proxy.seeds))
    if not ready.judges:
        return RunForecast("coreset", (*_embedding(asked, n), *parts), choosing + _once(asked, n), None)
    target, n_test = timed(config.target), len(test_part(ready.dataset))

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
    itself = bool(asked) and config.proxy == config.target
    everything = part("everything", n, asked="full" in config.control and not itself)
    own = choosing + on_choice[0] + _once([*asked, target], n)
    return RunForecast("coreset", (*_embedding([*asked, target], n), *parts), own, everything + _once([target], n))


def _of_active(ready: active.Ready, show: Show) -> RunForecast:
    config, n, n_test, seeds = ready.config, len(ready.dataset), len(test_part(ready.dataset)), ready.config.seeds
    timed = timer(config, ready.dataset, show)
    target, times = timed(config.target), len(ready.totals) - 1
    asks = find_method(config.method)[1].asks_model
    arms = {"the proxy": config.proxy if asks else None}
    arms |= {"chance": None} if "random" in config.control else {}
    arms |= {"the target": config.target} if config.target != config.proxy else {}
    asking, evaluating = list[Part](), list[Part]()
    choosing: dict[str, float] = {}
    for who, model in arms.items():
        asked = who != "the target" or "target" in config.control
        trained = list[int]()  # totals at which the arm has the target already
        if model is not None:
            trained = _targets_of(model, ready)
            behind = trained if model != config.target else []  # those that make the features of a proxy
            seconds = _asking(timed(model), ready, n) + sum(target.training(k) for k in behind)
            choosing[who] = seconds + _once([timed(model)], n)
            what = f"{who}, {model.model}, asking {times} time{'s' * (times > 1)}"
            asking.append(Part(what, seeds * seconds, seeds * (times * model.seeds + len(behind)), asked))
        anew = [k for k in ready.at if k not in trained]
        seconds = len(ready.at) * target.scoring(n_test) + sum(target.training(k) for k in anew)
        what = f"the target, {config.target.model}, on what {who} asked for"
        evaluating.append(Part(what, seeds * seconds, seeds * len(anew), asked))
    embedding = _embedding([*([timed(config.proxy)] if asks else []), target], n)
    parts = (*embedding, *asking, *evaluating)
    return RunForecast("active", parts, choosing.get("the proxy", 0.0), choosing.get("the target"))


def _asking(times: Times, ready: active.Ready, n: int) -> float:
    """Seconds of one model that chooses up to the last total, as the paper counts them: that one's own training is left out."""
    model, rounds = times.config, ready.totals[:-1]
    embedded = len(_targets_of(model, ready)) * times.embedding(n) if model.features.source == PREVIOUS else 0.0
    return embedded + model.seeds * sum(times.training(k) + times.scoring(n - k) for k in rounds)


def _once(models: list[Times], n: int) -> float:
    """Seconds of what is made once a run: frozen features, of models that see the same but once."""
    frozen = [times for times in models if times.config.features.source not in (None, PREVIOUS)]
    return sum({times.config.features.digest(): times.embedding(n) for times in frozen}.values())


def _embedding(models: list[Times], n: int) -> tuple[Part, ...]:
    seconds = _once(models, n)
    return (Part(f"the frozen features of all {n:,} examples", seconds, 0),) if seconds else ()


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
