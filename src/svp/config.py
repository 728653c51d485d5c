"""Settings are values: frozen, checked when made, unknown names refused, from and to TOML.

Proxy and target are two values of one type, `TrainConfig`: "is this selection via proxy?" is `config.proxy != config.target`,
asked once both are as they will be run (`svp.learners.settle`).
"""

import hashlib
import json
import math
import numbers
import re
import tomllib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from svp.errors import DataError, SettingError, UnknownName

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
# Settings that may differ when a run is taken up again: where the data lies (what it is stands in the fingerprint), who works.
CHANGES_NOTHING = ("data", "cache", "compute.processes")
# Files that count by their content, wherever they lie.
BY_CONTENT = ("proxy.weights", "proxy.features.weights", "target.weights", "target.features.weights")


def _keepable(value: Any) -> Any:
    """The value of a setting, if a TOML file gives it back as it is (tables and arrays within options included)."""
    if isinstance(value, dict):
        return {_keepable(name): _option(item) for name, item in value.items()}
    if isinstance(value, str | Path):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError(
                "this text is no valid Unicode, and cannot be kept in a configuration; rename it"
            ) from None
    return value


def _option(value: Any) -> Any:
    """What an own model or method is given: text, finite numbers, true or false, and tables and arrays of them."""
    if isinstance(value, list | tuple):
        return [_option(item) for item in value]
    plain = isinstance(value, str | int | dict) or (isinstance(value, float) and math.isfinite(value))
    if not plain or (isinstance(value, dict) and not all(isinstance(name, str) for name in value)):
        raise ValueError(
            f"{value!r} cannot be kept in a configuration; "
            "give text, finite numbers, true, false, arrays or tables (or leave it out)"
        )
    return _keepable(value)


class Config(BaseModel):
    """What all settings share: no change after making, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _complete_parts(cls, values: Any, make: ModelWrapValidatorHandler[Self]) -> Self:
        """A part given in part keeps the rest of its default: proxy = {epochs = 3} is still the default proxy, for 3 epochs.

        Its `model_fields_set` are those that were given: what is only filled in gives way to the defaults of a model.
        """
        if not isinstance(values, dict):
            return make(values)
        defaults = {name: info.default for name, info in cls.model_fields.items() if isinstance(info.default, Config)}
        given = {name: values[name] for name in defaults if isinstance(values.get(name), dict)}
        made = make({**values, **{name: merge(defaults[name].model_dump(), part) for name, part in given.items()}})
        for name, part in given.items():
            getattr(made, name).model_fields_set.intersection_update(part)
        return made

    @field_validator("*")
    @classmethod
    def _fits_a_file(cls, value: Any) -> Any:
        return _keepable(value)

    if not TYPE_CHECKING:  # where types are checked, each class has the arguments that its settings are

        def __init__(self, **values: Any) -> None:
            """Raises SettingError or UnknownName in one line, naming the setting."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _one_line(error, type(self)) from None

        # To pydantic it is its own: a part within another is checked with the whole, and named "proxy.epochs".
        __init__.__pydantic_base_init__ = True

    @classmethod
    def make(cls, values: dict[str, Any], *, flags: bool = False) -> Self:
        """Settings from nested tables, checked; flags: errors name settings as the command line does, `--proxy.epochs`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _one_line(error, cls, flags=flags) from None

    @classmethod
    def load(cls, path: Path, overrides: dict[str, Any] | None = None) -> Self:
        """Read a TOML file; `overrides` (nested like the file) win over it."""
        return cls.make(merge(read_toml(path), overrides or {}))

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name, as the command line knows it: {"proxy.epochs": 15, ...}."""
        return dict(_flatten(self.model_dump(mode="json")))

    def digest(self, without: Sequence[str] = ()) -> str:
        """64 hexadecimal digits that change when any setting does, but for those named."""
        settings = {name: value for name, value in self.flat().items() if name not in without}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        """The whole configuration as TOML; `load` gives it back."""
        return _toml(self.model_dump(mode="json", exclude_none=True))


