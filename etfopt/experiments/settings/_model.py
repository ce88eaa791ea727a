"""The network of a run: backbone, head and loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from etfopt._options import AVERAGINGS, METHODS, STATISTICS, as_averaging, as_temperature
from etfopt.errors import InputError
from etfopt.experiments.settings._options import Frozen, Options
from etfopt.experiments.settings._section import Section, setting
from etfopt.experiments.settings.names import (
    BACKBONES,
    FRAMES,
    HEADS,
    LOSSES,
    BackboneName,
    FrameName,
    HeadName,
    LossName,
    is_own,
    known_dim,
)


def _of_the_head(check: Callable[[Any], float | str]) -> BeforeValidator:
    """Return a head's own check, whose message then names the setting."""

    def run(value: Any) -> float | str:
        try:
            return check(value)
        except InputError as error:
            raise InputError(f"head.{error}") from None

    return BeforeValidator(run)


def _temperature(value: Any) -> float | str:
    temperature = as_temperature(value, 10)
    return "auto" if value == "auto" else temperature


Temperature = Annotated[float | str, _of_the_head(_temperature)]
Averaging = Annotated[float | str, _of_the_head(as_averaging)]


class BackboneConfig(Section):
    """The network below the head."""

    name: BackboneName = setting(
        "mlp",
        f"Network below the head: {BACKBONES.listed}. custom is a module that you pass in Python.",
        option=True,
    )
    width: int | None = setting(
        None,
        "Hidden units of the perceptron, or channels of the first stage of a convolutional network; later "
        "stages grow with it. None is the network's own, 128 or 64.",
        option=True,
        ge=1,
    )
    dim: int | None = setting(
        None,
        "Dimension d of the features. If the network has another, etfopt adds a linear layer.",
        option=True,
        ge=1,
    )
    stem: Literal["cifar", "imagenet"] = setting(
        "cifar",
        "First layers of the residual and VGG networks: a 3 x 3 convolution, or a 7 x 7 one with stride 2 and a "
        "pooling. The paper's release uses the latter, also for 32 x 32 images.",
    )
    affine: bool = setting(
        False, "Whether batch normalisation has a scale and a shift; the paper's networks have none."
    )
    options: Options = setting(Frozen(), "Keyword arguments of your own backbone.", since="0.2")

    @model_validator(mode="after")
    def _go_together(self) -> BackboneConfig:
        if (own := is_own(self.name) or self.name == "custom") and self.dim is None:
            raise InputError(
                f"backbone.name = {self.name!r} needs backbone.dim, the dimension of the module's features"
            )
        if self.options and not own:
            raise InputError(f"backbone.options are for a backbone named by import path; got {self.name!r}")
        return self

    @property
    def feature_dim(self) -> int:
        """The dimension d of the features."""
        return known_dim(self.name, self.width) if self.dim is None else self.dim


