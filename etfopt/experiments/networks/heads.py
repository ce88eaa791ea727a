"""Heads, built from settings; and any classifier of one's own in the place of a head."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from etfopt._registry import called
from etfopt.errors import InputError
from etfopt.experiments.settings.names import HEADS
from etfopt.nn.heads import Head

if TYPE_CHECKING:
    from etfopt.experiments.settings import HeadConfig

__all__ = ["AnyHead", "PlainHead", "build_head"]


class PlainHead(nn.Module):
    """A classifier that knows neither labels nor normalised features, such as `torch.nn.Linear`, in a head's place.

    Parameters
    ----------
    classifier : nn.Module
        From features (n, d) to logits (n, C), with ``weight`` (C, d), and ``bias`` (C,) or None.
    dim, num_classes : int
        d and C.

    Raises
    ------
    InputError
        If it has no such weight.
    """

    def __init__(self, classifier: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        weight = getattr(classifier, "weight", None)
        if not isinstance(weight, Tensor) or weight.shape != (num_classes, dim):
            raise InputError(
                f"head: {type(classifier).__name__} has no weight of shape ({num_classes}, {dim}), which the measures "
                "need; give it one, or derive it from etfopt.nn.heads.Head"
            )
        self.classifier, self.dim, self.num_classes = classifier, dim, num_classes
        self._takes_labels = "labels" in inspect.signature(classifier.forward).parameters

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the logits of a batch of features.

        Parameters
        ----------
        features : Tensor, shape (n, d)
        labels : Tensor, shape (n,), optional
            Passed on in training where the classifier's ``forward`` has a parameter ``labels``.

        Returns
        -------
        Tensor, shape (n, C)
            Logits.
        """
        given = {"labels": labels} if self._takes_labels and self.training else {}
        logits: Tensor = self.classifier(features, **given)
        return logits

    def normalize(self, features: Tensor) -> Tensor:
        """Return the features as they are.

        Parameters
        ----------
        features : Tensor, shape (n, d)

        Returns
        -------
        Tensor, shape (n, d)
            The same.
        """
        return features

    @property
    def weight(self) -> Tensor:
        """The classifier's rows, shape (C, d)."""
        weight: Any = self.classifier.weight
        return weight  # type: ignore[no-any-return] # checked on construction

    @property
    def bias(self) -> Tensor:
        """The classifier's bias, shape (C,), zero where it has none."""
        bias: Any = getattr(self.classifier, "bias", None)
        return self.weight.new_zeros(self.num_classes) if bias is None else bias


AnyHead = Head | PlainHead


def build_head(
    config: HeadConfig,
    dim: int,
    num_classes: int,
    seed: int,
    counts: Tensor | None = None,
    capacity: int | None = None,
) -> AnyHead:
    """Return the head that the settings name.

    It is called with d and C, with ``head.options``, and with each of the other settings that it has a parameter for.

    Parameters
    ----------
    config : HeadConfig
        What to build.
    dim, num_classes : int
        d and C.
    seed : int
        Of a random rotation.
    counts : Tensor, shape (C,), optional
        Training samples of each class. The frame "seli" needs them.
    capacity : int, optional
        The largest number of classes that may come, for a head that holds its classes when others come.

    Returns
    -------
    Head or PlainHead
        In training mode.

    Raises
    ------
    InputError
        If d is too small for C, or an option is not the head's.

    Examples
    --------
    >>> from etfopt.experiments.networks.heads import build_head
    >>> from etfopt.experiments.settings import HeadConfig
    >>> build_head(HeadConfig(name="fixed"), dim=12, num_classes=10, seed=0).weight.shape
    torch.Size([10, 12])
    """
    offers = {name: value for name, value in config if name not in ("name", "options") and value is not None}
    if capacity is not None:
        offers["capacity"] = capacity
    if config.statistics != "paper":
        del offers["averaging"]  # a rule of the paper's means
    if config.frame == "seli":
        offers["counts"] = counts
    if config.rotation == "random":
        offers["generator"] = torch.Generator().manual_seed(seed)
    made = called(HEADS.load(config.name), "head", dim, num_classes, offers=offers, options=config.options)
    if isinstance(made, Head):
        return made
    if not isinstance(made, nn.Module):
        raise InputError(f"head.name = {config.name!r} makes no torch.nn.Module, but a {type(made).__name__}")
    return PlainHead(made, dim, num_classes)
