"""The stages that both workflows are made of: train, score, choose, test. Each is a folder of the run, made once."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from svp.audit import Agreement, agreement
from svp.chance import spawn_seed
from svp.config import CHANGES_NOTHING, PREVIOUS, ComputeConfig, RunConfig, TrainConfig
from svp.data import DATASETS, load
from svp.data.base import Dataset
from svp.errors import DataError, MissingInput, SettingError, StorageError, TrainingError
from svp.evaluate import majority_rate
from svp.files import Json, digest, read_array, write_array, write_json
from svp.learners import EpochRecord, Learner, Outputs, check_device, find, make_learner, settle, trial
from svp.provenance import environment, surroundings
from svp.runs import METRICS_FORMAT, Run, Stage
from svp.select import Cover, Method, Rank, Selection, find_method, score, select
from svp.select.table import Shape, path_of
from svp.separation import separation
from svp.signals import KINDS, Signals
from svp.workflows.features import Features, FromNet, embed, inputs_of, source_of, stand_in, uses_net

if TYPE_CHECKING:
    from svp.learners.compute import Compute

C = TypeVar("C", bound=RunConfig)

# What every choice runs beside the function of its method.
CHOOSING_CODE = tuple(
    f"svp.{name}"
    for name in (
        "chance",
        "select.__init__",
        "select.choose",
        "select.limits",
        "select.table",
        "select.inputs",
        "select.budget",
    )
)

# What a proxy has to give for a need of another name.
KIND_OF = {**dict.fromkeys(KINDS, "signals"), "similarity": "embeddings"}


class Show(Protocol):
    """How a workflow tells what it is doing; the command line draws it, a library call passes nothing."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


class Fitted:
    """A trained model: the stage that holds it, and the learner, whose files are read when it is first asked."""

    def __init__(
        self,
        stage: Stage,
        config: TrainConfig,
        learner: Learner,
        n: int,
        *,
        loaded: bool,
        features: Features | None = None,
    ) -> None:
        self.stage, self.config, self.learner, self.n = stage, config, learner, n  # n: training examples
        self.features = features  # what it sees in place of the inputs
        self._loaded = loaded

    @property
    def seconds(self) -> float:
        """Time spent in the epochs that count, over all attempts."""
        return float(self.stage.facts["seconds"])

    @property
    def origin(self) -> str:
        """Digest of everything the model was made from."""
        return digest(json.dumps(self.stage.made_from, sort_keys=True))

    def ready(self) -> None:
        """Read the model's files, if that has not been done."""
        if not self._loaded:
            self.learner.load(self.stage.folder)
            self._loaded = True

    def predict(self, dataset: Dataset, ids: NDArray[np.int64], *, embeddings: bool = False) -> Outputs:
        self.ready()
        dataset = dataset if self.features is None else self.features.of(dataset)
        outputs = self.learner.predict(dataset, ids, embeddings=embeddings)
        if wrong := int((~np.isfinite(outputs.probs).all(axis=1)).sum()):
            raise TrainingError(
                f"{self.config.model} ({self.stage.folder}) gives probabilities that are no numbers for {wrong:,} of "
                f"{len(ids):,} examples: it was trained to no good end; change its settings (a net: lower lr)"
            )
        return outputs

    def signals(self) -> Signals:
        if "signals" not in self.learner.gives:
            raise MissingInput(
                f"{self.config.model} records no signals while it trains; "
                "choose a method that needs none (svp list methods), or a net as proxy"
            )
        return Signals.open(self.stage.folder / "signals")


@dataclass(frozen=True)
class Ranked:
    """What a model made of a pool: the selection, and for each of the pool's ids a value: its score, higher = more wanted, or
    for a method that covers minus the order of choice.
    """

    selection: Selection
    ids: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a choosing stage's folder."""
        selection = Selection.load(folder / "selection.parquet")
        return cls(
            selection,
            np.asarray(read_array(folder / "ids.npy")),
            np.asarray(read_array(folder / "scores.npy")),
        )

    def agreement(self, other: "Ranked", method: str) -> Agreement:
        """How alike two models rank and choose the same pool."""
        chosen = np.isin(self.ids, self.selection.ids), np.isin(other.ids, other.selection.ids)
        by_score = kind_of(method) == "rank"
        return agreement(self.scores, other.scores, len(self.selection), None if by_score else chosen)


