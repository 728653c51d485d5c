"""The stages that both workflows are made of: train, score, choose, test. Each is a folder of the run, made once."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import spawn_seed
from svp.config import PREVIOUS, ComputeConfig, RunConfig, TrainConfig
from svp.data.base import Dataset, silent
from svp.errors import SettingError, TrainingError, own_code
from svp.evaluate import majority_rate
from svp.files import Json, digest, fill_array, read_array, write_array, write_json
from svp.learners import EpochRecord, Learner, find, make_learner
from svp.learners.epochs import n_epochs, shown
from svp.runs import METRICS_FORMAT, Run
from svp.select import Cover, Method, Rank, find_method
from svp.select.inputs import UNSOUND, is_sound
from svp.select.table import path_of
from svp.separation import separation
from svp.signals import KINDS
from svp.workflows.check import has_test, labels_of, test_part
from svp.workflows.features import Embedder, Features, FromFile, FromNet, embed, inputs_of, source_of, uses_net
from svp.workflows.given import facts_of
from svp.workflows.outcomes import Fitted, Ranked, Show, Tested, kind_of
from svp.workflows.ranking import How, Pool, candidates, choose

if TYPE_CHECKING:
    from svp.learners.compute import Compute


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
        "workflows.ranking",
    )
)


# Rows of a pool that a net scores between two points at which a killed pass goes on. Whole batches, so that no answer rounds
# otherwise than in one pass; more with several processes, since these are begun for each.
SCORED_AT_A_TIME, SCORED_BY_PROCESSES = 1 << 16, 1 << 20


class Work:
    """What every stage of one run shares: the run folder, the dataset, where nets live, whom to tell."""

    def __init__(self, run: Run, dataset: Dataset, compute: ComputeConfig, show: Show = silent) -> None:
        self.run, self.dataset, self.show = run, dataset, show
        self._compute_config = compute
        self._features: dict[str, Features] = {}
        self._trained: Fitted | None = None  # the last

    @cached_property
    def compute(self) -> "Compute":
        """Decided when the run first needs it, and then the same whenever it is resumed."""
        from svp.learners.compute import Compute, decide, gpu_of, require_device

        folder, device = self.run.folder, self._compute_config.device
        way_out = f"{folder} was begun there: go on where it can be used, or begin anew in another folder"
        if device != "auto":
            require_device(device, way_out)
        decided = self.run.remember("compute", lambda: decide(self._compute_config).facts())
        compute = Compute(
            **{field.name: decided[field.name] for field in fields(Compute) if field.name in decided},
            processes=self._compute_config.processes,
            scoring_batch=self._compute_config.scoring_batch,
        )
        require_device(compute.device, way_out)
        if compute.gpu and compute.gpu != (here := gpu_of(compute.device)):
            self.run.accept([f"gpu was {compute.gpu}, is now {here}"])
        return compute

    def decided(self, *models: TrainConfig) -> ComputeConfig:
        """The compute settings with nothing left to decide, where one of these models is a net."""
        nets = any(find(m).is_net or uses_net(m.features) for m in models)
        if not nets:
            return self._compute_config
        return ComputeConfig(**{k: v for k, v in asdict(self.compute).items() if k in ComputeConfig.model_fields})

    def learner(self, config: TrainConfig, seed: int, dataset: Dataset) -> Learner:
        return make_learner(config, dataset, seed=seed, compute=self.compute if find(config).is_net else None)

    def on(self, dataset: Dataset) -> "Work":
        """The same on another dataset."""
        return Work(self.run, dataset, self._compute_config, self.show)

    def features(self, config: TrainConfig) -> Features | None:
        """Stage: what the model sees in place of the inputs, made once for all that see the same; None where it sees these."""
        key = json.dumps(config.features.model_dump(mode="json"))
        if config.features.source is None or key in self._features:
            return self._features.get(key)
        self._features[key] = embed(self.run, self.dataset, self._inputs, self._source(config), show=self.show)
        return self._features[key]

    def as_seen(self, config: TrainConfig, other: Dataset) -> Dataset:
        """Stage: other data of the same kind as the model sees them. SettingError where its features stand in a file."""
        if config.features.source is None:
            return other
        source = self._source(config)  # of the data of this run, by which its net normalises
        if isinstance(source, FromFile):
            raise SettingError(
                f"{config.features.source} holds features of {self.dataset.name} alone, and there are none of the others in "
                f"{other.name}; leave those out"
            )
        return embed(self.run, other, inputs_of(other), source, show=self.show).seen

    def _source(self, config: TrainConfig) -> Embedder:
        return source_of(
            config.features,
            self.dataset,
            lambda net: self.learner(net, 0, self.dataset),
            lambda: {**self._computed(), **self._scored},
        )

    def features_of(self, name: str, fitted: Fitted) -> Features:
        """Stage: the features that a model trained in this run makes of the inputs."""
        if name not in self._features:
            learner = fitted.ready()
            facts = {"kind": "previous", "source": PREVIOUS, "model": fitted.config.model, "n": fitted.n}
            source = FromNet(learner, fitted.config.model, {"model": fitted.origin, **self._scored}, facts, tests=False)
            self._features[name] = embed(self.run, self.dataset, self._inputs, source, name, show=self.show)
            fitted.release()
        return self._features[name]

    @cached_property
    def _inputs(self) -> str:
        return inputs_of(self.dataset)

    def _computed(self) -> Json:
        return {f"compute.{key}": value for key, value in self.compute.facts().items()}

    @property
    def _scored(self) -> Json:
        """What plain passes depend on beside that, where it is not as usual."""
        batch = self._compute_config.scoring_batch
        return {} if batch == ComputeConfig().scoring_batch else {"compute.scoring_batch": batch}

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
        if not len(ids):
            raise TrainingError(
                f"{config.model} has no labelled examples to train on; ask for labels first, and tell them"
            )
        features = features or self.features(config)
        dataset = self.dataset if features is None else features.seen
        if self._trained is not None:  # one net at a time on the device, however many a run trains
            self._trained.release()
        make = partial(self.learner, config, seed, dataset)
        learner = make()
        settings = {key: value for key, value in config.flat().items() if key != "seeds" and value is not None}
        made_from = {
            # Of weights and features it counts what they are, not where they lie.
            **{f"train.{key}": v for key, v in settings.items() if not key.startswith(("features.", "weights"))},
            **({} if learner.initial_weights is None else {"initial_weights": learner.initial_weights}),
            **({} if features is None else {"features": features.origin}),
            "dataset": self.dataset.fingerprint,
            "ids": digest(ids),
            "labels": digest(labels),
            "seed": seed,
            **(self._computed() if find(config).is_net else {}),
            **(self._scored if config.validation or config.record == "plain" else {}),
        }
        stage = self.run.stage(name, made_from, ("svp.data.base", *learner.code))
        if stage.done:
            return Fitted(stage, config, make, len(ids), learner=learner, trained=False, features=features)
        what = f"training {config.model} on {len(ids):,} examples"

        def progress(record: EpochRecord, n_epochs: int) -> None:
            self.show(what, int(record["epoch"]) + 1, n_epochs, f"accuracy {record['accuracy']:.1%}")

        self.show(what, 0, n_epochs(config, shown(config, len(ids))))
        history = learner.fit(dataset, ids, labels, folder=stage.folder, progress=progress)
        kept = facts_of(self.dataset, embedded=uses_net(config.features) and not self.dataset.is_text)
        compiled = {name: value for name, value in history[-1].items() if name == "compiled"}
        seconds = sum(record["seconds"] for record in history)
        stage.finish(seconds=seconds, epochs=len(history), n=len(ids), **compiled, **kept)
        self._trained = Fitted(stage, config, make, len(ids), learner=learner, trained=True, features=features)
        return self._trained

    def choose(self, name: str, fitted: Sequence[Fitted], pool: Pool, how: How) -> Ranked:
        """Stage: score the pool with the trained models, and choose of it. With several models their scores are averaged.

        Killed while a net scores, it goes on behind the last SCORED_AT_A_TIME examples.
        """
        _, row = find_method(how.method)
        row = row.under(row.settle(how.method, how.options))
        ids, labels = pool.ids, pool.labels
        made_from = {
            "models": [f.origin for f in fitted],
            **({} if fitted else {"dataset": self.dataset.fingerprint}),  # a model is tied to its data
            "method": how.method,
            "functions": _functions_of(row),
            **{f"options.{key}": value for key, value in how.options.items()},
            **({} if labels is None or "labels" not in row.reads else {"labels": digest(labels)}),
            "ids": digest(ids),
            "already": digest(np.asarray(pool.already, np.int64)),
            "budget": how.budget,
            **self._scored,
            "seed": how.seed,
        }
        # Of an own method the module that it is named in, too: what is made there (a partial) may be of another's class.
        own = {*row.modules, *how.method.split(":")[:-1]}
        stage = self.run.stage(name, made_from, (*CHOOSING_CODE, *sorted(own)))
        if not stage.done:
            found = []
            for i, f in enumerate(fitted):  # one net at a time on the device
                if row.asks_model:
                    f.ready()  # reading a finished model from disk is not part of scoring
                found.append(self._arrays(f, row.reads, ids, stage.folder, i))
                f.release()
            inference = sum(seconds for _, seconds in found)
            arrays = [given for given, _ in found] or [{}]
            if "labels" in row.reads:
                arrays = [{**given, "labels": labels} for given in arrays]
            self.show(f"choosing {how.budget:,} of {len(ids):,} by {how.method}", 0, 0)
            begin = time.perf_counter()
            with own_code(how.method):
                selection, scores = choose(row, arrays, pool, how)
            ranking = time.perf_counter() - begin
            selection.of(self.dataset).save(stage.folder / "selection.parquet")
            of_candidates = candidates(pool)
            write_array(stage.folder / "scores.npy", scores[of_candidates])
            write_array(stage.folder / "ids.npy", ids[of_candidates])
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
        stage = self.run.stage(name, {"model": fitted.origin, **self._scored}, fitted.code)
        if not stage.done:
            self.show(f"testing {fitted.config.model} on {len(test):,} examples", 0, 0)
            fitted.ready()
            begin = time.perf_counter()
            probs = fitted.predict(test, test.ids).probs
            seconds = time.perf_counter() - begin
            write_array(stage.folder / "probs.npy", probs)
            stage.finish(seconds=seconds)
            fitted.release()
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
        labels, tested = labels_of(self.dataset), has_test(self.dataset)
        machines = self.run.machines()
        if len(machines) > 1:  # their seconds cannot be compared
            measured |= {name: [] for name in ("payments", "speed_up") if name in measured}
        metrics = {
            "format": METRICS_FORMAT,
            "workflow": config.workflow,
            "method": config.method,
            "kind": kind_of(config.method),
            "n": len(self.dataset),
            "majority_rate": majority_rate(labels, labels_of(test_part(self.dataset))) if tested else None,
            "margin": config.margin,
            "seed": config.seed,
            "seeds": config.seeds,
            "machines": machines,
            "load_seconds": self.run.environment["load"]["seconds"],
            "saw": {
                "proxy": self.saw(config.proxy) if chooses and find_method(config.method)[1].asks_model else None,
                "target": self.saw(config.target) if tested else None,
            },
            **measured,
        }
        write_json(self.run.folder / "metrics.json", metrics)
        self.run.event("finished")
        return self.run

    def _arrays(
        self, fitted: Fitted, reads: Sequence[str], ids: NDArray[np.int64], folder: Path, i: int
    ) -> tuple[dict[str, Any], float]:
        """What a method reads of one model, for the pool, and the seconds that scoring took. Outputs are kept in `folder`."""
        given: dict[str, Any] = {}
        seconds = 0.0
        embeddings = "embeddings" in reads or "similarity" in reads
        if "probs" in reads or embeddings:
            place = folder / f"probs-{i}.npy"
            # Of one pass both come, side by side until they are complete.
            both = folder / f".outputs-{i}.npy"
            seconds = self._score(fitted, ids, both if embeddings else place, embeddings=embeddings)
            if embeddings:
                outputs, n_classes = read_array(both), len(self.dataset.classes)
                given["embeddings"] = np.array(outputs[:, n_classes:])
                write_array(folder / f"embeddings-{i}.npy", given["embeddings"])
                write_array(place, np.array(outputs[:, :n_classes]))
                del outputs
                both.unlink()
            given["probs"] = np.array(read_array(place))
        if any(need in KINDS for need in reads):
            if fitted.stage.made_from["ids"] != digest(ids):
                raise SettingError(
                    "this method reads what training recorded, which exists only of the examples trained on; "
                    "in active learning choose a method of probs or embeddings (svp list methods)"
                )
            given["signals"] = fitted.signals().kinds()
        return given, seconds

    def _score(self, fitted: Fitted, ids: NDArray[np.int64], place: Path, *, embeddings: bool) -> float:
        """Write an (n, c) array of probabilities, or (n, c + d) with embeddings beside them; the seconds of all attempts."""
        what = f"scoring {len(ids):,} examples by {fitted.config.model}"

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            self.show(what, start, len(ids))
            outputs = fitted.predict(self.dataset, ids[start:stop], embeddings=embeddings)
            if wrong := int((~is_sound("probs", outputs.probs)).sum()):
                raise SettingError(
                    f"{fitted.config.model} ({fitted.stage.folder}) gives {wrong:,} of {len(outputs.probs):,} examples "
                    f"{UNSOUND['probs']}; mend its predict_proba, or choose another model (svp list models)"
                )
            return outputs.probs if outputs.embeddings is None else np.hstack([outputs.probs, outputs.embeddings])

        # A classifier may round otherwise where it is asked about fewer.
        block = self._scored_at_a_time() if find(fitted.config).is_net else len(ids)
        return fill_array(place, len(ids), rows, block)

    def _scored_at_a_time(self) -> int:
        """About SCORED_AT_A_TIME, in whole batches, of texts in whole groups of them."""
        from svp.learners.inference import ALIKE

        together = ALIKE * self._compute_config.scoring_batch
        wanted = SCORED_BY_PROCESSES if self._compute_config.processes > 1 else SCORED_AT_A_TIME
        return max(together, wanted // together * together)


def _functions_of(row: Method) -> list[str]:
    """Where everything that the row binds stands: the table itself is no counted code."""
    bound = row.sampler if isinstance(row, Rank) else row.scored_by if isinstance(row, Cover) else None
    return [path_of(method.function) for method in (row, bound) if method is not None]


def model_seed(seed: int, i: int) -> int:
    """Seed of the i-th proxy of a run seed. The first shares it with the target, so that equal settings are the same training."""
    return seed if i == 0 else spawn_seed(seed, "model", i)
