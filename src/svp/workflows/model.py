"""A model that a run or a session has trained, taken up again to be used: `svp.load_model(folder).predict(data)`."""

import json
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS, ComputeConfig, TrainConfig
from svp.data import load
from svp.data.base import Dataset, check_memory, silent
from svp.errors import DataError, SettingError, SvpError, SvpWarning, one_line, require
from svp.files import read_array, read_record
from svp.labels import LabelStore
from svp.learners import Learner, find, make_learner, settle
from svp.learners.encoders import TextEncoder, names_encoder
from svp.provenance import code_digest, installed
from svp.runs import DONE, STORE, Stage, check_files
from svp.workflows.features import BLOCK, encoder
from svp.workflows.given import Kind, Reading, as_dataset, labels_in
from svp.workflows.outcomes import Fitted, Show
from svp.workflows.people import data_of
from svp.workflows.pool import as_first_seen
from svp.workflows.predictions import Predictions
from svp.workflows.trained import Part, Trained, find_model, stage_of

if TYPE_CHECKING:
    from svp.learners.compute import Compute

_BYTES = 256 << 20  # of the inputs of a block, as floats
# A block is whole batches of scoring, of texts so many: a multiple of those among which texts of like width are brought together
# (learners/inference.py). So examples round as in one pass.
_TEXTS = 128
Embed = Callable[[Dataset, NDArray[np.int64]], NDArray[np.float32]]


