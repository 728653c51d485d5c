"""Frozen features: embeddings in place of the inputs, made once a run, for models that are trained on nothing else.

They come from a file, from a net by name with its weights, from an encoder of texts in a folder, from the net that a run folder
holds, or (in active learning) from the target as it was trained a round before. Either way they become a stage of the run,
`embeddings.npy` and `test.npy`, made block by block; a model then is fitted on a dataset whose inputs these are, memory-mapped,
and knows nothing of where they are from.
"""

import json
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from svp.columns import NAMES, SUFFIXES, Source, read_names, sha256_of
from svp.columns import read_array as read_column
from svp.config import PREVIOUS, FeaturesConfig, TrainConfig
from svp.data.base import Dataset
from svp.errors import DataError, MissingInput, SettingError, SvpWarning
from svp.files import Json, digest, fill_array, read_array, read_record, write_array
from svp.learners import Learner, find, trial
from svp.learners.encoders import TextEncoder, names_encoder, uses_device
from svp.runs import BEGUN, DONE, Run, Stage

# Examples between two marks; a multiple of the batch in which nets score, so that resuming moves no rounding.
BLOCK = 4096
MEMORY = 1 << 30  # bytes of a table of embeddings that are held; more is put on disk
_SAME = 0.1  # of the largest number in an embedding: what rounding may do where one is made twice
Part = Literal["embeddings", "test"]  # the files of the stage: of the training part, of the test part