def kind_of(method: str) -> str:
    """ "rank" where the highest scores are what is chosen; "cover" where the choice is more than its scores."""
    _, row = find_method(method)
    return "rank" if isinstance(row, Rank) and row.sampler is None else "cover"


@dataclass(frozen=True)
class Tested:
    """A model's answers about the test part: (n_test,) class numbers, whether they are right, and (n_test, c) probabilities."""

    predicted: NDArray[np.int64]
    correct: NDArray[np.bool_]
    seconds: float
    probs: NDArray[np.float32]


class Work:
    """What every stage of one run shares: the run folder, the dataset, where nets live, whom to tell."""

    def __init__(self, run: Run, dataset: Dataset, compute: ComputeConfig, show: Show = silent) -> None:
        self.run, self.dataset, self.show = run, dataset, show
        self._compute_config = compute
        self._features: dict[str, Features] = {}

    @cached_property
    def compute(self) -> "Compute":
        """Decided when the run first needs it, and then the same whenever it is resumed."""
        from svp.learners.compute import Compute, decide, require_device

        decided = self.run.remember("compute", lambda: decide(self._compute_config).facts())
        compute = Compute(
            **{field.name: decided[field.name] for field in fields(Compute) if field.name in decided},
            processes=self._compute_config.processes,
        )
        require_device(compute.device)
        return compute

    def decided(self, *models: TrainConfig) -> ComputeConfig:
        """The compute settings with nothing left to decide, where one of these models is a net."""
        nets = any(find(m).is_net or uses_net(m.features) for m in models)
        return ComputeConfig(**asdict(self.compute)) if nets else self._compute_config

    def learner(self, config: TrainConfig, seed: int, dataset: Dataset) -> Learner:
        return make_learner(config, dataset, seed=seed, compute=self.compute if find(config).is_net else None)

    def features(self, config: TrainConfig) -> Features | None:
        """Stage: what the model sees in place of the inputs, made once for all that see the same; None where it sees these."""
        key = json.dumps(config.features.model_dump(mode="json"))
        if config.features.source is None or key in self._features:
            return self._features.get(key)
        source = source_of(
            config.features, self.dataset, lambda net: self.learner(net, 0, self.dataset), self._computed
        )
        self._features[key] = embed(self.run, self.dataset, self._inputs, source, show=self.show)
        return self._features[key]

    def features_of(self, name: str, fitted: Fitted) -> Features:
        """Stage: the features that a model trained in this run makes of the inputs."""
        if name not in self._features:
            fitted.ready()
            facts = {"kind": "previous", "source": PREVIOUS, "model": fitted.config.model, "n": fitted.n}
            source = FromNet(fitted.learner, fitted.config.model, {"model": fitted.origin}, facts, tests=False)
            self._features[name] = embed(self.run, self.dataset, self._inputs, source, name, show=self.show)
        return self._features[name]

    @cached_property
    def _inputs(self) -> str:
        return inputs_of(self.dataset)

    def _computed(self) -> Json:
        return {f"compute.{key}": value for key, value in self.compute.facts().items()}

    def train(
        self,
        name: str,
        config: TrainConfig,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        seed: int,
        features: Features | None = None,
    ) -> Fitted:
        """Stage: fit a new model on (m,) ids, given in ascending order, with their labels.

        features  what it sees, where the settings alone do not say that
        """
        features = features or self.features(config)
        dataset = self.dataset if features is None else features.seen
        learner = self.learner(config, seed, dataset)
        settings = {key: value for key, value in config.flat().items() if key != "seeds" and value is not None}
        made_from = {
            # Of features it counts what they are, not where they lie.
            **{f"train.{key}": value for key, value in settings.items() if not key.startswith("features.")},
            **({} if learner.initial_weights is None else {"initial_weights": learner.initial_weights}),
            **({} if features is None else {"features": features.origin}),
            "dataset": self.dataset.fingerprint,
            "ids": digest(ids),
            "labels": digest(labels),
            "seed": seed,
            **(self._computed() if find(config).is_net else {}),
        }
        stage = self.run.stage(name, made_from, ("svp.data.base", *learner.code))
        if stage.done:
            return Fitted(stage, config, learner, len(ids), loaded=False, features=features)
        what = f"training {config.model} on {len(ids):,} examples"

        def progress(record: EpochRecord, n_epochs: int) -> None:
            self.show(what, int(record["epoch"]) + 1, n_epochs, f"accuracy {record['accuracy']:.1%}")

        self.show(what, 0, config.epochs_for(config.shown(len(ids))))
        history = learner.fit(dataset, ids, labels, folder=stage.folder, progress=progress)
        stage.finish(seconds=sum(record["seconds"] for record in history), epochs=len(history), n=len(ids))
        return Fitted(stage, config, learner, len(ids), loaded=True, features=features)

    def choose(
        self,
        name: str,
        fitted: Sequence[Fitted],
        ids: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
        budget: int,
        *,
        method: str,
        options: dict[str, Any],
        seed: int,
        already: Sequence[int] | NDArray[np.int64] = (),
    ) -> Ranked:
        """Stage: score the pool `ids` (ascending) with the trained models and choose `budget` of it.

        With several models their scores are averaged. A method that covers (k-center) is shown `already` chosen examples too,
        so these must be among `ids`; a method that ranks is not, and its pool holds candidates only.
        """
        _, row = find_method(method)
        row = row.under(row.settle(method, options))
        made_from = {
            "models": [f.origin for f in fitted],
            "method": method,
            "functions": _functions_of(row),
            **{f"options.{key}": value for key, value in options.items()},
            **({} if labels is None or "labels" not in row.reads else {"labels": digest(labels)}),
            "ids": digest(ids),
            "already": digest(np.asarray(already, np.int64)),
            "budget": budget,
            "seed": seed,
        }
        # Of an own method the module that it is named in, too: what is made there (a partial) may be of another's class.
        own = {*row.modules, *method.split(":")[:-1]}
        stage = self.run.stage(name, made_from, (*CHOOSING_CODE, *sorted(own)))
        if not stage.done:
            self.show(f"choosing {budget:,} of {len(ids):,} by {method}", 0, 0)
            for f in fitted if row.asks_model else ():
                f.ready()  # reading a finished model from disk is not part of scoring
            begin = time.perf_counter()
            arrays = [self._arrays(f, row.reads, ids) for f in fitted] or [{}]
            if "labels" in row.reads:
                arrays = [{**given, "labels": labels} for given in arrays]
            inference = time.perf_counter() - begin
            for i, given in enumerate(arrays):
                if "probs" in given:
                    write_array(stage.folder / f"probs-{i}.npy", given["probs"])
                if "embeddings" in given:
                    write_array(stage.folder / f"embeddings-{i}.npy", given["embeddings"])
            begin = time.perf_counter()
            selection, scores = _select(method, row, arrays, ids, budget, already, seed, options)
            ranking = time.perf_counter() - begin
            selection.of(self.dataset).save(stage.folder / "selection.parquet")
            candidates = ~np.isin(ids, already)
            write_array(stage.folder / "scores.npy", scores[candidates])
            write_array(stage.folder / "ids.npy", ids[candidates])
            stage.finish(inference_seconds=inference, ranking_seconds=ranking, n=len(ids))
        return Ranked.read(stage.folder)

    def separation(
        self,
        name: str,
        features: Features,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        scored: NDArray[np.bool_] | None = None,
    ) -> Json:
        """Stage: do features tell apart the classes of these (m,) labelled ids? scored: as in `separation`."""
        made_from = {
            "features": features.origin,
            "ids": digest(ids),
            "labels": digest(labels),
            "scored": None if scored is None else digest(scored),
        }
        stage = self.run.stage(name, made_from, ("svp.chance", "svp.separation"))
        if not stage.done:
            self.show("looking whether the features tell the classes apart", 0, 0)
            inputs = features.seen.inputs[features.seen.positions(ids)]
            stage.finish(**separation(inputs, labels, ids, scored).facts())
        return dict(stage.facts)

    def test(self, name: str, fitted: Fitted) -> Tested:
        """Stage: the one look at the test part."""
        test = test_part(self.dataset)
        stage = self.run.stage(name, {"model": fitted.origin}, fitted.learner.code)
        if not stage.done:
            self.show(f"testing {fitted.config.model} on {len(test):,} examples", 0, 0)
            fitted.ready()
            begin = time.perf_counter()
            probs = fitted.predict(test, test.ids).probs
            seconds = time.perf_counter() - begin
            write_array(stage.folder / "probs.npy", probs)
            stage.finish(seconds=seconds)
        probs = read_array(stage.folder / "probs.npy")
        predicted = probs.argmax(axis=1)
        return Tested(predicted, predicted == labels_of(test), stage.facts["seconds"], probs)

    def saw(self, config: TrainConfig) -> Json:
        """What a model of this run knew before it saw a label: its features, and the weights that it began with."""
        if config.features.source == PREVIOUS:
            return {"features": {"kind": "previous"}, "initial_weights": None}
        features = self.features(config)
        dataset = self.dataset if features is None else features.seen
        return {
            "features": None if features is None else features.facts,
            "initial_weights": self.learner(config, 0, dataset).initial_weights if find(config).is_net else None,
        }

    def finish(self, config: RunConfig, *, chooses: bool = True, **measured: Any) -> Run:
        """Write metrics.json: what is true of every workflow, and what this one measured. Returns the run.

        chooses  a proxy was trained, if the method asks one
        """
        metrics = {
            "format": METRICS_FORMAT,
            "workflow": config.workflow,
            "method": config.method,
            "kind": kind_of(config.method),
            "n": len(self.dataset),
            "majority_rate": majority_rate(labels_of(self.dataset), labels_of(test_part(self.dataset))),
            "margin": config.margin,
            "load_seconds": self.run.environment["load"]["seconds"],
            "saw": {
                "proxy": self.saw(config.proxy) if chooses and find_method(config.method)[1].asks_model else None,
                "target": self.saw(config.target),
            },
            **measured,
        }
        write_json(self.run.folder / "metrics.json", metrics)
        self.run.event("finished")
        return self.run

    def _arrays(self, fitted: Fitted, reads: Sequence[str], ids: NDArray[np.int64]) -> dict[str, Any]:
        """What a method reads of one model, for the pool."""
        given: dict[str, Any] = {}
        embeddings = "embeddings" in reads or "similarity" in reads
        if "probs" in reads or embeddings:
            outputs: Outputs = fitted.predict(self.dataset, ids, embeddings=embeddings)
            given["probs"] = outputs.probs
            if outputs.embeddings is not None:
                given["embeddings"] = outputs.embeddings
        if any(need in KINDS for need in reads):
            if fitted.stage.made_from["ids"] != digest(ids):
                raise SettingError(
                    "this method reads what training recorded, which exists only of the examples trained on; "
                    "in active learning choose a method of probs or embeddings (svp list methods)"
                )
            given["signals"] = fitted.signals().kinds()
        return given


