"""Softmax regression as a net of one layer: the one loop trains it, so it gives signals and embeddings as any other net."""

from torch import Tensor, nn

from svp.errors import SettingError


class Linear(nn.Module):
    """One linear layer; its embeddings are its inputs, normalised."""

    def __init__(self, n_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(n_inputs, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def linear(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`linear`: for examples of any shape, which are flattened."""
    if width != 1.0:
        raise SettingError(f"{name} has no width: it is one layer from the inputs to the classes; leave width at 1")
    return Linear(example.numel(), num_classes)