class Embedder(Protocol):
    """Where features come from.

    made_from  what they depend on, beside the dataset
    code       the modules that make them
    facts      what metrics.json keeps: kind, source, and what is known of other data that they saw
    """

    made_from: Json
    code: tuple[str, ...]
    facts: Json

    def parts(self, dataset: Dataset) -> dict[Part, Dataset]:
        """What can be embedded."""
        ...

    def blocks(self, part: Part, dataset: Dataset, start: int) -> Generator[NDArray[np.float32], None, None]:
        """(BLOCK, d) embeddings at a time of the examples from position `start` on; the last may be fewer."""
        ...

    def some(self, dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(k, d) embeddings of some examples of the training part."""
        ...


@dataclass(frozen=True)
class Features:
    """Features of one dataset, made: a finished stage.

    origin  digest of everything they were made from
    facts   kind, source, d, seconds, and what is known of other data that they saw
    seen    the dataset with (n, d) float32 features as its inputs; without a test part where there are none of it
    """

    origin: str
    facts: Json
    raw: Dataset
    seen: Dataset

    def of(self, dataset: Dataset) -> Dataset:
        """The features of the training part or the test part."""
        if dataset.inputs is self.raw.inputs:
            return self.seen
        if self.raw.test is not None and dataset.inputs is self.raw.test.inputs:
            if self.seen.test is not None:
                return self.seen.test
            raise MissingInput(f"there are no embeddings of {dataset.name}, only of {self.raw.name} itself")
        raise DataError(
            f"a model on frozen features knows the examples of {self.raw.name} alone, and was asked about those of {dataset.name}"
        )


def as_seen(raw: Dataset, parts: dict[Part, NDArray[Any]]) -> Dataset:
    """The dataset with these arrays as its inputs; what of it has none is left out."""
    test = raw.test if "test" in parts else None
    if test is not None:
        test = replace(test, inputs=parts["test"], augmentation="none")
    return replace(raw, inputs=parts["embeddings"], augmentation="none", test=test)


def embed(
    run: Run,
    dataset: Dataset,
    inputs: str,
    source: "Embedder",
    name: str | None = None,
    *,
    show: Callable[[str, int, int], None],
) -> Features:
    """Stage: embeddings of the dataset and its test part, block by block; killed in between, it goes on behind the last block.

    inputs  fingerprint of what is embedded
    name    of the stage; default features/DIGEST of what it is made from, so that whatever sees the same finds it
    Raises DataError where they are not finite. Memory: a block of examples.
    """
    made_from = {**source.made_from, "inputs": inputs}
    name = name or f"features/{digest(json.dumps(made_from, sort_keys=True))[:8]}"
    stage = run.stage(name, made_from, source.code)
    parts = source.parts(dataset)
    if not stage.done:
        seconds: dict[Part, float] = {}
        for part, of in parts.items():
            with _rows(source, part, dataset, of, show) as rows:
                seconds[part] = fill_array(stage.folder / f"{part}.npy", len(of), rows, BLOCK)
        write_array(stage.folder / "ids.npy", dataset.ids)
        if source.facts["kind"] == "file":
            _warn_of_other_rows(stage, source.facts["source"], dataset.ids)
        # Testing counts for itself.
        stage.finish(
            embed_seconds=seconds["embeddings"],
            test_seconds=seconds.get("test", 0.0),
            n=len(dataset),
            source=source.facts["source"],
        )
    arrays = {part: read_array(stage.folder / f"{part}.npy") for part in parts}
    facts = {**source.facts, "d": arrays["embeddings"].shape[1], "seconds": stage.facts["embed_seconds"]}
    return Features(stage.origin, facts, dataset, as_seen(dataset, arrays))


def _warn_of_other_rows(stage: Stage, source: str, ids: NDArray[np.int64]) -> None:
    """Does the file still say of the examples that it was read for before what it said of them then?

    A bare array that was made anew in the order of the names, once the pool has grown, is a row off, and nothing else would tell.
    """
    marks = [(read_record(mark, "facts"), mark.parent) for mark in stage.folder.parent.glob(f"*/{DONE}")]
    earlier = [(mark["finished"], folder) for mark, folder in marks if mark["facts"].get("source") == source]
    if not earlier:
        return
    _, last = max(earlier)
    try:
        before, ids_before = read_array(last / "embeddings.npy"), read_array(last / "ids.npy")
    except DataError:  # whoever needs them says so
        return
    new = read_array(stage.folder / "embeddings.npy")
    _, rows, rows_before = np.intersect1d(ids, ids_before, assume_unique=True, return_indices=True)
    some = slice(None, None, max(1, len(rows) // BLOCK))
    one, other = new[rows[some]], before[rows_before[some]]
    if one.shape != other.shape:  # of another net
        return
    if n_other := int((np.abs(one - other).max(axis=1) > _SAME * np.abs(other).max(axis=1)).sum()):
        warnings.warn(
            f"{source}: {n_other:,} of {len(one):,} examples that were looked at have other embeddings than it gave them before. "
            "In a bare array new examples stand behind all others; a table with a column key needs no order",
            SvpWarning,
            stacklevel=2,
        )


@contextmanager
def _rows(
    source: "Embedder", part: Part, dataset: Dataset, of: Dataset, show: Callable[[str, int, int], None]
) -> Iterator[Callable[[int, int], NDArray[np.float32]]]:
    """What gives one block after the other, from wherever it is first asked to begin."""
    with ExitStack() as left:
        blocks: list[Generator[NDArray[np.float32], None, None]] = []

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            if not blocks:
                blocks.append(left.enter_context(closing(source.blocks(part, dataset, start))))
            show(f"embedding {len(of):,} examples by {source.facts['source']}", start, len(of))
            return _finite(source, next(blocks[0]), of, start)

        yield rows


def _finite(source: "Embedder", rows: NDArray[np.float32], of: Dataset, start: int) -> NDArray[np.float32]:
    if len(wrong := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
        raise DataError(
            f"{source.facts['source']}: {len(wrong):,} of the embeddings {start:,} to {start + len(rows) - 1:,} hold what is no "
            f"finite number, first that of example {of.key(int(of.ids[start + wrong[0]]))}; make these anew"
        )
    return rows


# --- from where -----------------------------------------------------------------------------------------------------------


@dataclass
class FromFile:
    """Embeddings that stand in files: rows in the order of the ids, or in a table those that a column of ids or keys names."""

    arrays: dict[Part, NDArray[Any]]
    order: dict[Part, NDArray[np.int64]]
    made_from: Json
    facts: Json
    code: tuple[str, ...] = ("svp.columns", "svp.mapped", "svp.workflows.features")

    @classmethod
    def of(cls, config: FeaturesConfig, dataset: Dataset) -> "FromFile":
        """Raises DataError where rows are missing, or were made of another dataset; numbers are looked at block by block."""
        if {config.width, config.weights, config.normalize} != {None} or config.options:
            raise SettingError(
                f"{config.source} is a file; features.weights, normalize, width and options are for nets by name"
            )
        words: dict[Part, str] = {"embeddings": str(config.source)}
        if config.test is not None:
            words["test"] = config.test
        elif (made := _beside(words["embeddings"], "test.npy")) is not None:
            words["test"] = str(made)
        arrays: dict[Part, NDArray[Any]] = {}
        order: dict[Part, NDArray[np.int64]] = {}
        made_from: Json = {}
        for part, word in words.items():
            of = dataset if part == "embeddings" else dataset.test
            if of is None:
                raise SettingError(f"features.test names {word}, and {dataset.name} has no test part; leave it out")
            source = Source.of(_array_in(word))
            _refuse_other_data(source.path, dataset)
            arrays[part] = read_column(source, "embeddings", MEMORY)
            order[part] = _order(source, len(arrays[part]), of)
            if arrays[part].ndim != 2 or not arrays[part].shape[1]:
                raise DataError(f"{word} has shape {arrays[part].shape}; embeddings are (n, d), a row an example")
            if arrays[part].shape[1] != arrays["embeddings"].shape[1]:
                raise DataError(
                    f"{word} has {arrays[part].shape[1]} numbers a row, {words['embeddings']} "
                    f"{arrays['embeddings'].shape[1]}; both must be of the same net"
                )
            made_from[f"{part}.files"] = [sha256_of(file) for file in source.files]
            made_from[f"{part}.columns"] = source.columns
            made_from[f"{part}.order"] = digest(order[part])
        return cls(arrays, order, made_from, {"kind": "file", "source": config.source})

    def parts(self, dataset: Dataset) -> dict[Part, Dataset]:
        return {part: _part_of(dataset, part) for part in self.arrays}

    def blocks(self, part: Part, dataset: Dataset, start: int) -> Generator[NDArray[np.float32], None, None]:
        order = self.order[part]
        for begin in range(start, len(order), BLOCK):
            yield self._rows(part, order[begin : begin + BLOCK])

    def some(self, dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._rows("embeddings", self.order["embeddings"][dataset.positions(ids)])

    def _rows(self, part: Part, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as not finite
            return np.asarray(self.arrays[part][rows]).astype(np.float32)


def _array_in(word: str) -> str:
    """A stage of features stands for its embeddings."""
    path = Path(word)
    return str(path / "embeddings.npy") if (path / "embeddings.npy").exists() else word


def _beside(word: str, name: str) -> Path | None:
    """A file of the stage of features that `word` names, if it does."""
    folder = Path(_array_in(word)).parent
    return folder / name if (folder / DONE).exists() and (folder / name).exists() else None


def _refuse_other_data(path: Path, dataset: Dataset) -> None:
    """DataError for embeddings that a run made of another dataset."""
    mark = path.parent / BEGUN
    if mark.exists():
        made = read_record(mark, "made_from")["made_from"].get("inputs")
        if made is not None and made != inputs_of(dataset):
            raise DataError(
                f"{path} holds embeddings of other data (fingerprint {made[:12]}, not {inputs_of(dataset)[:12]} of "
                f"{dataset.name}); make them of this"
            )


def _order(source: Source, n_rows: int, dataset: Dataset) -> NDArray[np.int64]:
    """The row of each example: named by a column of ids or keys in a table that has one, else as they stand."""
    columns = [name for name in source.column_names() if name.lower() in NAMES["ids"]]
    if not columns:
        if n_rows != len(dataset):
            raise DataError(
                f"{source.path} has {n_rows:,} rows, {dataset.name} {len(dataset):,} examples; give a row an example in the "
                "order of the ids, or a table with a column of ids or keys"
            )
        return np.arange(n_rows)
    by_key = columns[0].lower().startswith("key")
    named = read_names(Source(source.path, source.files, columns[0]), MEMORY, "keys" if by_key else "ids")
    names: list[Any] = named.tolist() if isinstance(named, np.ndarray) else named.to_pylist()
    if by_key or (names and isinstance(names[0], str)):
        wanted: Sequence[Any] = dataset.keys if dataset.keys is not None else [str(i) for i in dataset.ids]
    else:
        wanted = dataset.ids.tolist()
    row_of = {name: row for row, name in enumerate(names)}
    if len(row_of) < len(names):
        raise DataError(f"{source.path} names an example twice in {columns[0]}; give a row an example")
    if missing := [name for name in wanted if name not in row_of]:
        raise DataError(
            f"{source.path} has no row for {len(missing):,} of {len(wanted):,} examples of {dataset.name} (by its column "
            f"{columns[0]}), the first: {', '.join(map(str, missing[:3]))}"
        )
    return np.array([row_of[name] for name in wanted], np.int64)


@dataclass
class FromNet:
    """Embeddings that a net gives, plainly: what is in front of its last layer."""

    learner: Learner
    name: str
    made_from: Json
    facts: Json
    tests: bool = True  # is the test part embedded too?
    code: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.code = ("svp.workflows.features", *self.learner.code)
        if "embeddings" not in self.learner.gives:
            raise MissingInput(f"{self.name} gives no embeddings; features need a net with `features` and `head`")

    def parts(self, dataset: Dataset) -> dict[Part, Dataset]:
        test: dict[Part, Dataset] = {"test": dataset.test} if self.tests and dataset.test is not None else {}
        return {"embeddings": dataset, **test}

    def blocks(self, part: Part, dataset: Dataset, start: int) -> Generator[NDArray[np.float32], None, None]:
        of = _part_of(dataset, part)
        for outputs in self.learner.stream(of, of.ids[start:], BLOCK, embeddings=True):
            assert outputs.embeddings is not None  # it gives them: looked at when this was made
            yield outputs.embeddings

    def some(self, dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        embedded = self.learner.predict(dataset, ids, embeddings=True).embeddings
        assert embedded is not None
        return embedded


@dataclass
class FromEncoder:
    """Embeddings of texts that another library makes."""

    encoder: TextEncoder
    made_from: Json
    facts: Json
    code: tuple[str, ...] = ("svp.learners.encoders", "svp.workflows.features")

    @classmethod
    def of(cls, config: FeaturesConfig, dataset: Dataset, device: Callable[[], str]) -> "FromEncoder":
        """Raises SettingError where the examples are no texts, and what `TextEncoder.load` does. device: asked if it matters."""
        name = str(config.source)
        if {config.width, config.weights, config.normalize, config.test} != {None}:
            raise SettingError(
                f"{name} is a model in a folder; of its settings only features.options mean something to it"
            )
        if not dataset.is_text:
            raise SettingError(f"{name} embeds texts, and {dataset.name} holds none; name a net with its weights")
        on = {"device": device()} if uses_device(name) else {}
        encoder = TextEncoder.load(name, config.options, **on)
        options = {f"options.{key}": value for key, value in config.options.items()}
        made_from = {"encoder": name.partition(":")[0], "initial_weights": encoder.weights, **options, **on}
        return cls(encoder, made_from, {"kind": "net", "source": name, "initial_weights": encoder.weights})

    def parts(self, dataset: Dataset) -> dict[Part, Dataset]:
        return {"embeddings": dataset, **({} if dataset.test is None else {"test": dataset.test})}

    def blocks(self, part: Part, dataset: Dataset, start: int) -> Generator[NDArray[np.float32], None, None]:
        texts = _part_of(dataset, part).inputs
        for begin in range(start, len(texts), BLOCK):
            yield self.encoder.encode(list(texts[begin : begin + BLOCK]))

    def some(self, dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.encoder.encode(list(dataset.inputs[dataset.positions(ids)]))


def source_of(
    config: FeaturesConfig, dataset: Dataset, learner_of: Callable[[TrainConfig], Learner], computed: Callable[[], Json]
) -> Embedder:
    """Where the features that the settings name come from.

    learner_of  makes a net; computed  where nets live, as their stages record it
    """
    if names_encoder(config.source):
        return FromEncoder.of(config, dataset, lambda: str(computed()["compute.device"]))
    if is_file(config):
        return FromFile.of(config, dataset)
    model, facts = encoder(config, dataset)
    learner = learner_of(model)
    check_learned(model.model, learner)
    # Of its settings these alone make a difference to what it gives.
    own = ("model", "width", "options", "normalize")
    net = {name: value for name, value in model.flat().items() if name.startswith(own) and value is not None}
    made_from = {**net, "initial_weights": learner.initial_weights, **computed()}
    return FromNet(learner, model.model, made_from, {**facts, "initial_weights": learner.initial_weights})


def encoder(config: FeaturesConfig, dataset: Dataset) -> tuple[TrainConfig, Json]:
    """The net that features come from, by name or in the folder of a training; and what is known of what it saw."""
    name = str(config.source)
    if Path(name).is_dir():
        return _trained(Path(name), config, dataset)
    model = TrainConfig(
        model=name,
        width=config.width or 1.0,
        options=config.options,
        weights=config.weights,
        normalize=config.normalize,
    )
    if not find(model).is_net:
        raise SettingError(f"{name} is no net, and gives no embeddings; name a net (svp list models) with its weights")
    return model, {"kind": "net", "source": name}


def _trained(folder: Path, config: FeaturesConfig, dataset: Dataset) -> tuple[TrainConfig, Json]:
    """The net that a run trained, as one by name with the weights in its folder."""
    made_from = read_record(folder / BEGUN, "made_from")["made_from"]
    weights = folder / "model.safetensors"
    if not (weights.exists() and (folder / DONE).exists()):
        raise DataError(
            f"{folder} holds no trained net; name a finished stage of a run, such as proxy/seed-0/model-0 in it"
        )
    if "features" in made_from:
        raise SettingError(f"{folder} was trained on frozen features itself; name the stage of those (its source)")
    if {config.width, config.weights, config.normalize} != {None} or config.options:
        raise SettingError(
            f"{folder} says itself what net it holds; leave out features.weights, normalize, width and options"
        )
    trained = {name.removeprefix("train."): value for name, value in made_from.items() if name.startswith("train.")}
    options: Json = {}
    for name, value in trained.items():
        if name.startswith("options."):
            *tables, last = name.split(".")[1:]
            inner = options
            for table in tables:
                inner = inner.setdefault(table, {})
            inner[last] = value
    here = {dataset.fingerprint, dataset.without_labels().fingerprint}
    facts = {
        "kind": "trained",
        "source": str(folder),
        "model": trained["model"],
        "same_data": made_from["dataset"] in here,
        "n": read_record(folder / DONE, "facts")["facts"]["n"],
        "before": made_from.get("initial_weights"),
    }
    return TrainConfig(model=trained["model"], width=trained["width"], options=options, weights=weights), facts


def is_file(config: FeaturesConfig) -> bool:
    """Is it embeddings that the source names, not a net? DataError for what looks like a file, and is none."""
    path = Path(str(config.source))
    if path.is_dir():
        return not (path / BEGUN).exists() or (path / "embeddings.npy").exists()
    left = Path(str(config.source).rpartition(":")[0])
    if path.exists() or (left.name and left.exists()) or {path.suffix, left.suffix} & set(SUFFIXES):
        return True
    if "/" in str(config.source):
        raise DataError(
            f"{config.source} does not exist; features come from a file of embeddings, a net by name, or its folder in a run"
        )
    return False


def uses_net(config: FeaturesConfig) -> bool:
    """Is there a net of ours to be run?"""
    if config.source is None or names_encoder(config.source):
        return False
    return config.source == PREVIOUS or not is_file(config)


def check_learned(name: str, learner: Learner) -> None:
    """Features of a net that nothing has taught say little: SettingError."""
    if learner.initial_weights is None:
        raise SettingError(f"{name} knows nothing yet; give its weights (features.weights, a .safetensors file)")


def inputs_of(dataset: Dataset) -> str:
    """Fingerprint of what can be embedded: the same whatever labels and classes there are. Time: one pass over the data."""
    test = None if dataset.test is None else replace(dataset.test, labels=None, classes=())
    return replace(dataset, labels=None, classes=(), test=test).fingerprint


def stand_in(config: TrainConfig, dataset: Dataset, target: TrainConfig, *, tested: bool) -> Dataset:
    """Two examples as the model sees them, to try it on; the dataset itself where it sees that. Makes no stage.

    target  whose embeddings `previous` means
    tested  the model will be asked about the test part too
    Raises what making the features would, so far as that can be known without making them.
    """
    if config.features.source is None:
        return dataset
    source = seen_by(config, dataset, target, lambda net: trial(net, dataset), lambda: {"compute.device": "cpu"})
    if tested and isinstance(source, FromFile) and "test" not in source.arrays:
        raise MissingInput(
            f"{config.features.source} holds no embeddings of the test part, on which {config.model} is measured; "
            "name their file in features.test"
        )
    ids = dataset.ids[:2]
    return Dataset(dataset.name, np.zeros_like(source.some(dataset, ids)), None, dataset.classes, ids)


def seen_by(
    config: TrainConfig,
    dataset: Dataset,
    target: TrainConfig,
    learner_of: Callable[[TrainConfig], Learner],
    computed: Callable[[], Json],
) -> Embedder:
    """Where the features that a model sees come from: as `source_of`, and for `previous` a target that knows nothing yet."""
    if config.features.source == PREVIOUS:
        return FromNet(learner_of(target), target.model, {}, {})
    return source_of(config.features, dataset, learner_of, computed)


def _part_of(dataset: Dataset, part: Part) -> Dataset:
    of = dataset if part == "embeddings" else dataset.test
    assert of is not None
    return of