Normalize = Annotated[
    Literal["data", "imagenet"] | None,
    Field(description="mean and deviation taken from images: of this data, or ImageNet's; default: as the weights say"),
]
PREVIOUS = "previous"  # FeaturesConfig.source: whatever the target of the round before makes of the inputs


class FeaturesConfig(Config):
    """What a model sees in place of the inputs: embeddings, which stay as they are while it is trained."""

    source: str | None = Field(
        None,
        description="embeddings in place of inputs: a file of them (.npy, file.npz:name, .parquet ...), a net by name, "
        "the folder of a trained net, model2vec:FOLDER or sentence-transformers:FOLDER for texts, or previous: the target of "
        "the round before",
    )
    test: str | None = Field(None, description="file of the embeddings of the test part")
    weights: Path | None = Field(None, description="weights of a net by name: a .safetensors file")
    normalize: Normalize = None
    width: float | None = Field(None, gt=0, description="width of a net by name")
    options: dict[str, Any] = Field({}, description="arguments for a net by name, where it takes some")

    @model_validator(mode="after")
    def _something_is_named(self) -> Self:
        given = [name for name, value in self if name != "source" and value not in (None, {})]
        if self.source is None and given:
            raise ValueError(f"features.{given[0]} belongs to features.source, which is not given")
        return self


class TrainConfig(Config):
    """How one model is made. The proxy is one of these, the target another."""

    model: str = Field("preact20", description="a name from `svp list models`, or package.module:function")
    width: float = Field(1.0, gt=0, description="multiplies the channels of every layer")
    options: dict[str, Any] = Field({}, description="arguments for a model that takes some, such as one of your own")
    weights: Path | None = Field(
        None, description="initial weights of a net: a .safetensors file that fits it, but for the number of classes"
    )
    normalize: Normalize = None
    features: FeaturesConfig = FeaturesConfig()
    epochs: Count = Field(40, description="passes over the training examples")
    min_steps: int = Field(0, ge=0, description="raise the epochs until there are at least this many steps")
    batch_size: Count = Field(128, description="examples a step")
    lr: float = Field(
        0.1, gt=0, description="highest learning rate, for a batch of 128 (scaled in proportion to the batch)"
    )
    schedule: Literal["one_cycle", "piecewise"] = Field("one_cycle", description="how the learning rate moves")
    warmup: float = Field(0.15, ge=0, lt=1, description="one_cycle: share of the steps in which the rate rises")
    phases: tuple[tuple[float, float], ...] = Field(
        ((1, 0.1), (90, 1.0), (45, 0.1), (45, 0.01)),
        description="piecewise: (length, factor of lr) of each phase; lengths are stretched to fit the epochs",
    )
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread evenly over all classes")
    augment: Literal["auto", "none", "crop", "crop_flip", "resized_crop_flip"] = Field(
        "auto", description="auto: as the dataset says"
    )
    record: Literal["train", "plain"] = Field(
        "train", description="signals from the training forward, or from a plain pass after each epoch (at that cost)"
    )
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of the training examples held out; the epoch that is best on them is kept"
    )
    patience: int = Field(
        0, ge=0, description="stop after this many epochs that were not the best on the held-out examples; 0 never does"
    )
    seeds: Count = Field(1, description="train this many and average their scores (proxies only)")

    @field_validator("features", mode="before")
    @classmethod
    def _features_by_their_source(cls, features: Any) -> Any:
        return {"source": str(features)} if isinstance(features, str | Path) else features

    @field_validator("phases")
    @classmethod
    def _phases_have_length(cls, phases: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if not phases or any(length <= 0 or factor <= 0 for length, factor in phases):
            raise ValueError("each phase needs a length and a factor above 0, such as [[90, 1.0], [45, 0.1]]")
        return phases

    @field_validator("patience")
    @classmethod
    def _patience_has_something_to_look_at(cls, patience: int, info: ValidationInfo) -> int:
        if patience and not info.data.get("validation", 1):
            raise ValueError("patience looks at held-out examples; set validation too, to 0.1 say")
        return patience


class ComputeConfig(Config):
    """Where and how fast: changes seconds, and results only by rounding."""

    device: str = Field(
        "auto", description="auto takes a GPU of CUDA where there is one, else the CPU; or cpu, cuda, cuda:1, mps"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto takes bf16 on a GPU that has it, and measures which is faster on a CPU"
    )
    channels_last: bool = Field(True, description="memory layout of images")
    threads: int = Field(0, ge=0, description="CPU threads; 0 takes what the machine offers")
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile the training step; auto: on a CPU with matrix units (AMX) and a compiler, for trainings that are "
        "long enough",
    )
    processes: Count = Field(
        1,
        description="processes that score, each with `threads` threads (no more of them than cores), or a GPU of its own where "
        "device is cuda; they take seconds to start, and are left out where scoring would take less than about 20",
    )
    scoring_batch: Count = Field(512, description="examples scored at a time; fewer take less memory")