def _functions_of(row: Method) -> list[str]:
    """Where everything that the row binds stands: the table itself is no counted code."""
    bound = row.sampler if isinstance(row, Rank) else row.scored_by if isinstance(row, Cover) else None
    return [path_of(method.function) for method in (row, bound) if method is not None]


def _select(
    method: str,
    row: Method,
    arrays: list[dict[str, Any]],
    ids: NDArray[np.int64],
    budget: int,
    already: Sequence[int] | NDArray[np.int64],
    seed: int,
    options: dict[str, Any],
) -> tuple[Selection, NDArray[np.float64]]:
    """The selection, and (n,) values that rank the whole pool: scores, or for a method that covers minus the order of choice."""
    if isinstance(row, Rank):
        settled = row.settle(method, options)
        own = row.own(settled)
        scores = np.mean([score(method, ids=ids, seed=seed, **given, **own) for given in arrays], axis=0)
        # The options of the scores have been used: `select` is given their defaults. What a sampler reads (clusters of
        # embeddings) is that of the first model.
        left = {
            **settled,
            **{key: default for key, default in row.own(row.options).items() if default is not Parameter.empty},
        }
        selection = select(method, budget, scores=scores, ids=ids, already=already, seed=seed, **arrays[0], **left)
        return replace(selection, options=settled), scores
    if len(arrays) > 1:
        raise SettingError(f"{method} gives no scores to average over several proxies; set proxy.seeds to 1")
    selection = select(method, budget, ids=ids, already=already, seed=seed, **arrays[0], **options)
    order = np.full(len(ids), -float(len(ids)))
    order[np.searchsorted(ids, selection.ids)] = -np.arange(len(selection.ids), dtype=float)
    return selection, order


