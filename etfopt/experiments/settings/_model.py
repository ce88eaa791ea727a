"""The network of a run: backbone, head and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etfopt._options import METHODS, as_averaging, as_temperature
from etfopt.errors import InputError
from etfopt.experiments.networks.backbones import BACKBONES
from etfopt.experiments.settings._fields import Section, choice, flag, integer, number, optional, setting

__all__ = ["HEADS", "BackboneConfig", "HeadConfig", "LossConfig"]

HEADS = ("learned", "fixed", "nearest")


def _averaging(value: Any, name: str) -> str | float:  # noqa: ARG001 - a check's signature; ClassMeans names it alike
    return as_averaging(value)


def _temperature(value: Any, name: str) -> str | float:  # noqa: ARG001 - a check's signature; the heads name it alike
    temperature = as_temperature(value, 10)
    return value if isinstance(value, str) else temperature


@dataclass(frozen=True)
class BackboneConfig(Section):
    """The network below the head.

    Attributes
    ----------
    name : str
        A name of `etfopt.experiments.networks.backbones.BACKBONES`; "custom" stands for a module handed in from Python.
    width : int, optional
        Hidden units of the perceptron, or channels of the first stage of a convolutional network, whose later stages
        grow with it: 32 instead of 64 is a width factor of 1/2. None is the network's own.
    dim : int, optional
        d, the dimension of the features. Where it is not the network's own, a linear layer is put on top.
    stem : "cifar" or "imagenet"
        A 3 x 3 convolution, or a 7 x 7 one with stride 2 and a pooling. The paper's release uses the latter, also for
        32 x 32 images. Of the residual and VGG networks.
    affine : bool
        Whether batch normalisation has a scale and a shift; the paper's networks have none.

    Raises
    ------
    InputError
        If a value is refused.
    """

    name: str = setting("mlp", choice(*BACKBONES, "custom"))
    width: int | None = setting(None, optional(integer(1)))
    dim: int | None = setting(None, optional(integer(1)))
    stem: str = setting("cifar", choice("cifar", "imagenet"))
    affine: bool = setting(False, flag)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "custom" and self.dim is None:
            raise InputError("backbone.name = 'custom' needs backbone.dim, the dimension of the module's features")

    @property
    def feature_dim(self) -> int:
        """The dimension d of the features."""
        return BACKBONES[self.name].feature_dim(self.width) if self.dim is None else self.dim


@dataclass(frozen=True)
class HeadConfig(Section):
    """The classifier; see `etfopt.nn`.

    Attributes
    ----------
    name : "learned", "fixed" or "nearest"
    temperature : float or "auto"
        Norm tau of the features, for every head. In a `TrainConfig` the default is 1 with the loss "dot-regression".
    rotation : "canonical" or "random"
        Of the fixed head; a random one is drawn from the run's seed.
    delta, averaging, implicit_gradient, freeze_after, solve_every, method
        Of the nearest-ETF head, see `etfopt.nn.NearestETFHead`; so are the next.
    shrinkage, evaluation_shrinkage, classify_first
        For many classes of few samples.

    Raises
    ------
    InputError
        If a value is refused.
    """

    name: str = setting("nearest", choice(*HEADS))
    temperature: float | str = setting(5.0, _temperature)
    rotation: str = setting("canonical", choice("canonical", "random"))
    delta: float = setting(1e-3, number(0))
    averaging: str | float = setting("paper", _averaging)
    implicit_gradient: bool = setting(True, flag)
    freeze_after: int | None = setting(None, optional(integer(0)))
    solve_every: int = setting(1, integer(1))
    method: str = setting("auto", choice(*METHODS))
    shrinkage: float = setting(1.0, number(most=1.0, above=0.0))
    evaluation_shrinkage: float | None = setting(None, optional(number(most=1.0, above=0.0)))
    classify_first: bool = setting(False, flag)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotation != "canonical" and self.name != "fixed":
            raise InputError(f"head.rotation = {self.rotation!r} is of the fixed head; head.name is {self.name!r}")


@dataclass(frozen=True)
class LossConfig(Section):
    """The loss; see `etfopt.experiments.networks.losses`.

    Attributes
    ----------
    name : "cross-entropy" or "dot-regression"
        The latter is meant for heads whose rows are an ETF, at temperature 1, its default there.
    """

    name: str = setting("cross-entropy", choice("cross-entropy", "dot-regression"))
