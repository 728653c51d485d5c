"""Nets of timm and torchvision by name, where these are installed: their arguments are options, their features ours."""

import importlib
from types import ModuleType
from typing import Any, cast

from torch import Tensor, nn

from svp.errors import MissingExtra, SettingError, one_line


class TimmNet(nn.Module):
    """A net of timm that gives its embeddings: what its classifier is shown."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net.forward_head(self.net.forward_features(x), pre_logits=True))

    def head(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.net.get_classifier()(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class TorchvisionNet(nn.Module):
    """A net of torchvision that gives its embeddings: what its last linear layer, named `last`, is shown."""

    def __init__(self, net: nn.Module, last: str) -> None:
        super().__init__()
        self.net, self._last = net, last

    def features(self, x: Tensor) -> Tensor:
        shown: list[Tensor] = []
        with self.net.get_submodule(self._last).register_forward_pre_hook(lambda _, given: shown.append(given[0])):
            self.net(x)
        return shown[0]

    def head(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.net.get_submodule(self._last)(features))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x))


def from_timm(name: str, num_classes: int, example: Tensor, *, width: float = 1.0, **options: Any) -> nn.Module:
    """`timm:NAME`: timm.create_model(NAME, num_classes=..., **options); `pretrained = true` fetches its weights.

    The channels of the images are given as in_chans. Raises MissingExtra where timm cannot be imported, SettingError for what it
    refuses.
    """
    timm = _library("timm", name, width)
    arguments = {"in_chans": example.shape[0], **options}
    try:
        net = TimmNet(timm.create_model(name.partition(":")[2], num_classes=num_classes, **arguments))
        seen = timm.data.resolve_model_data_config(net.net) if options.get("pretrained") else {}
    except Exception as error:  # whatever another library may raise
        raise _refused(name, options, error) from error
    return _said(net, name, "pretrained", options, seen) if seen else net


def from_torchvision(name: str, num_classes: int, example: Tensor, *, width: float = 1.0, **options: Any) -> nn.Module:
    """`torchvision:NAME`: torchvision.models.get_model(NAME, **options); `weights = "DEFAULT"` fetches its weights.

    A net without a linear layer gives no embeddings. Raises MissingExtra where torchvision cannot be imported, SettingError for
    what it refuses.
    """
    models = _library("torchvision.models", name, width)
    pretrained, seen = options.get("weights") is not None, {}
    try:
        # With weights the net must have their classes at first.
        arguments = options if pretrained else {"num_classes": num_classes, **options}
        net: nn.Module = models.get_model(name.partition(":")[2], **arguments)
        if pretrained:
            weights = models.get_model_weights(name.partition(":")[2])[str(options["weights"]).rpartition(".")[2]]
            seen = vars(weights.transforms())
    except Exception as error:  # whatever another library may raise
        raise _refused(name, options, error) from error
    linear = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    last = "fc" if "fc" in linear else linear[-1] if linear else None
    if last is None:
        if pretrained:
            raise SettingError(
                f"{name} has no linear layer to replace by one of {num_classes} classes; leave out weights"
            )
        return net
    if pretrained:
        parent, _, child = last.rpartition(".")
        n_features = cast(nn.Linear, net.get_submodule(last)).in_features
        setattr(net.get_submodule(parent), child, nn.Linear(n_features, num_classes))
    made = TorchvisionNet(net, last)
    return _said(made, name, "weights", options, seen) if pretrained else made


def _said(net: nn.Module, name: str, option: str, options: dict[str, Any], seen: dict[str, Any]) -> nn.Module:
    """The net, saying that its weights were learned elsewhere, and from images of which mean and deviation."""
    net.initial_weights = f"{name} {option}={options[option]}"  # type: ignore[assignment]
    if seen.keys() >= {"mean", "std"}:
        net.input_statistics = seen["mean"], seen["std"]  # type: ignore[assignment]
    return net


def _library(module: str, name: str, width: float) -> ModuleType:
    if width != 1.0:
        raise SettingError(f"width is for the nets of svp itself; choose {name} in another size, or by its options")
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision beside another torch raises a RuntimeError
        raise MissingExtra(
            f"{name} needs {library}, which cannot be imported here ({one_line(error)}); install {library} for this torch "
            "(pip install timm torchvision, from where torch came), or choose another net (svp list models)"
        ) from error


def _refused(name: str, options: dict[str, Any], error: Exception) -> SettingError:
    return SettingError(f"{name} cannot be made with {options or 'no options'}: {one_line(error)}")