# --- before the first stage ------------------------------------------------------------------------------------------------


def settled(config: C, *roles: str) -> C:
    """The same settings, where those that a model does not use make no difference; roles: "proxy" and "target", if trained here.

    A proxy that its method does not ask is left as it is: it need not even exist.
    """
    asked = find_method(config.method)[1].asks_model
    models = {role: settle(getattr(config, role)) for role in roles if role != "proxy" or asked}
    return config.model_copy(update=models)


def loaded(config: RunConfig, show: Show) -> tuple[Dataset, float]:
    """The dataset that the settings name, and the seconds that reading and fingerprinting it took."""
    begin = time.perf_counter()
    dataset = load(config, show)
    _ = dataset.fingerprint
    return dataset, time.perf_counter() - begin


@contextmanager
def begin(
    config: RunConfig,
    dataset: Dataset,
    load_seconds: float | None,
    *,
    out: str | Path | None,
    reuse: str | Path | Sequence[str | Path],
    accept_code_change: bool,
    show: Show,
) -> Iterator[Work]:
    """Work in the run folder, new or taken up: as asked, or one that the same settings find again, with its siblings to reuse.

    load_seconds  what reading the data took; None where it was there. The first call's are kept: later ones find it read before
    """
    others = as_paths(reuse)
    if out is None:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in dataset.name)
        kind = f"{name}-{config.workflow}"
        out = Path("runs") / f"{kind}-{config.digest(without=[*config.may_vary, *CHANGES_NOTHING])[:8]}"
        # Another method or budget does not train the same proxy again.
        siblings = sorted(mark.parent for mark in Path("runs").glob(f"{kind}-*/environment.json"))
        here = surroundings(environment(dataset))
        others += [sibling for sibling in siblings if sibling != out and _surroundings_of(sibling) == here]
    by_path = load_seconds is not None and config.dataset not in DATASETS
    if by_path and Path(out).resolve().is_relative_to(Path(config.dataset).resolve()):
        raise StorageError(
            f"{out} lies inside the data ({config.dataset}), where it would be read as a part of them; "
            "choose another folder (--out)"
        )
    with Run.start(
        Path(out), config, dataset, may_vary=config.may_vary, reuse=others, accept_code_change=accept_code_change
    ) as run:
        run.remember("load", lambda: {"seconds": load_seconds})
        yield Work(run, dataset, config.compute, show)


