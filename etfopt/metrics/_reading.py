"""What is kept of one call of a layer: its output as features, or the input of a classifier with the classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from etfopt.errors import InputError, choices
from etfopt.metrics._outputs import CHANNELS, POOLS, Pool, as_features, as_plain, axis_of, first_tensor


@dataclass
class Seen:
    """What was kept of one call of a layer: features, and the classifier that multiplied them, if there is one."""

    features: Tensor
    classifier: dict[str, Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How calls become features; the options are those of `LayerMeasures`."""

    network: nn.Module
    pool: Pool
    channels: str
    output: Callable[[Any], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.pool):
            require_known("pool", self.pool, POOLS)
        require_known("channels", self.channels, CHANNELS)

    def of_output(self, module: nn.Module, labels: tuple[int, ...], _input: Any, output: Any) -> Seen:
        """Keep what a layer returned."""
        tensor = as_plain(self.output(output))
        axis = axis_of(module, self.network, tensor, labels, self.channels)
        return Seen(as_features(tensor, labels, axis, self.pool))

    def of_input(self, module: Any, labels: tuple[int, ...], given: Any, _output: Any) -> Seen:
        """Keep what a classifier multiplied, with its weight and bias after the call."""
        features = as_plain(first_tensor(given))
        if not isinstance(module, nn.Linear):  # a head of etfopt, which normalises
            features = module.normalize(features.detach())
        weight, bias = (None if X is None else X.detach().clone() for X in (module.weight, module.bias))
        return Seen(as_features(features, labels, -1, self.pool), {"weight": weight, "bias": bias})


def require_known(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise `InputError` if the value of an option is not among those known."""
    if value not in known:
        raise InputError(f"{name} = {value!r} is not known", name, value, choices(value, known))