class DataConfig(Config):
    """Which examples."""

    dataset: str = Field(
        description="a name from `svp list datasets`, a folder, a .npz file, or package.module:function"
    )
    data: Path | None = Field(None, description="folder that holds (or will hold) the files of a named dataset")
    image_size: Count | None = Field(None, description="side in pixels that images are brought to")
    short_side: Count | None = Field(
        None,
        description="pixels the short side is scaled to before image_size is cut out of the middle; default: image_size",
    )
    image_column: str | None = Field(
        None, description="column of image files in Parquet; default: image, img, jpg, png or bytes"
    )
    text_column: tuple[str, ...] = Field(
        (), description="columns of texts, joined by a space; default: text, sentence, content, review or the like"
    )
    label_column: str | None = Field(
        None, description="column of classes in a table; default: label, labels, class, target or the like"
    )
    encoding: str = Field("utf-8", description="of texts in .csv, .tsv and .jsonl")
    quotes: bool | None = Field(
        None,
        description="whether quotes in .csv and .tsv enclose fields, or are letters; default: they do, and between tabs a row "
        "with rows within its quotes is refused",
    )
    cache: Path | None = Field(
        None, description="folder for decoded images and texts; default: $XDG_CACHE_HOME/svp, or ~/.cache/svp"
    )
    on_error: Literal["refuse", "skip"] = Field("refuse", description="what an unreadable example leads to")
    test_share: float = Field(0.2, ge=0, lt=1, description="held out where the dataset has no test part of its own")


class RunConfig(DataConfig):
    """What the two workflows have in common.

    workflow  the name of the workflow that these settings are of
    may_vary  the settings that say which arms are wanted, and may differ from call to call on one run folder
    """

    workflow: ClassVar[str] = "run"
    may_vary: ClassVar[tuple[str, ...]] = ()

    proxy: TrainConfig = TrainConfig(model="preact8", epochs=15)
    target: TrainConfig = TrainConfig(model="preact20", epochs=40)
    method: str = Field("margin", description="a name from `svp list methods`")
    options: dict[str, Any] = Field({}, description="options of the method")
    seed: int = Field(0, ge=0, lt=2**64, description="the first run seed; everything random is spawned from it")
    seeds: Count = Field(1, description="repeat everything with this many run seeds")
    margin: float = Field(1.0, gt=0, description="points of accuracy: a smaller loss than this counts as no worse")
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _run_seeds_are_seeds(self) -> Self:
        if self.seed + self.seeds > 2**64:
            raise ValueError(
                f"seed {self.seed} and the {self.seeds - 1} after it (seeds) go beyond 2^64 - 1; give a lower one"
            )
        return self

    @property
    def run_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)