def _surroundings_of(run: Path) -> Json | None:
    """None where they cannot be read: a damaged run that nobody named does not stop this one."""
    try:
        return surroundings(Run.open(run).environment)
    except DataError:
        return None


def check(config: RunConfig, dataset: Dataset, *, chooses: bool = True) -> None:
    """Refuse before training what cannot end well. chooses: a proxy is trained (an earlier selection needs none)."""
    labels = labels_of(dataset)
    if missing := [name for c, name in enumerate(dataset.classes) if not (labels == c).any()]:
        raise DataError(
            f"{dataset.name}: {len(missing)} of {len(dataset.classes)} classes have no training example, the first: "
            f"{', '.join(missing[:3])}; add some, or take these classes out"
        )
    test_part(dataset)
    _, method = find_method(config.method)
    method.settle(config.method, config.options)
    check_device(
        config.compute.device, [config.proxy, config.target] if chooses and method.asks_model else [config.target]
    )
    if config.target.features.source == PREVIOUS:
        raise SettingError(f"target.features {PREVIOUS!r} is for proxies: the target is what they are made by")
    trial(config.target, stand_in(config.target, dataset, config.target, tested=True))
    if not chooses:
        return
    check_needs(config, dataset)
    if config.proxy.seeds > 1 and method.asks_model and not isinstance(method, Rank):
        raise SettingError(f"{config.method} gives no scores to average over several proxies; set proxy.seeds to 1")