class HeadConfig(Section):
    """The classifier; `etfopt.nn` has the heads, and says what each option does."""

    name: HeadName = setting("nearest", f"Head: {HEADS.listed}.", option=True)
    temperature: Temperature = setting(
        "auto", "Norm tau of the features, or auto. The default is 1 with the loss dot-regression.", option=True
    )
    statistics: Literal[STATISTICS] = setting(  # type: ignore[valid-type] # stated once
        "running",
        "How the fixed and the nearest head track feature means: running, or paper for the rules of the paper's "
        "release.",
        option=True,
        since="0.2",
        before="paper",
    )
    memory: float | None = setting(
        None, "Samples of a class after which the running means forget; None is 64.", since="0.2", gt=0
    )
    rotation: Literal["canonical", "random"] = setting(
        "canonical", "Rotation of the fixed head: one for all seeds, or drawn from the run's seed."
    )
    delta: float = setting(1e-3, "Proximal weight of the nearest head.", option=True, ge=0)
    averaging: Averaging = setting(
        "paper", f"Rate of the paper's means: a number above 0, at most 1, or {AVERAGINGS.listed}.", option=True
    )
    implicit_gradient: bool = setting(
        True,
        "Whether the gradient passes through U*(H) of the nearest head; --no-implicit-gradient stops it.",
        option=True,
    )
    freeze_after: int | None = setting(None, "Steps after which the nearest head keeps its classifier.", ge=0)
    solve_every: int = setting(1, "Steps between two solutions of the nearest head.", ge=1)
    method: Literal[METHODS] = setting("auto", "Route to the polar factor, in the nearest head.")  # type: ignore[valid-type] # stated once
    shrinkage: float = setting(
        1.0, "Shrinkage of the nearest head; 1 is none. Try 0.5 for many classes of few samples.", gt=0, le=1
    )
    evaluation_shrinkage: float | None = setting(None, "The same in evaluation; 0.01 is worth a try.", gt=0, le=1)
    classify_first: bool = setting(
        False, "Whether the nearest head classifies a batch before it adds the batch to its means."
    )
    frame: FrameName | None = setting(
        None,
        f"Frame of the fixed and the nearest head: {FRAMES.listed}. None: reduced, or simplex with the paper's means. "
        "seli is the geometry of imbalanced classes, from the training split's numbers of samples.",
        option=True,
        since="0.2",
    )
    class_weights: Literal["counts"] | None = setting(
        None, "Class weights of the nearest head: counts takes the numbers of samples, None is 1 each.", since="0.2"
    )
    growth: Literal["least", "held", "random"] = setting(
        "least",
        "What a head with a frame does when a session brings classes. held: the frame has a vertex for every class of "
        "the run from the start, and old classes keep theirs. least: the frame is made anew, and the old vertices move "
        "as little as they can. random: so, with the new vertices drawn at random, and held for the session.",
        since="0.2",
    )
    growth_weight: float = setting(
        1.0,
        "Of the nearest head with the growth least: class weight of the newest classes, where older ones have 1. 1e-3 "
        "leaves the old vertices nearly where the growth has put them.",
        since="0.2",
        gt=0,
    )
    options: Options = setting(Frozen(), "More keyword arguments of the head.", since="0.2")

    @model_validator(mode="after")
    def _go_together(self) -> HeadConfig:
        if self.averaging != "paper" and self.statistics != "paper":
            raise InputError(
                f"head.averaging = {self.averaging!r} is a rule of head.statistics = 'paper'; set that too, or "
                "head.memory in its place"
            )
        if self.memory is not None and self.statistics == "paper":
            raise InputError(f"head.memory = {self.memory:g} is for head.statistics = 'running'; leave it out")
        if self.frame is not None and self.name == "learned":
            raise InputError(f"head.frame = {self.frame!r} is for heads with a frame; head.name is 'learned'")
        if self.class_weights is not None and self.name in ("fixed", "learned"):
            raise InputError(f"head.class_weights = 'counts' is of the nearest head; head.name is {self.name!r}")
        if self.class_weights is not None and self.statistics == "paper":
            raise InputError("head.class_weights = 'counts' is for head.statistics = 'running'; leave it out")
        if self.growth_weight != 1 and (self.name in ("fixed", "learned") or self.growth != "least"):
            raise InputError(
                f"head.growth_weight = {self.growth_weight:g} is of the nearest head with head.growth = 'least'; got "
                f"{self.name!r} and {self.growth!r}"
            )
        if self.growth_weight != 1 and self.class_weights is not None:
            raise InputError("head.growth_weight and head.class_weights both weigh the classes; set one of them")
        if (self.growth == "random" and self.name == "fixed") or (self.growth != "least" and self.name == "learned"):
            heads = "the nearest head" if self.growth == "random" else "heads with a frame"
            raise InputError(f"head.growth = {self.growth!r} is of {heads}; head.name is {self.name!r}")
        if self.rotation != "canonical" and self.name != "fixed":
            raise InputError(f"head.rotation = {self.rotation!r} is of the fixed head; head.name is {self.name!r}")
        return self

    def rows(self, C: int) -> int:
        """Return how many rows a simplex or SELI has; 0 where there is none, or another frame.

        Parameters
        ----------
        C : int
            Number of classes.

        Returns
        -------
        int
        """
        frame = self.frame or self.options.get("frame") or ("simplex" if self.statistics == "paper" else "reduced")
        if self.name not in ("fixed", "nearest") or frame not in ("simplex", "reduced", "seli"):
            return 0
        return C if frame == "simplex" and not self.options.get("reduced") else C - 1


class LossConfig(Section):
    """The loss; see `etfopt.experiments.networks.losses`."""

    name: LossName = setting(
        "cross-entropy",
        f"Loss: {LOSSES.listed}. dot-regression suits heads whose rows are an ETF; its temperature is 1. "
        "logit-adjustment is for imbalanced classes: cross-entropy of the logits plus "
        "``loss.options.tau`` times the log of the class shares; its default tau = 1 is the balanced softmax.",
        option=True,
    )
    options: Options = setting(Frozen(), "Keyword arguments of the loss.", since="0.2")
    distance_weight: float = setting(
        0.0,
        "lambda: in training, adds lambda times the distance of the batch's class means to their nearest simplex ETF, "
        "see `etfopt.nn.ETFDistance`. The distance is relative to the size of the means, at most 1. Recorded losses "
        "leave it out. 0 is off; 0.1 to 1 are worth a try.",
        since="0.2",
        ge=0,
    )
