"""Something that can be fitted: the table of models, and how a name becomes a learner. No torch until a net is asked for."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from svp.config import ComputeConfig, LabellingConfig, RunConfig, TrainConfig
from svp.data.base import Dataset
from svp.errors import SettingError, SvpError, UnknownName, one_line, require
from svp.learners.base import EpochRecord, Learner, Outputs, Progress
from svp.names import resolve

if TYPE_CHECKING:
    from svp.learners.compute import Compute
    from svp.learners.net import NetLearner


EVERY_SETTING = frozenset(TrainConfig.model_fields)
OF_A_CLASSIFIER = frozenset({"model", "options", "features", "seeds"})
# Conneau et al. 2017 as Coleman et al. 2020 trained it: the rate is halved every three epochs.
OF_VDCNN = {
    "epochs": 15,
    "lr": 0.01,
    "schedule": "piecewise",
    "phases": ((3, 1), (3, 0.5), (3, 0.25), (3, 0.125), (3, 0.0625)),
    "weight_decay": 1e-4,
}
Makes = Literal["net", "classifier", "learner"]


@dataclass(frozen=True)
class Row:
    """One family of models.

    pattern  regular expression that its names match
    maker    "package.module:function" of what it makes: a net of (name, num_classes, example, *, width, **options), a classifier
             of (**options), a learner of (config, dataset, seed)
    names    some names, for lists and for guessing what was meant
    uses     the settings of TrainConfig that make a difference to it
    defaults those of them that are its own where nobody sets them, as TrainConfig keeps them
    texts    whether it is for texts, not for numbers
    """

    pattern: str
    maker: str
    names: tuple[str, ...]
    summary: str
    makes: Makes = "net"
    code: tuple[str, ...] = ()  # modules that its results depend on, beside that of the maker
    uses: frozenset[str] = EVERY_SETTING
    defaults: Mapping[str, Any] = field(default_factory=dict)
    texts: bool = False

    @property
    def is_net(self) -> bool:
        return self.makes == "net"


LEARNERS: dict[str, Row] = {
    "preact": Row(
        r"preact\d+(-basic|-bottleneck)?",
        "svp.learners.resnet:preact",
        ("preact8", "preact14", "preact20", "preact56", "preact110", "preact164", "preact1001"),
        "pre-activation ResNet of any depth 6n + 2 (basic blocks) or 9n + 2 (-bottleneck); any width",
    ),
    "patchnet": Row(
        "patchnet",
        "svp.learners.patchnet:patchnet",
        ("patchnet",),
        "small net for matrix units, a cheap proxy for images of 32 to 64 pixels; any width; options patch, depth",
        code=("svp.learners.resnet",),
    ),
    "wide": Row(
        r"wrn-\d+-\d+",
        "svp.learners.resnet:wide",
        ("wrn-16-4", "wrn-16-8", "wrn-28-10", "wrn-40-4"),
        "wide ResNet wrn-DEPTH-FACTOR of any depth 6n + 4; any width",
    ),
    "imagenet": Row(
        r"resnet(18|34|50|101|152)(-small)?",
        "svp.learners.resnet:imagenet",
        ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet18-small"),
        "ResNet for ImageNet, weight for weight torchvision's (-small: a stem for small images); any width",
    ),
    "cifar": Row(
        r"resnet\d+",
        "svp.learners.resnet:cifar",
        ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"),
        "ResNet for CIFAR of any other depth 6n + 2; any width",
    ),
    "resnext": Row(
        r"resnext\d+-\d+-\d+",
        "svp.learners.resnet:resnext",
        ("resnext29-8-64", "resnext29-16-64"),
        "ResNeXt for CIFAR resnextDEPTH-GROUPS-CHANNELS (a group) of any depth 9n + 2; any width",
    ),
    "stochastic": Row(
        r"stochastic\d+",
        "svp.learners.resnet:stochastic",
        ("stochastic56", "stochastic110"),
        "ResNet for CIFAR of stochastic depth, any 6n + 2; any width",
    ),
    "timm": Row(
        r"timm:.+",
        "svp.learners.libraries:from_timm",
        ("timm:NAME",),
        "a net of timm, where that is installed; its arguments are options",
    ),
    "torchvision": Row(
        r"torchvision:.+",
        "svp.learners.libraries:from_torchvision",
        ("torchvision:NAME",),
        "a net of torchvision, where that is installed; its arguments are options",
    ),
    "linear": Row(
        "linear",
        "svp.learners.linear:linear",
        ("linear",),
        "one linear layer on the flattened inputs, trained as a net is: gives signals too; meant for frozen features",
        uses=EVERY_SETTING - {"width", "options"},
    ),
    "logistic": Row(
        "logistic",
        "svp.learners.classifier:logistic",
        ("logistic",),
        "logistic regression on the flattened inputs",
        makes="classifier",
        uses=OF_A_CLASSIFIER,
    ),
    "knn": Row(
        "knn",
        "svp.learners.classifier:knn",
        ("knn",),
        "votes of the nearest examples, by the flattened inputs; options n_neighbors, weights, metric",
        makes="classifier",
        uses=OF_A_CLASSIFIER,
    ),
    "vdcnn": Row(
        r"vdcnn(9|17|29|49)(-(conv|maxpool|kmaxpool))?(-lite)?(-shortcut)?",
        "svp.learners.vdcnn:vdcnn",
        ("vdcnn9", "vdcnn17", "vdcnn29", "vdcnn49", "vdcnn29-conv", "vdcnn9-lite"),
        "texts: very deep convolutional net on characters, -conv, -maxpool or -kmaxpool, -lite, -shortcut; any width; option cut",
        code=("svp.learners.resnet",),
        defaults=OF_VDCNN,
        texts=True,
    ),
    "fasttext": Row(
        "fasttext",
        "svp.learners.fasttext:FastTextLearner",
        ("fasttext",),
        "texts: average of word and bigram vectors, the cheapest proxy; options dim, ngrams, buckets, min_count",
        makes="learner",
        uses=OF_A_CLASSIFIER | {"epochs", "lr"},
        defaults={"epochs": 5, "lr": 0.5},
        texts=True,
    ),
    "hashed-linear": Row(
        "hashed-linear",
        "svp.learners.classifier:hashed_linear",
        ("hashed-linear",),
        "texts: logistic regression on hashed words and n-grams; options ngrams, buckets, C, max_iter",
        makes="classifier",
        uses=OF_A_CLASSIFIER,
        texts=True,
    ),
}


@dataclass(frozen=True)
class Found:
    """What a model's name leads to: how to make it and what that makes, the modules of its own code, the settings it uses.

    defaults  its own defaults of some of these
    texts     whether it is for texts or for numbers; None where nobody has said so
    """

    make: Callable[..., Any]
    makes: Makes
    code: tuple[str, ...]
    uses: frozenset[str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    texts: bool | None = None

    @property
    def is_net(self) -> bool:
        return self.makes == "net"


def find(config: TrainConfig) -> Found:
    """Look a model up; raises UnknownName or SettingError. Makes nothing."""
    row = next((row for row in LEARNERS.values() if re.fullmatch(row.pattern, config.model)), None)
    if row is not None:
        if row.is_net:
            code = (row.maker.split(":")[0], *row.code)
            return Found(partial(_named_net, row.maker, config), row.makes, code, row.uses, row.defaults, row.texts)
        return Found(resolve(row.maker), row.makes, (), row.uses, row.defaults, row.texts)
    if ":" not in config.model:
        raise UnknownName("model", config.model, known_models(), hint="svp list models, or package.module:function")
    made = resolve(config.model)
    modules = {config.model.partition(":")[0], getattr(made, "__module__", None) or ""} - {""}
    if "__main__" in modules:
        raise SettingError(
            f"{config.model} stands in the running script, where a later run cannot find it; put it into a module of its own"
        )
    code = tuple(sorted(module for module in modules if module.partition(".")[0] not in ("sklearn", "torch")))
    # A classifier is told from a net by what it can do; nothing is called to find out.
    is_class = inspect.isclass(made) and hasattr(made, "fit") and hasattr(made, "predict")
    # A net is made for (num_classes, example); a function that can do without arguments makes a classifier, say a pipeline.
    if is_class or (inspect.isfunction(made) and _needs_nothing(made)):
        return Found(made, "classifier", code, OF_A_CLASSIFIER)
    return Found(partial(_own_net, made, config), "net", code, EVERY_SETTING - {"width"})


def settle(config: TrainConfig) -> TrainConfig:
    """The model as it will be run: what nobody set (`model_fields_set`) as its row says, and what it does not use at its default,
    for what makes no difference counts as none.

    Raises SettingError for a setting that it does not use with a value that somebody must have given: neither its default nor
    that of the proxy or target of a run, which a setting keeps when only the model is named.
    """
    found = find(config)
    usual = [TrainConfig()]
    usual += [of.model_fields[role].default for of in (RunConfig, LabellingConfig) for role in ("proxy", "target")]
    unused = {name: getattr(usual[0], name) for name in EVERY_SETTING - found.uses}
    for name, default in sorted(unused.items()):
        if (value := getattr(config, name)) not in [getattr(known, name) for known in usual]:
            raise SettingError(
                f"{config.model} {_uses_in_words(found.uses)}; {name} = {value} means nothing to it, leave it at {default}"
            )
    own = {name: value for name, value in found.defaults.items() if name not in config.model_fields_set}
    return config.model_copy(update={**own, **unused})


def _uses_in_words(uses: frozenset[str]) -> str:
    """The shorter way to say it."""
    unused = sorted(EVERY_SETTING - uses)
    return f"does not use {', '.join(unused)}" if len(unused) < len(uses) else f"uses {', '.join(sorted(uses))} alone"


def make_learner(config: TrainConfig, dataset: Dataset, *, seed: int, compute: "Compute | None" = None) -> Learner:
    """The model that `config` names, for the inputs and classes of `dataset`, its initial weights drawn from `seed`.

    compute  where nets live (svp.learners.compute.decide); None decides now
    Raises UnknownName, SettingError (a model that does not fit these inputs) or MissingExtra (torch is not installed).
    """
    config = settle(config)
    found = find(config)
    _check_kind(config.model, found, dataset)
    if found.makes == "learner":
        learner: Learner = found.make(config, dataset, seed)
        return learner
    if found.makes == "classifier":
        from svp.learners.classifier import ClassifierLearner

        return ClassifierLearner(config, dataset, seed, found.make, found.code)
    return _net(found, config, dataset, seed, compute)


def _check_kind(model: str, found: Found, dataset: Dataset) -> None:
    """SettingError for a model of texts and a dataset of numbers, or the other way round."""
    texts = dataset.is_text
    if found.texts not in (None, texts):
        kinds = ["images or rows of numbers", "texts"]
        choice = ", ".join(name for row in LEARNERS.values() if row.texts == texts for name in row.names[:1])
        raise SettingError(
            f"{model} takes {kinds[not texts]}, and {dataset.name} holds {kinds[texts]}; choose of {choice} "
            "(both --proxy.model and --target.model)"
        )


def _net(found: Found, config: TrainConfig, dataset: Dataset, seed: int, compute: "Compute | None") -> "NetLearner":
    require("torch", "torch")
    require("safetensors", "torch")
    from svp.learners.compute import decide
    from svp.learners.net import NetLearner

    return NetLearner(config, dataset, seed, compute or decide(ComputeConfig()), found.make, found.code)


def trial(config: TrainConfig, dataset: Dataset) -> Learner:
    """The model as it would be, made on the CPU to be looked at, not to be used.

    Raises what `make_learner` and, of a net, the first step of training would, before anything is begun.
    """
    config = settle(config)
    found = find(config)
    if not found.is_net:
        return make_learner(config, dataset, seed=0)
    _check_kind(config.model, found, dataset)
    require("torch", "torch")
    from svp.learners.compute import Compute

    learner = _net(found, config, dataset, 0, Compute("cpu", "fp32", channels_last=False, threads=1))
    learner.rehearse()
    return learner


def check_device(compute: ComputeConfig, models: Sequence[TrainConfig]) -> None:
    """SettingError unless one of these models can be put there: nets anywhere that torch knows, classifiers on the CPU; and
    unless there is room for so many processes.
    """
    if any(find(config).is_net for config in models):
        require("torch", "torch")
        from svp.learners.compute import require_device, require_room

        if compute.device != "auto":
            require_device(
                compute.device, "use auto or cpu for what is new; what was begun there goes on where it can be used"
            )
        require_room(compute)
    elif compute.device not in ("auto", "cpu"):
        names = " and ".join(dict.fromkeys(config.model for config in models))
        raise SettingError(
            f"compute.device {compute.device!r} is for nets; {names} can use the CPU alone: leave it at auto"
        )


def known_models() -> list[str]:
    """Names to show: the tables accept more (any depth)."""
    return [name for row in LEARNERS.values() for name in row.names]


def _named_net(maker: str, config: TrainConfig, num_classes: int, example: Any) -> Any:
    make = resolve(maker)
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "width"]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    if not takes_any and (strange := [name for name in config.options if name not in known]):
        takes = f"the options {', '.join(known)}, not {strange[0]!r}" if known else f"no options ({', '.join(strange)})"
        raise SettingError(f"{config.model} takes {takes}; its other settings are its name and width")
    return make(config.model, num_classes, example, width=config.width, **config.options)


def _needs_nothing(function: Callable[..., Any]) -> bool:
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return all(p.default is not inspect.Parameter.empty or p.kind in optional for p in parameters)


def _own_net(made: Callable[..., Any], config: TrainConfig, num_classes: int, example: Any) -> Any:
    from torch import nn

    try:
        net = made(num_classes, example, **config.options)
    except SvpError:
        raise
    except Exception as error:  # whatever a function of somebody's own may raise
        raise SettingError(
            f"{config.model} cannot make a net of {num_classes} classes for an example of shape {tuple(example.shape)} "
            f"with {config.options or 'no options'}: {one_line(error)}"
        ) from error
    if not isinstance(net, nn.Module):
        raise SettingError(f"{config.model} returned {type(net).__name__}; it must return a torch.nn.Module")
    if any(nn.parameter.is_lazy(part) for part in (*net.parameters(), *net.buffers())):
        raise SettingError(
            f"{config.model} has layers without a size (LazyLinear or the like); give them one, or let the net see "
            "example[None] once before it is returned"
        )
    return net


__all__ = [
    "LEARNERS",
    "EpochRecord",
    "Learner",
    "Outputs",
    "Progress",
    "check_device",
    "find",
    "known_models",
    "make_learner",
    "settle",
    "trial",
]