def refuse_options(config: RunConfig, n: int, budget: int = 0) -> None:
    """SettingError for options of the method that can come to no good where `budget` of n are chosen."""
    _, method = find_method(config.method)
    method.refuse(method.settle(config.method, config.options), Shape(n=n, budget=budget))


def check_needs(config: RunConfig, dataset: Dataset, *, trained_on_all: bool = True) -> None:
    """MissingInput unless the proxy gives what the method reads; unlabelled examples have neither signals nor labels.

    DataError where nothing says what the classes are.
    """
    if not dataset.classes:
        raise DataError(
            f"{dataset.name} has no labels and names no classes; say what can be answered: "
            "Dataset.from_arrays(..., classes=['cat', 'dog']), or an array classes in the .npz file"
        )
    _, method = find_method(config.method)
    method = method.under(method.settle(config.method, config.options))
    if not method.reads:
        return
    gives = {"probs", "labels", *(_tried(config, dataset).gives if method.asks_model else ())}
    hidden = set() if trained_on_all else {"labels", "signals"}
    kinds = {need: KIND_OF.get(need, need) for need in method.reads}
    if unmet := [need for need, kind in kinds.items() if kind not in gives - hidden]:
        kind = kinds[unmet[0]]
        proxy = (
            f"{config.proxy.model} with validation = {held:g}"
            if (held := config.proxy.validation)
            else config.proxy.model
        )
        lacks = "unlabelled examples do not have" if kind in hidden else f"{proxy} does not give"
        named = kind if kind == unmet[0] else f"{kind} ({', '.join(unmet)})"
        raise MissingInput(
            f"{config.method} needs {named}, which {lacks}; choose another method (svp list methods), or another proxy"
        )


def _tried(config: RunConfig, dataset: Dataset) -> Learner:
    """The proxy, made to be looked at."""
    return trial(config.proxy, stand_in(config.proxy, dataset, config.target, tested=config.workflow == "coreset"))


def as_paths(folders: str | Path | Sequence[str | Path]) -> list[Path]:
    """One folder or several, as paths."""
    return [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """The labels, or a DataError that says there are none."""
    if dataset.labels is None:
        raise DataError(
            f"{dataset.name} has no labels, which this workflow needs: give each example one; "
            "where people are to label it, use svp.Session, with classes= in Dataset.from_arrays"
        )
    return dataset.labels


def test_part(dataset: Dataset) -> Dataset:
    """The labelled test part, or a DataError that says there is none."""
    if dataset.test is None or not len(dataset.test) or dataset.test.labels is None:
        raise DataError(
            f"{dataset.name} has no labelled test part to measure on; bring one (a folder test/, arrays x_test and y_test, or "
            "test=), or have one held out of the labelled examples (test_share, --test-share)"
        )
    return dataset.test


def model_seed(seed: int, i: int) -> int:
    """Seed of the i-th proxy of a run seed. The first shares it with the target, so that equal settings are the same training."""
    return seed if i == 0 else spawn_seed(seed, "model", i)