class CoresetConfig(RunConfig):
    """Choose what to keep of labelled data."""

    workflow: ClassVar[str] = "coreset"
    may_vary: ClassVar[tuple[str, ...]] = ("control", "equal", "seeds")
    choosing: ClassVar[tuple[str, ...]] = ("method", "options", "proxy")  # mean nothing beside an earlier selection

    method: str = Field("forgetting", description="a name from `svp list methods`")
    budget: int | float | str | None = Field(
        None,
        description="how many to keep: a count or a share of the data (0.5, 50%); default: half, or all of an earlier selection",
    )
    control: tuple[Literal["random", "full", "short"], ...] = Field(
        (),
        description="train the target on these as well: a random part, everything, everything in as few steps as the part takes",
    )
    equal: tuple[Literal["epochs", "steps"], ...] = Field(
        ("epochs",),
        description="train the target on a subset for as many epochs as on all data, as many steps, or both",
    )
    selection: Path | None = Field(None, description="an earlier selection file, in place of a proxy and a method")

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_is_a_count_or_share(cls, budget: Any) -> Any:
        return budget if budget is None else _count_or_share(budget)

    @model_validator(mode="after")
    def _arms_are_named_once(self) -> Self:
        if not self.equal:
            raise ValueError("equal needs epochs, steps, or both")
        _named_once(equal=self.equal, control=self.control)
        return self


class LabellingConfig(RunConfig):
    """What begins with few labels. Of a few hundred an epoch is a handful of steps: batches are small, and there are more epochs
    until the steps are enough."""

    proxy: TrainConfig = TrainConfig(model="preact8", epochs=15, batch_size=32, min_steps=400)
    target: TrainConfig = TrainConfig(model="preact20", epochs=40, batch_size=32, min_steps=1200)


class ActiveConfig(LabellingConfig):
    """Choose what to label, round by round."""

    workflow: ClassVar[str] = "active"
    may_vary: ClassVar[tuple[str, ...]] = ("control", "seeds", "evaluate")

    labelled: tuple[int | float | str, ...] = Field(
        description="totals after each round, two or more, counts or shares of the pool; the first is random"
    )
    evaluate: tuple[int | float | str, ...] = Field(
        (), description="totals at which the target is trained; default: the last"
    )
    control: tuple[Literal["random", "target"], ...] = Field(
        (), description="other selectors beside the proxy: chance, and the target itself"
    )

    @field_validator("labelled", "evaluate", mode="before")
    @classmethod
    def _totals_are_counts_or_shares(cls, totals: Any) -> Any:
        totals = totals.tolist() if hasattr(totals, "tolist") else totals  # an array
        return [_count_or_share(total) for total in totals] if isinstance(totals, list | tuple) else totals

    @field_validator("labelled")
    @classmethod
    def _totals_beside_the_start(cls, labelled: tuple[int | float | str, ...]) -> tuple[int | float | str, ...]:
        if len(labelled) < 2:
            raise ValueError(
                "give two totals or more, such as [1000, 5000]; the first is drawn at random, the others are asked for"
            )
        return labelled

    @model_validator(mode="after")
    def _arms_are_named_once(self) -> Self:
        _named_once(control=self.control)
        return self