class Model:
    """A trained model. Made by `load_model`.

    folder   that it lies in
    part     "target" or "proxy"
    classes  names, in the order of the probabilities
    takes    what one example is to it: shape and type
    config   its settings (svp.TrainConfig)
    n        examples it was trained on
    """

    def __init__(self, trained: Trained, trained_on: Any = None) -> None:
        self._trained, self._maker = trained, _Maker(trained, trained_on)
        self.folder, self.part, self.config = trained.stage.folder, trained.part, self._maker.config
        self.classes, self.takes, self.n = self._maker.classes, self._maker.takes, int(trained.stage.facts["n"])
        self._embed = self._maker.embed
        self._fitted = self._maker.fitted(self._maker.sees)
        self._fitted.ready()

    def __repr__(self) -> str:
        return (
            f"Model({self.config.model} at {self.folder}, for {self.takes}, classes {', '.join(self.classes[:10])}"
            f"{' ...' if len(self.classes) > 10 else ''})"
        )

    def predict(
        self,
        data: Any,
        *,
        labels: bool = True,
        image_column: str | None = None,
        text_column: str | tuple[str, ...] = (),
        label_column: str | None = None,
        encoding: str | None = None,
        quotes: bool | None = None,
        on_error: str | None = None,
        cache: str | Path | None = None,
        show: Show = silent,
    ) -> Predictions:
        """What it says of new examples: class probabilities in evaluation mode, in the order of the ids.

        data    a Dataset; an array in the shape that it was trained on, or a list of texts; or a path as `svp.load_dataset` and
                sessions take it: photos in a folder (in class folders: labelled), a table of texts (with a column of labels or
                without), .npz, .npy, FILE:COLUMNS for rows of numbers; or a name. What brings a test part is asked about that
        labels  False: folders and columns of labels are no classes of the model, or are to be left alone
        The other arguments say how the source is read, where not as the training data were. Photos are decoded and scaled as
        those were, texts encoded alike, frozen features made by the same source.

        Raises DataError for data of another kind, of another size where the net cannot take it, for classes that the model does
        not know, and what reading the source does. Memory: a block of examples, and the probabilities; of tables of numbers and
        of arrays that are neither uint8 nor float32, all, as float32. The same examples on the same machine have the same
        probabilities as in the run, bit for bit; a classifier of scikit-learn may round otherwise where there are more than a
        block of 256 MB.
        """
        columns = (text_column,) if isinstance(text_column, str) else tuple(text_column)
        reading = Reading(
            labels,
            image_column,
            columns,
            label_column,
            encoding,
            quotes,
            on_error,
            None if cache is None else Path(cache),
        )
        dataset = as_dataset(data, self.takes, self._trained.settings, reading, show)
        known = labels_in(dataset, self.classes)
        fitted, n = self._for(dataset), len(dataset)
        check_memory(4 * n * len(self.classes), f"probabilities of {n:,} examples for {len(self.classes):,} classes")
        probs = np.empty((n, len(self.classes)), np.float32)
        asked = replace(dataset, labels=None, classes=self.classes, test=None)
        batch = self._trained.settings.compute.scoring_batch
        size = batch * (
            _TEXTS if self.takes.is_text else max(1, _BYTES // (4 * batch * prod(dataset.inputs.shape[1:])))
        )
        for start in range(0, n, size):
            show(f"predicting {n:,} examples by {self.config.model}", start, n)
            block = slice(start, start + size)
            seen, ids = self._seen(asked, dataset.ids[block])
            probs[block] = fitted.predict(seen, ids).probs
        return Predictions(dataset.ids, dataset.keys, probs, self.classes, known)

    def _seen(self, dataset: Dataset, ids: NDArray[np.int64]) -> tuple[Dataset, NDArray[np.int64]]:
        """What the model sees of these examples, and what they are called there."""
        if self._embed is None:
            return dataset, ids
        # As the run embeds: which texts are scored together decides how they round.
        blocks = [self._embed(dataset, ids[start : start + BLOCK]) for start in range(0, len(ids), BLOCK)]
        return Dataset(dataset.name, np.concatenate(blocks), None, self.classes, np.arange(len(ids))), np.arange(
            len(ids)
        )

    def _for(self, dataset: Dataset) -> Fitted:
        """The model for these examples: of another size than it was trained on, if it can be made for that."""
        of, kind = Kind.of(dataset), self.takes
        if of == kind:
            return self._fitted
        wrong = f"{dataset.name} holds {of}; {self.config.model} ({self.folder}) takes {kind}, as it was trained on"
        sized = len(of.shape) == len(kind.shape) == 3 and (of.shape[2], of.dtype) == (kind.shape[2], kind.dtype)
        if not sized or not find(self.config).is_net or self._embed is not None:
            raise DataError(f"{wrong}{self._hint(of)}")
        try:
            fitted = self._maker.fitted(of)
            fitted.ready()
        except (SettingError, DataError) as error:
            raise DataError(f"{wrong}, and its weights fit no other size; scale the images to that") from error
        warnings.warn(f"{wrong}: what it says of another size may be worse", SvpWarning, stacklevel=3)
        return fitted

    def _hint(self, of: Kind) -> str:
        if self._maker.from_file is not None:
            return f": embeddings such as {self._maker.from_file} holds; make those of the new examples in the same way"
        if of.shape == self.takes.shape and not of.is_text:
            return "; give the same numbers in that type (bytes are 0 to 255)"
        return "; give data of that kind"


def load_model(
    folder: str | Path,
    part: Part = "target",
    *,
    arm: str | None = None,
    seed: int | None = None,
    trained_on: Dataset | str | Path | None = None,
) -> Model:
    """A model that a run or a session has trained, ready to predict.

    folder      a run folder of `svp coreset` or `svp active`, a session, or the folder of a model in one
    part        "target" or "proxy"
    arm, seed   which of a run: by default the target on the proxy's choice, of the first run seed, in active learning on the most
                labels. Others: arm = "random", "full", or as its folder in target/ is called ("proxy-steps", "proxy-400").
                Of a session it is the target of the last `finish`, or the proxy of the last round
    trained_on  the training data or their path, where they are needed and are not where they were: a classifier of scikit-learn
                is kept as its training examples, and fitted again. Nets and fastText need none

    Raises DataError for a folder that holds no such model, is not finished or is damaged, and for training data that are missing
    or changed; SettingError for a model of your own that cannot be imported. Warns (SvpWarning) where the code or the version of
    scikit-learn is another than it was trained by. Cost: reading the weights, or of a classifier its training.
    """
    return Model(find_model(folder, part, arm=arm, seed=seed), trained_on)


# --- how it is made again -------------------------------------------------------------------------------------------------


class _Maker:
    """What a model is made from again: its settings, the kind of its examples, and where nothing less will do they themselves."""

    def __init__(self, trained: Trained, trained_on: Any) -> None:
        self._trained, self._stage = trained, trained.stage
        self.config = settle(trained.config)
        self._found = find(self.config)
        facts = self._stage.facts
        self._data: Dataset | None = None
        # Trainings of earlier versions do not say what they were shown.
        shown = self._found.makes == "classifier" and self.config.features.source is None
        if shown or "takes" not in facts:
            self._data = _training_data(trained, self.config, trained_on)
            facts = {"classes": self._data.classes, "takes": Kind.of(self._data).facts(), **facts}
        self.classes = tuple(facts["classes"])
        self._raw = self.takes = self.sees = Kind.known(facts["takes"])
        self._statistics = facts.get("statistics")
        self.embed: Embed | None = None
        self.from_file: str | None = None
        self._features: Stage | None = None
        if self.config.features.source is not None:
            self._take_features()

    @cached_property
    def _compute(self) -> "Compute":
        """As the run had it, where that can be had here."""
        from svp.learners.compute import Compute, decide, require_device
        from svp.machine import n_cores

        batch = self._trained.settings.compute.scoring_batch
        known = read_record(self._trained.home / "environment.json").get("compute")
        if known is None:
            return decide(ComputeConfig(scoring_batch=batch))
        facts = {field.name: known[field.name] for field in fields(Compute) if field.name in known}
        made = Compute(**facts, scoring_batch=batch)
        try:
            require_device(made.device)
        except SettingError:
            return decide(ComputeConfig(scoring_batch=batch))
        return replace(made, threads=min(made.threads, n_cores()))

    def fitted(self, sees: Kind) -> Fitted:
        """The model for examples of this kind; its files are not read yet."""
        learner = self._learner(sees)
        code = code_digest(("svp.data.base", *learner.code))
        if code not in (self._stage.made_from.get("code"), *self._accepted):
            _warn(f"{self._stage.folder} was trained by other code; what it says may differ from what it said then")
        make, n = partial(self._learner, sees), self._stage.facts["n"]
        return Fitted(self._stage, self.config, make, n, learner=learner, trained=False)

    @property
    def _accepted(self) -> list[str]:
        accepted: list[str] = read_record(self._stage.folder / DONE).get("code_accepted", [])
        return accepted

    def _learner(self, sees: Kind) -> Learner:
        seed = int(self._stage.made_from["seed"])
        if self._found.makes == "classifier":
            _same_library(self._trained)
            examples = self._data if self._features is None else self._embedded(self._features.folder)
            assert examples is not None
            return make_learner(self.config, examples, seed=seed)
        if not self._found.is_net:
            return make_learner(self.config, sees.like(self.classes), seed=seed)
        # Everything that it learned is in its own file: what it began with need not be there any more.
        config = self.config.model_copy(update={"weights": None, **({} if sees.is_text else {"normalize": "data"})})
        like = sees.like(self.classes, None if sees.is_text else _statistics(self._stage.folder, sees))
        return make_learner(config, like, seed=seed, compute=self._compute)

    def _embedded(self, features: Path) -> Dataset:
        """The training data as a classifier on frozen features saw them, whatever has become of the pool since."""
        if not (features / "ids.npy").exists():
            raise DataError(
                f"{features} is of an earlier version, which did not say whose features they are; remove it and "
                f"{self._stage.folder}, and repeat the command that made them"
            )
        embeddings, ids = read_array(features / "embeddings.npy"), np.asarray(read_array(features / "ids.npy"))
        return Dataset("its training data", embeddings, None, self.classes, ids)

    def _take_features(self) -> None:
        """Find out what the model sees in place of the inputs, and what makes it."""
        features = self.config.features
        self._features = made = stage_of(
            self._trained.home, self._stage.made_from["features"], f"features of {features.source}"
        )
        check_files(made.folder)
        self.sees = Kind(tuple(read_array(made.folder / "embeddings.npy").shape[1:]), "float32")
        if "embeddings.files" in made.made_from:
            self.takes, self.from_file = self.sees, str(features.source)
        elif features.source == PREVIOUS:
            target = stage_of(self._trained.home, made.made_from["model"], "target of the round before")
            self.embed = _of_net(Model(Trained.at(target.folder))._fitted.ready())
        elif names_encoder(features.source):
            on = {"device": self._compute.device} if "device" in made.made_from else {}
            texts = TextEncoder.load(str(features.source), features.options, **on)
            _same_weights(str(features.source), made, texts.weights)
            self.embed = lambda dataset, ids: texts.encode(list(dataset.inputs[dataset.positions(ids)]))
        else:
            statistics = self._statistics
            if statistics is None and self._data is not None and not self._raw.is_text:
                statistics = self._data.statistics
            like = self._raw.like(self.classes, statistics)
            config, _ = encoder(features, like)
            learner = make_learner(config, like, seed=0, compute=self._compute)
            _same_weights(str(features.source), made, learner.initial_weights)
            self.embed = _of_net(learner)


def _of_net(learner: Learner) -> Embed:
    def embed(dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        embeddings = learner.predict(dataset, ids, embeddings=True).embeddings
        assert embeddings is not None  # the run was refused otherwise
        return embeddings

    return embed


def _same_weights(source: str, features: Stage, weights: str | None) -> None:
    if (before := features.made_from.get("initial_weights")) != weights:
        raise DataError(
            f"the weights of {source} are others than the model was trained on the features of ({weights}, not {before}); "
            "put those back"
        )


def _same_library(trained: Trained) -> None:
    # The record of the run has those of the last change that was accepted.
    mark = read_record(trained.stage.folder / DONE)
    record = mark if "packages" in mark else read_record(trained.home / "environment.json", "packages")
    before = record["packages"].get("scikit-learn")
    if before != (now := installed("scikit-learn")):
        _warn(
            f"{trained.stage.folder} was trained by scikit-learn {before} and is fitted again by {now}; what it says may differ"
        )


def _warn(message: str) -> None:
    warnings.warn(message, SvpWarning, stacklevel=3)


def _statistics(folder: Path, sees: Kind) -> Any:
    """Mean and deviation that a net takes from its inputs, as the file of its weights has them: of bytes divided by 255."""
    from svp.learners.weights import STATISTICS

    path = folder / "model.safetensors"
    safetensors = require("safetensors", "torch")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            known = json.loads((file.metadata() or {})[STATISTICS])
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(
            f"cannot take weights from {path}: {one_line(error)}; remove the folder {folder} to have it made again"
        ) from None
    return np.asarray(known, np.float64) * (255.0 if sees.dtype == "uint8" else 1.0)


def _training_data(trained: Trained, config: TrainConfig, given: Any) -> Dataset:
    """The examples that it was trained on, by the ids that they had; DataError where they are not what they were."""
    settings, folder = trained.settings, trained.stage.folder
    if given is not None and not isinstance(given, Dataset):
        settings = settings.model_copy(update={"dataset": str(given)})
    try:
        raw = given if isinstance(given, Dataset) else (data_of(settings, ()) if trained.of_people else load(settings))
    except SvpError as error:
        raise DataError(
            f"{config.model} ({folder}) is kept as its training examples and has to be fitted again, and they cannot be had: "
            f"{error}; say where they are (--trained-on, trained_on=)"
        ) from error
    if not trained.of_people:
        data = raw.without_labels() if (trained.home / STORE).exists() else raw
        if data.fingerprint == trained.stage.made_from["dataset"]:
            return data
        raise DataError(
            f"{raw.name} is not what {config.model} ({folder}) was trained on: its content is another; say where that is "
            "(--trained-on, trained_on=)"
        )
    with closing(LabelStore.open(trained.home / STORE)) as store:
        data = replace(as_first_seen(raw, store), classes=store.classes)
    ids = read_array(folder / "ids.npy") if (folder / "ids.npy").exists() else np.zeros(0, np.int64)
    if gone := int((~np.isin(ids, data.ids)).sum()):
        raise DataError(
            f"{gone:,} of the {len(ids):,} examples that {config.model} ({folder}) was trained on are gone from {raw.name}, or "
            f"changed; put them back, or train it again (svp session finish {trained.home})"
        )
    return data
