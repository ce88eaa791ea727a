"""A network, data and references for the tests of measured layers."""

import pytest
import torch
from torch import Tensor, nn

from etfopt.metrics import NeuralCollapse

C = 3


def mlp(in_place: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 8), nn.ReLU(inplace=in_place), nn.Dropout(0.5), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, C)]
    return nn.Sequential(*layers)


def data(n: int = 40) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 5, generator=g), torch.arange(n) % C


X, Y = data()


def alone(features: Tensor, labels: Tensor, **classifier: Tensor) -> dict[str, float]:
    """The measures of one layer, by a metric of its own."""
    metric = NeuralCollapse(num_classes=C, dim=features.shape[-1])
    metric.update(features.detach(), labels, **classifier)
    return floats(metric.compute())


def floats(values: dict[str, Tensor]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}


def same(values: dict[str, Tensor], expected: dict[str, float], tolerance: float = 1e-6) -> None:
    assert floats(values) == pytest.approx(expected, rel=tolerance, abs=1e-9, nan_ok=True)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class Returns(nn.Module):
    """A layer whose output is what a function makes of its input."""

    def __init__(self, make: object) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> object:
        return self.make(x)
