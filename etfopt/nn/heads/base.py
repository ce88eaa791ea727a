r"""What the heads share, and the learned baseline."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._scalars import as_integer
from etfopt._torch import require_finite, require_floats, require_labels
from etfopt.nn._state import LoadChecked
from etfopt.nn.heads.temperature import CONFIDENCE, as_temperature
from etfopt.nn.pooling import as_ignored

__all__ = ["Head", "LearnedHead", "UnitFeatures"]


class UnitFeatures(nn.Module):
    r"""The feature normalisation :math:`f = \tau h/\|h\|` alone, in tensor operations that every exporter takes.

    For deployment: ``nn.Sequential(backbone, UnitFeatures(head.temperature), head.linear())`` gives the logits of the
    network in evaluation mode.

    Parameters
    ----------
    temperature : float
        tau, the norm that features are given.

    Raises
    ------
    InputError
        If the temperature is not a positive number.

    References
    ----------
    Markou, Ajanthan and Gould (2024), whose scripts take tau = 5; ``theory/temperature.py`` says which tau suits C
    classes.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import UnitFeatures
    >>> UnitFeatures(5.0)(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[3., 4.],
            [0., 0.]])
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = as_temperature(temperature, 2, CONFIDENCE)

    def forward(self, features: Tensor) -> Tensor:
        r"""Return :math:`\tau h/\|h\|` for each feature h, a vector along the last axis.

        Parameters
        ----------
        features : Tensor, shape (..., d)
            A feature of zeros stays zero.

        Returns
        -------
        Tensor, shape (..., d)
            Features of norm tau.
        """
        return _scaled(features, self.temperature)

    def extra_repr(self) -> str:
        """Return the constructor's argument.

        Returns
        -------
        str
            What ``repr`` shows between the brackets.
        """
        return f"temperature={self.temperature:g}"


def _scaled(features: Tensor, temperature: float) -> Tensor:
    # by the largest entry first, a constant factor to a function of direction: no feature is too short or too long
    largest = features.detach().abs().amax(dim=-1, keepdim=True)
    zero = largest == 0
    h = features / largest.masked_fill(zero, 1)
    # a zero row is divided by 1. The norm of ones stands in for its own: no derivative is taken where a norm has none
    norm: Tensor = torch.linalg.vector_norm(h.masked_fill(zero, 1), dim=-1, keepdim=True)
    return h * (temperature / norm.masked_fill(zero, 1))


class Head(LoadChecked, abc.ABC):
    """What the heads share: sizes, the feature temperature, input checks and the export.

    Parameters
    ----------
    dim : int
        d, the width of the features.
    num_classes : int
        C, at least 2.
    temperature : float or "auto"
        tau, the norm that features are given. The paper's released scripts use 5, which suits 10 classes; "auto"
        takes `etfopt.nn.heads.temperature.collapse_temperature` of C and `confidence`.
    confidence : float
        With "auto", the softmax probability of the right class at collapse.
    ignore_index : int
        Label of samples that do not count in any statistic, as in `torch.nn.CrossEntropyLoss`. Their logits are
        returned like the others'.

    Raises
    ------
    InputError
        If an argument is out of range.

    References
    ----------
    Markou, Ajanthan and Gould (2024). The temperature: ``theory/temperature.py``.
    """

    bias: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        temperature: float | str = 5.0,
        confidence: float = CONFIDENCE,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.temperature = as_temperature(temperature, self.num_classes, confidence)
        self.ignore_index = as_ignored(ignore_index, self.num_classes)

    @property
    @abc.abstractmethod
    def weight(self) -> Tensor:
        """Classifier weight, shape (C, d), detached."""

    def normalize(self, features: Tensor) -> Tensor:
        r"""Return what the classifier sees: :math:`\tau h/\|h\|` for each row h of the features.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            Of any norm; a row of zeros stays zero.

        Returns
        -------
        Tensor, shape (n, d)
            Rows of norm tau.

        Raises
        ------
        InputError
            If they are not floating-point, not of this shape, or (where values may be looked at) not finite.
        """
        require_floats(features, "features", ("n", self.dim))
        require_finite(features, "features")
        return _scaled(features, self.temperature)

    def linear(self) -> nn.Linear:
        """Return the classifier as it is now, as a plain layer without gradient, for features that are normalised.

        ``head.linear()(head.normalize(x))`` equals ``head.eval()(x)``. To deploy a network without this package's
        modules but one, see `UnitFeatures`. Without a backbone's normalisation the largest logit may be another.

        Returns
        -------
        nn.Linear
            d to C, with bias.
        """
        weight = self.weight.detach()
        # by way of the meta device: the default initialisation would draw from the global generator
        layer = nn.Linear(self.dim, self.num_classes, device="meta", dtype=weight.dtype)
        layer.to_empty(device=weight.device).requires_grad_(False)
        layer.weight.copy_(weight)
        layer.bias.copy_(self.bias)
        return layer.eval()

    def _check_labels(self, features: Tensor, labels: Tensor | None) -> Tensor | None:
        """Return the labels, where there are any, as int64."""
        return None if labels is None else require_labels(labels, len(features), self.num_classes, self.ignore_index)

    def extra_repr(self) -> str:
        """Return the constructor's arguments.

        Returns
        -------
        str
            What ``repr`` shows between the brackets.
        """
        return f"dim={self.dim}, num_classes={self.num_classes}, temperature={self.temperature:g}"


class LearnedHead(Head):
    r"""The learned baseline: a linear layer without bias whose rows have unit length.

    The rows are projected back to the sphere after every optimiser step (at the next use of the layer, so that no
    hook into the training loop is needed), and the gradient is that of the unconstrained rows, as in the paper's
    release. ``rows`` (C, d) is the trainable parameter; ``weight`` is its normalised value. The parameters are those of
    `Head`. Like every trainable parameter the rows have the dtype that you give them: in bfloat16 an optimiser step
    smaller than 1/256 of an entry is lost, as in `torch.nn.Linear`.

    References
    ----------
    Markou, Ajanthan and Gould (2024), the released code's baseline.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import LearnedHead
    >>> head = LearnedHead(dim=4, num_classes=3)
    >>> head(torch.randn(5, 4)).shape
    torch.Size([5, 3])
    >>> torch.allclose(head.weight.norm(dim=1), torch.ones(3))
    True
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        temperature: float | str = 5.0,
        confidence: float = CONFIDENCE,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(dim, num_classes, temperature=temperature, confidence=confidence, ignore_index=ignore_index)
        self.rows = nn.Parameter(torch.empty(num_classes, dim))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new rows, as the constructor does from the global generator; the bias is zero."""
        self.rows.copy_(functional.normalize(nn.Linear(self.dim, self.num_classes, bias=False).weight, dim=1))
        self.bias.zero_()

    def _reset_buffers(self) -> None:
        self.bias.zero_()

    @property
    def weight(self) -> Tensor:
        """Rows of unit norm, shape (C, d), detached."""
        return functional.normalize(self.rows.detach(), dim=1)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            Of any norm.
        labels : Tensor of integers, shape (n,), optional
            Checked and not used.

        Returns
        -------
        Tensor, shape (n, C)
            Logits.

        Raises
        ------
        InputError
            If features or labels do not fit.
        """
        f = self.normalize(features)
        self._check_labels(features, labels)
        if not self.training:
            return functional.linear(f, self.weight.to(f.dtype))
        # through .data: a second forward before the backward pass finds unit rows, so no saved value really changes,
        # and autograd's version counter must not think otherwise
        self.rows.data.copy_(self.weight)
        return functional.linear(f, self.rows.to(f.dtype))