class SessionConfig(LabellingConfig):
    """A labelling effort with people."""

    workflow: ClassVar[str] = "session"

    on_error: Literal["refuse", "skip"] = Field(
        "skip", description="what an unreadable example leads to; what is left out is reported"
    )
    classes: tuple[str, ...] = Field((), description="what can be answered, such as cat dog; more can be added later")
    start: Literal["auto", "random", "typiclust", "k_center"] = Field(
        "auto",
        description="how the first examples are chosen, before two classes have labels; auto: typiclust where the proxy sees "
        "frozen features, else random",
    )
    diverse: bool = Field(
        True, description="skip near-duplicates within a question, where the method takes the highest scores"
    )
    rule: Literal["majority", "latest"] = Field(
        "majority",
        description="the label of several people's answers: of the most (ties are asked again), or the latest",
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_by_commas(cls, classes: Any) -> Any:
        """cat,dog is what most people write."""
        words = [classes] if isinstance(classes, str) else classes
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            return classes
        return [part.strip() for word in words for part in word.split(",") if part.strip()]

    @field_validator("seeds")
    @classmethod
    def _one_seed(cls, seeds: int) -> int:
        if seeds != 1:
            raise ValueError("people label once; give 1")
        return seeds


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file, or a DataError that says what is wrong with it."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read the configuration {path}: {error.strerror}; put it back, or name another file"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read the configuration {path}: {error}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}; mend that line") from None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, table by table."""
    merged = dict(base)
    for name, value in over.items():
        mine = merged.get(name)
        merged[name] = merge(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return merged


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two flat settings, in words: ["proxy.epochs was 15, is now 20"]."""
    names = sorted(before.keys() | after.keys())
    return [
        f"{name} was {before.get(name, 'not set')}, is now {after.get(name, 'not set')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        flat += _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return flat


def _named_once(**arms: tuple[str, ...]) -> None:
    for name, values in arms.items():
        if len(set(values)) < len(values):
            raise ValueError(f"{name} names an arm twice: {', '.join(values)}; name each once")


def _count_or_share(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
        raise ValueError("give a count or a share, such as 25000, 0.5 or 50%")
    if isinstance(value, numbers.Integral):
        return int(value)  # numpy's numbers, too: as floats they would be shares
    return value if isinstance(value, str) else float(value)


def _toml(values: dict[str, Any], table: str = "") -> str:
    lines = [
        f"{_toml_key(name)} = {_toml_value(value)}" for name, value in values.items() if not isinstance(value, dict)
    ]
    text = "\n".join(lines) + "\n" if lines else ""
    for name, value in values.items():
        if isinstance(value, dict):
            path = f"{table}.{_toml_key(name)}" if table else _toml_key(name)
            text += f"\n[{path}]\n{_toml(value, path)}"
    return text


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml_value(name)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(name)} = {_toml_value(item)}" for name, item in value.items()) + "}"
    # JSON spells strings, numbers and booleans as TOML does, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# What a setting may be, by pydantic's name of the error, where the error itself does not say it in words of ours.
ALLOWED = {
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "path_type"), "text"),
    "tuple_type": 'an array: [1, 0.5] of numbers, ["random"] of words',
    **dict.fromkeys(("missing", "too_long"), "arrays of the right length"),
    "dict_type": "a table of names and values",
    "model_type": "its settings by name, such as {first}",
}


def _one_line(error: ValidationError, cls: type[Config], *, flags: bool = False) -> SettingError | UnknownName:
    """The first of pydantic's errors in words of ours: the setting, what is allowed, what came."""
    first = error.errors()[0]
    kind, came = first["type"], first["input"]
    path = [part for part in first["loc"] if part not in ("int", "float", "str")]
    parts = list(takewhile(lambda part: isinstance(part, str), path))  # the place within an array is not named
    name = ".".join(map(str, parts))
    if kind == "extra_forbidden":
        return UnknownName("setting", name, _known_settings(cls), hint="see --help")
    if kind == "missing" and parts == path:
        return SettingError(f"The setting {name!r} must be given ({_describe(cls, name)})")
    if kind == "value_error":
        allowed = first["msg"].removeprefix("Value error, ")
    elif kind in ALLOWED:
        part = next((known for known in _known_settings(cls) if known.startswith(f"{name}.")), "")
        allowed = "give " + ALLOWED[kind].format(**first.get("ctx", {}), first=_flag(part) if flags else part)
    else:
        allowed = first["msg"]
    if not name:
        return SettingError(allowed)
    if parts != path and isinstance(came, str) and "," in came:
        each = [word.strip() for word in came.split(",")]
        repeated = " ".join(f"{_flag(name)} {word}" for word in each) if flags else f"{name} = {json.dumps(each)}"
        allowed += f", several of them as in {repeated}"
    return SettingError(f"{_flag(name) if flags else f'The setting {name!r}'}: {allowed}; got {came!r}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _known_settings(cls: type[Config], prefix: str = "") -> list[str]:
    known: list[str] = []
    for name, info in cls.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            known += _known_settings(kind, f"{prefix}{name}.")
        else:
            known.append(prefix + name)
    return known


def _describe(cls: type[Config], name: str) -> str:
    info = cls.model_fields.get(name)
    return (info.description if info else None) or "see --help"
