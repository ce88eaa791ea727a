"""The topics of a configuration: data, backbone, head, loss, optimiser, schedule, training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etfopt.errors import InputError
from etfopt.experiments.backbones import BACKBONES
from etfopt.experiments.config._settings import Section, choice, flag, integer, number, optional, setting, text
from etfopt.experiments.data.names import known_data
from etfopt.nn import ClassMeans
from etfopt.nn.temperature import CONFIDENCE, as_temperature

__all__ = [
    "HEADS",
    "BackboneConfig",
    "DataConfig",
    "HeadConfig",
    "LossConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainingConfig",
]

HEADS = ("learned", "fixed", "nearest")

LARGEST_RATE = 1e38
"""About the largest number of float32."""


def _averaging(value: Any, name: str) -> str | float:  # noqa: ARG001 - a check's signature; ClassMeans names it alike
    return ClassMeans(2, 1, value).averaging


def _temperature(value: Any, name: str) -> str | float:  # noqa: ARG001 - a check's signature; the heads name it alike
    temperature = as_temperature(value, 10, CONFIDENCE)
    return value if isinstance(value, str) else temperature


def _milestones(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        raise InputError(f"{name} must be a list of epochs; got {value!r}")
    epochs = tuple(number(above=0)(item, name) for item in value)
    if list(epochs) != sorted(set(epochs)):
        raise InputError(f"{name} must increase; got {list(epochs)}")
    return epochs


@dataclass(frozen=True)
class DataConfig(Section):
    """Which data, and what is done to the training split.

    Attributes
    ----------
    name : str
        A name of `etfopt.experiments.data.names`, or ``imagefolder:PATH``.
    batches : "shuffled" or "stratified"
        Order of the training samples; "stratified" deals every class out evenly over the batches of an epoch.
    augmentation : "none", "flip-crop" or "affine-crop"
        See `etfopt.experiments.data.augment`.
    subset : int, optional
        Training images kept of each class.
    imbalance : "none", "exp" or "step"
        Class c of C keeps the share ``factor**(c/(C-1))`` of its images, or the last half of the classes keeps
        ``factor``.
    imbalance_factor : float
        Share that the rarest class keeps, in (0, 1].
    label_noise : float
        Share of the training labels that are replaced by another class, drawn uniformly.
    seed : int
        Seeds the split of a single folder, the subset, the imbalance and the label noise. It is not the run's seed:
        runs that differ in their seed alone see the same data.
    size : int, optional
        Height and width that image files are scaled and cropped to; None requires them to be square and alike already.
    test_share : float
        Share of every class held out where a folder has no split of its own.
    memory_gib : float
        Images that need more memory than this are refused.
    root : str
        Folder of the data sets that torchvision reads.
    download : bool
        Whether torchvision may download what is missing there.
    classes, samples : int
        Of the unconstrained-features model: C, and samples of each class.
    """

    name: str = setting("digits", known_data)
    batches: str = setting("shuffled", choice("shuffled", "stratified"))
    augmentation: str = setting("none", choice("none", "flip-crop", "affine-crop"))
    subset: int | None = setting(None, optional(integer(1)))
    imbalance: str = setting("none", choice("none", "exp", "step"))
    imbalance_factor: float = setting(1.0, number(most=1, above=0))
    label_noise: float = setting(0.0, number(0, 1))
    seed: int = setting(0, integer(0, 2**63 - 1))
    size: int | None = setting(None, optional(integer(1)))
    test_share: float = setting(0.2, number(most=0.9, above=0))
    memory_gib: float = setting(8.0, number(above=0))
    root: str = setting("data", text)
    download: bool = setting(False, flag)
    classes: int = setting(10, integer(2))
    samples: int = setting(100, integer(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.imbalance == "none") != (self.imbalance_factor == 1):
            raise InputError(
                f"data.imbalance = {self.imbalance!r} and data.imbalance_factor = {self.imbalance_factor:g} do not go "
                "together; give both, as in imbalance = 'exp', imbalance_factor = 0.01, or neither"
            )
        if self.name == "ufm" and self.augmentation != "none":
            raise InputError(f"data.augmentation = {self.augmentation!r}: 'ufm' has no images; use 'none'")


@dataclass(frozen=True)
class BackboneConfig(Section):
    """The network below the head.

    Attributes
    ----------
    name : str
        A name of `etfopt.experiments.backbones.BACKBONES`; "custom" stands for a module handed in from Python.
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
        Norm tau of the features, for every head.
    rotation : "canonical" or "random"
        Of the fixed head; a random one is drawn from the run's seed.
    delta, averaging, implicit_gradient, freeze_after, solve_every
        Of the nearest-ETF head, see `etfopt.nn.NearestETFHead`.
    """

    name: str = setting("nearest", choice(*HEADS))
    temperature: float | str = setting(5.0, _temperature)
    rotation: str = setting("canonical", choice("canonical", "random"))
    delta: float = setting(1e-3, number(0))
    averaging: str | float = setting("paper", _averaging)
    implicit_gradient: bool = setting(True, flag)
    freeze_after: int | None = setting(None, optional(integer(0)))
    solve_every: int = setting(1, integer(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotation != "canonical" and self.name != "fixed":
            raise InputError(f"head.rotation = {self.rotation!r} is of the fixed head; head.name is {self.name!r}")


@dataclass(frozen=True)
class LossConfig(Section):
    """The loss: "cross-entropy" or "dot-regression"; see `etfopt.experiments.losses`."""

    name: str = setting("cross-entropy", choice("cross-entropy", "dot-regression"))


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """How parameters are updated.

    Attributes
    ----------
    name : "sgd", "adam", "adamw" or "agd"
        AGD is automatic gradient descent, see `etfopt.experiments.optimizers.AGD`; it has no learning rate and takes
        `gain` alone from here.
    learning_rate, weight_decay : float
    momentum, nesterov
        Of SGD.
    beta1, beta2 : float
        Of Adam and AdamW.
    decay : "all" or "matrices"
        What the weight decay acts on; "matrices" leaves out biases and the parameters of normalisation layers.
    gain : float
        Factor on the steps of AGD; the paper's release takes 10.
    """

    name: str = setting("sgd", choice("sgd", "adam", "adamw", "agd"))
    learning_rate: float = setting(0.05, number(most=LARGEST_RATE, above=0))
    momentum: float = setting(0.9, number(0, 1))
    nesterov: bool = setting(False, flag)
    beta1: float = setting(0.9, number(0, 0.999999))
    beta2: float = setting(0.999, number(0, 0.999999))
    weight_decay: float = setting(5e-4, number(0, LARGEST_RATE))
    decay: str = setting("all", choice("all", "matrices"))
    gain: float = setting(10.0, number(most=LARGEST_RATE, above=0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise InputError(
                f"optimizer.nesterov needs SGD with momentum; got name = {self.name!r}, momentum = {self.momentum:g}"
            )


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """How the learning rate changes, after `warmup` epochs in which it rises linearly.

    Attributes
    ----------
    name : "constant", "cosine" or "step"
        "cosine" falls to zero as a half cosine by the end of the run.
    warmup : float
        Epochs.
    milestones : tuple of float, decay : float
        Of "step": the epochs, counted from the start of the run, after which the rate is multiplied by `decay`.
    interval : "epoch" or "step"
        When it changes; with "step", after every batch.
    """

    name: str = setting("cosine", choice("constant", "cosine", "step"))
    warmup: float = setting(0.0, number(0))
    milestones: tuple[float, ...] = setting((), _milestones)
    decay: float = setting(0.1, number(most=1, above=0))
    interval: str = setting("epoch", choice("epoch", "step"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.name == "step") != bool(self.milestones):
            raise InputError(
                f"schedule.name = {self.name!r} and schedule.milestones = {list(self.milestones)} do not go together; "
                "'step' needs milestones, the others take none"
            )
        epochs = [self.warmup, *self.milestones]
        if self.interval == "epoch" and any(not epoch.is_integer() for epoch in epochs):
            raise InputError(f"schedule.interval = 'epoch' needs whole epochs; got {epochs}; 'step' takes fractions")
        if self.milestones and self.milestones[0] <= self.warmup:
            raise InputError(f"schedule.milestones must come after the warm-up of {self.warmup:g} epochs")


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How long and in what batches. On what machine and in what precision is not a setting but an option of `train`.

    Attributes
    ----------
    epochs : int
        Passes over the training split.
    batch_size : int
        Samples of a step, over all processes.
    gradient_clip : float, optional
        Largest norm of the gradient.
    """

    epochs: int = setting(60, integer(1))
    batch_size: int = setting(128, integer(2))  # batch normalisation cannot take one sample
    gradient_clip: float | None = setting(None, optional(number(above=0)))
