r"""What every classifier head does: normalise the features, return logits, and say which classifier it is."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._options import as_ignored, as_temperature, warn_of_low_temperature
from etfopt._scalars import as_integer
from etfopt._torch import require_finite
from etfopt.errors import InputError
from etfopt.nn._signature import whole_signature
from etfopt.nn._state import LoadChecked, level_of_caller
from etfopt.nn._targets import rows, targets
from etfopt.nn.heads._features import scaled
from etfopt.nn.heads._growth import added, kept
from etfopt.nn.heads._labels import TakesLabels

__all__ = ["Head", "HeadOptions", "affine"]


class HeadOptions(TypedDict, total=False):
    """The options that every head takes; `Head` says what they do."""

    temperature: float | str
    ignore_index: int
    device: torch.device | str | None
    dtype: torch.dtype | None


class Head(LoadChecked, TakesLabels, abc.ABC):
    r"""A classifier on features of one norm, :math:`f = \tau h/\|h\|`, with logits :math:`fW' + b`.

    A head of your own derives from this class and defines ``weight`` (C, d) and ``bias`` (C,), both detached. Override
    ``forward(features, labels=None)`` where training does more than to classify. In evaluation it needs no labels and
    changes no state.

    Parameters
    ----------
    dim, num_classes : int
        d, the width of the features, and C, at least 2.
    temperature : float or "auto"
        tau, the norm of the normalised features. "auto" is `etfopt.nn.collapse_temperature` of C: 5.0 for 10 classes,
        as in the paper's scripts, and 10.3 for 1000. For a frame that is no simplex it is
        `etfopt.nn.frame_temperature` of its largest cosine; for a pair of frames, of 1 less the least lead of the right
        logit, class means along F_H and b = 0; for a frame with vectors of different lengths, that of a simplex. Above
        1, a `UserWarning` says if a collapsed network could give a class no probability of 0.9. Dot-regression needs 1.
    ignore_index : int
        Label of samples that count in no statistic, as in `torch.nn.CrossEntropyLoss`. Their logits are returned.
    device, dtype : torch.device and torch.dtype, optional
        Where parameters and buffers live, and their dtype. A running state is at least float32.

    Raises
    ------
    InputError
        If an argument is out of range.

    References
    ----------
    Markou, Ajanthan and Gould (2024). The temperature: ``theory/temperature.py``.
    """

    _shown = ("dim", "num_classes", "temperature")
    bias: Tensor
    capacity: int | None = None  # the number of classes that there is room for without another classifier
    _cosine: float | None = None  # largest cosine between two rows of the classifier; None is that of a simplex
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__signature__ = whole_signature(cls)

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        temperature: float | str = "auto",
        ignore_index: int = -100,
        device: torch.device | str | None = None,  # noqa: ARG002 - what has tensors uses it
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self._temperature = temperature  # as it was given
        K = self.capacity or self.num_classes
        self._retemper(K, self._cosine)
        self.ignore_index = as_ignored(ignore_index, K)

    @property
    @abc.abstractmethod
    def weight(self) -> Tensor:
        """Classifier weight, shape (C, d), detached."""

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias together, which costs less than one after the other.

        Returns
        -------
        weight, bias : Tensor, shapes (C, d) and (C,), detached
        """
        return self.weight, self.bias

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits; a training step updates the state first.

        Parameters
        ----------
        features : Tensor, shape (..., d)
            Of any norm: (n, d), or (n, tokens, d). A feature map (n, d, h, w) is passed as ``X.movedim(1, -1)``.
        labels : Tensor of integers, shape (...), or of probabilities, shape (..., C), optional
            Class indices, or the probabilities of mixup, CutMix and label smoothing: class c then has the mean of the
            features weighted by p_ic. Required in training by the nearest-ETF head. Otherwise they are checked, and
            the fixed head leaves out samples of `ignore_index`.

        Returns
        -------
        Tensor, shape (..., C), in the dtype of the features

        Raises
        ------
        InputError
            If features or labels do not fit, or the state may not change here. Nothing has changed then.
        """
        if self.training:
            logits = self._train(features, self._labels_or_given(labels))
        else:
            logits = self._classified(self._checked(features, labels)[0])
        return logits if features.dim() == 2 else logits.reshape(*features.shape[:-1], self.num_classes)

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Return the logits of a training step."""
        return self._classified(self._checked(features, labels)[0])

    def _classified(self, f: Tensor) -> Tensor:
        """Return the logits of normalised features by the classifier as it is."""
        return affine(f, *self.classifier())

    def _checked(self, features: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return normalised features (n, d), and their targets where labels are given, see `targets`."""
        f = self.normalize(rows(features, self.dim))
        if labels is None:
            return f, None
        return f, targets(labels, features.shape[:-1], self.num_classes, self.ignore_index)

    def normalize(self, features: Tensor) -> Tensor:
        r"""Return what the classifier sees: :math:`\tau h/\|h\|` for each row h of the features.

        Parameters
        ----------
        features : Tensor, shape (..., d)
            Of any norm; a feature of zeros stays zero.

        Returns
        -------
        Tensor, shape (..., d)

        Raises
        ------
        InputError
            If they are not floating-point, not of this shape, or (on the CPU) not finite.
        """
        rows(features, self.dim)
        require_finite(features, "features")
        return scaled(features, self.temperature)

    def add_classes(self, k: int, *, hold: bool = False) -> None:
        """Make room for k more classes, numbered behind the present ones.

        The statistics of the old classes stay to the bit, and those of the new ones are empty. A simplex must move when
        it grows: its old vertices move as little as possible. Where there is no room for a larger simplex, the default
        frame becomes the best one that there is. The temperature "auto" becomes that of the new number.

        In a head with a `capacity` that is large enough, no vertex moves and the temperature stays: the new classes
        take free vertices.

        Parameters
        ----------
        k : int
            At least 1.
        hold : bool
            Whether the old classes keep their rows of the classifier, to the bit, while the new ones are trained:
            `NearestETFHead.hold`. Needs a `capacity`.

        Raises
        ------
        InputError
            If the features have too few dimensions for the larger frame, the frame is one of your own, or `hold` is
            not possible. Nothing has changed then.

        Notes
        -----
        Parameters and buffers are replaced: build the optimiser, an average of the model and DistributedDataParallel
        after it. To go on from a checkpoint of fewer classes, build the head with as many as the checkpoint has, load
        it, and add the rest. How far vertices move: ``etfopt/nn/heads/_growth.py``.
        """
        index, old = added(self.num_classes, k), self.num_classes
        if hold:
            self._refuse_hold(len(index))
        self._reindex(index)
        if hold:
            self._hold(range(old))

    def keep(self, classes: Sequence[int] | Tensor) -> None:
        """Keep some of the classes, in the order given, and forget the others.

        The running mean of a fixed head stays that of all features that it has seen.

        Parameters
        ----------
        classes : sequence of int, or Tensor of shape (k,)
            Two or more different present classes: the class ``classes[j]`` becomes class j.

        Raises
        ------
        InputError
            If they are not, the frame is one of your own, or fewer than two of them have a class weight above 0.
            Nothing has changed then.
        """
        self._reindex(kept(self.num_classes, classes))

    def _retemper(self, C: int, cosine: float | None = None) -> None:
        """Set the temperature for C classes on a frame of this largest cosine; None is a simplex."""
        temperature = as_temperature(self._temperature, C, cosine)
        warn_of_low_temperature(temperature, C, level_of_caller() + 1, cosine)
        self.temperature = temperature

    def _refuse_hold(self, C: int) -> None:
        """Raise `InputError` unless the present classes can keep their rows when there are C classes."""
        said = f"hold=True is for heads with a frame; {type(self).__name__} has none"
        raise InputError(said, "hold", True, f"leave it out, and train all {C} rows")

    def _hold(self, classes: Sequence[int]) -> None:
        """Let classes keep their rows of the classifier from now on."""

    def _reindex(self, index: list[int]) -> None:
        """Make class j of the new classes what class ``index[j]`` was, or a new one where that is `NEW`."""
        raise InputError(f"{type(self).__name__} does not say how to get {len(index)} classes; build a new head")

    def linear(self) -> nn.Linear:
        """Return the classifier as it is now, as a plain layer without gradient, for features that are normalised.

        ``head.linear()(head.normalize(x))`` equals ``head.eval()(x)`` up to rounding. To deploy a network, put
        `UnitFeatures` in front of it. It has the dtype that the head was built in or last moved to.

        Returns
        -------
        nn.Linear
        """
        weight, bias = self.classifier()
        # by way of the meta device: the default initialisation would draw from the global generator
        layer = nn.Linear(self.dim, self.num_classes, device="meta", dtype=self._outer_dtype(weight))
        layer.to_empty(device=weight.device).requires_grad_(False)
        layer.weight.copy_(weight.detach())
        layer.bias.copy_(bias.detach())
        return layer.eval()


def affine(f: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return logits in the precision of the features."""
    return functional.linear(f, weight.to(f.dtype), bias.to(f.dtype))
