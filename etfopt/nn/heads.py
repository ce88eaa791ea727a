r"""Classifier heads on normalised features: learned, fixed ETF, nearest ETF. One interface, so that they swap.

All of them see :math:`f = \tau h/\|h\|`, return logits :math:`fW' + b`, and have ``weight`` (C, d) and ``bias`` (C,).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._inputs import as_integer, as_nonnegative, as_positive, room_hint
from etfopt._tensors import require_finite, require_floats, require_labels
from etfopt.errors import InputError
from etfopt.nn.class_means import ClassMeans, MeansUpdate
from etfopt.nn.functional import nearest_etf, nearest_minimiser, on_frame

__all__ = ["AnyHead", "FixedETFHead", "Head", "LearnedHead", "NearestETFHead"]


LARGEST_TEMPERATURE = 1e15
"""Beyond it the squares of features could leave the range of float32."""


class Head(nn.Module):
    """What the heads share: sizes, the feature temperature, and input checks.

    Parameters
    ----------
    dim : int
        d, the width of the features.
    num_classes : int
        C, at least 2.
    temperature : float
        tau, the norm that features are given. The paper's released scripts use 5.
    """

    def __init__(self, dim: int, num_classes: int, *, temperature: float = 5.0) -> None:
        super().__init__()
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.temperature = as_positive(temperature, "temperature")
        if self.temperature > LARGEST_TEMPERATURE:
            raise InputError(f"temperature must be at most {LARGEST_TEMPERATURE:g}; got {self.temperature:g}")

    def normalize(self, features: Tensor) -> Tensor:
        r"""Return :math:`\tau h/\|h\|` for each row h of the features, (n, d): what the classifier sees."""
        require_floats(features, "features", ("n", self.dim))
        require_finite(features, "features")
        # by the largest entry first, a constant factor to a function of direction: no feature is too short or too long
        largest = features.detach().abs().amax(dim=1, keepdim=True)
        h = features / torch.where(largest > 0, largest, torch.ones_like(largest))
        # the norm of a non-zero h is now at least 1
        norm: Tensor = torch.linalg.vector_norm(h, dim=1, keepdim=True).clamp(min=1)
        return self.temperature * h / norm

    def _check_labels(self, features: Tensor, labels: Tensor | None) -> None:
        if labels is not None:
            require_labels(labels, len(features), self.num_classes)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"dim={self.dim}, num_classes={self.num_classes}, temperature={self.temperature:g}"


class LearnedHead(Head):
    r"""The learned baseline: a linear layer without bias whose rows have unit length.

    The rows are projected back to the sphere after every optimiser step (at the next use of the layer, so that no
    hook into the training loop is needed), and the gradient is that of the unconstrained rows, as in the paper's
    release.

    Parameters are those of `Head`. ``rows`` (C, d) is the trainable parameter; ``weight`` is its normalised value.
    """

    bias: Tensor

    def __init__(self, dim: int, num_classes: int, *, temperature: float = 5.0) -> None:
        super().__init__(dim, num_classes, temperature=temperature)
        rows = nn.Linear(dim, num_classes, bias=False).weight.detach()
        self.rows = nn.Parameter(functional.normalize(rows, dim=1))
        self.register_buffer("bias", torch.zeros(num_classes))

    @property
    def weight(self) -> Tensor:
        """Rows of unit norm, shape (C, d), detached."""
        return functional.normalize(self.rows.detach(), dim=1)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits, shape (n, C), of features, shape (n, d). Labels are checked and not used."""
        f = self.normalize(features)
        self._check_labels(features, labels)
        if not self.training:
            return functional.linear(f, self.weight.to(f.dtype))
        # through .data: a second forward before the backward pass finds unit rows, so no saved value really changes,
        # and autograd's version counter must not think otherwise
        self.rows.data.copy_(self.weight)
        return functional.linear(f, self.rows.to(f.dtype))


class _ETFHead(Head):
    """A head whose classifier is the ETF of a rotation U: no parameters, and U and the bias as buffers."""

    frame: Tensor | None
    U: Tensor
    bias: Tensor

    def __init__(self, dim: int, num_classes: int, *, temperature: float, frame: Tensor | None) -> None:
        super().__init__(dim, num_classes, temperature=temperature)
        if frame is not None:
            self._check_frame(frame)
            frame = frame.detach().clone()
        r = num_classes if frame is None else len(frame)
        self._check_room(r, simplex=frame is None)
        # rows of unit mean-square norm, whatever the frame's size
        size = 1.0 if frame is None else float(torch.linalg.matrix_norm(frame))
        self._row_scale = math.sqrt(num_classes) / size
        self.register_buffer("frame", frame, persistent=False)
        self.register_buffer("U", torch.eye(dim, r))  # the canonical rotation
        self.register_buffer("bias", torch.zeros(num_classes))

    @property
    def weight(self) -> Tensor:
        r"""Classifier weight :math:`W = \sqrt C (UF)'/\|F\|_F`, shape (C, d): for the simplex, rows of unit norm."""
        return self._weight(self.U)

    def _check_frame(self, frame: Tensor) -> None:
        require_floats(frame, "frame", ("r", self.num_classes))
        require_finite(frame, "frame")
        if not frame.any():
            raise InputError(f"frame of shape {tuple(frame.shape)} is zero; pass one with a non-zero entry")

    def _check_room(self, r: int, *, simplex: bool) -> None:
        if self.dim < r:
            reduced = f"torch.from_numpy(etfopt.simplex_etf({self.num_classes}, reduced=True))"
            hint = room_hint(self.dim, self.num_classes, simplex=simplex, reduced=reduced, name="dim")
            raise InputError(f"dim = {self.dim} is smaller than the r = {r} rows of the frame; {hint}")

    def _weight(self, U: Tensor) -> Tensor:
        return self._row_scale * on_frame(U, self.frame).mT


def _linear(f: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.linear(f, weight.to(f.dtype), bias.to(f.dtype))


class FixedETFHead(_ETFHead):
    r"""The fixed baseline: the canonical simplex ETF :math:`W = \sqrt{C/(C-1)}\,(I - 11'/C)\,I_{C\times d}`.

    The bias is :math:`b = -W\mu_G` with the mean of the training batch, held constant; in evaluation the last one is
    used.

    Parameters
    ----------
    dim, num_classes, temperature
        As in `Head`; dim must be at least the frame's number of rows.
    frame : Tensor, shape (r, C), optional
        None is ``etfopt.simplex_etf(C)``, r = C; the reduced simplex, r = C-1, is enough for dim = C-1.
    """

    def __init__(self, dim: int, num_classes: int, *, temperature: float = 5.0, frame: Tensor | None = None) -> None:
        super().__init__(dim, num_classes, temperature=temperature, frame=frame)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits, shape (n, C), of features, shape (n, d). Labels are checked and not used."""
        f = self.normalize(features)
        self._check_labels(features, labels)
        if self.training and len(f):
            with torch.no_grad(), torch.autocast(f.device.type, enabled=False):
                self.bias.copy_(-self.weight @ f.to(self.bias.dtype).mean(dim=0))
        return _linear(f, self.weight, self.bias)


class NearestETFHead(_ETFHead):
    r"""The paper's head: at every step, the simplex ETF nearest to the running class means.

    In training, with f the normalised features and :math:`\mu_G` their batch mean: the class means are updated,
    :math:`H = \bar H_t/\|\bar H_t\|_F`; U solves the nearest-ETF problem with the previous U as proximal point (at the
    first step, the solution without a proximal term, of several the one nearest to the canonical U);
    :math:`W = \sqrt{C/(C-1)}\,(I-11'/C)U'`, :math:`b = -W\mu_G`.
    The loss reaches the network directly through f and :math:`\mu_G`, and through U*(H). In evaluation the last
    training W and b are used, and nothing changes.

    Parameters
    ----------
    dim, num_classes, temperature, frame
        As in `FixedETFHead`.
    delta : float
        Proximal weight, at least 0.
    averaging : "paper", "cumulative" or float
        See `ClassMeans`.
    implicit_gradient : bool
        Whether the gradient through U*(H) is used; False cuts that path and leaves the direct one.

    Raises
    ------
    InputError
        If an argument is out of range; in training if labels are missing or do not fit, or features are not finite.
        A rejected batch leaves every buffer as it was.

    References
    ----------
    Markou, Ajanthan and Gould (2024), arXiv 2411.01248.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import NearestETFHead
    >>> head = NearestETFHead(8, 3)
    >>> logits = head(torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    >>> torch.allclose(head.weight @ head.weight.T, 1.5 * torch.eye(3) - 0.5, atol=1e-5)
    True
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        delta: float = 1e-3,
        temperature: float = 5.0,
        averaging: str | float = "paper",
        implicit_gradient: bool = True,
        frame: Tensor | None = None,
    ) -> None:
        super().__init__(dim, num_classes, temperature=temperature, frame=frame)
        self.delta = as_nonnegative(delta, "delta")
        self.implicit_gradient = bool(implicit_gradient)
        self.means = ClassMeans(num_classes, dim, averaging)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits, shape (n, C), of features, shape (n, d); in training, update the classifier first."""
        f = self.normalize(features)
        if not self.training:
            self._check_labels(features, labels)
            return _linear(f, self.weight, self.bias)
        update = self.means.updated(f, labels)
        if update is None:
            return _linear(f, self.weight, self.bias)
        with torch.autocast(f.device.type, enabled=False):
            U = self._nearest(update)
            weight = self._weight(U)
            bias = -weight @ update.global_mean
        # everything that can fail is behind us
        self.means.commit(update)
        self.U.copy_(U.detach())
        self.bias.copy_(bias.detach())
        return _linear(f, weight, bias)

    def _nearest(self, update: MeansUpdate) -> Tensor:
        mean = update.mean if self.implicit_gradient else update.mean.detach()
        size = torch.linalg.matrix_norm(mean)
        # means that differ by rounding alone have no direction, and no gradient
        rounding = 10 * self.num_classes * torch.finfo(mean.dtype).eps * self.temperature
        H = torch.where(size > rounding, mean / size.clamp(min=rounding), torch.zeros_like(mean))
        if self.means.steps > 0:
            prox = self.U.to(H.dtype)
        else:
            prox = nearest_minimiser(2 * on_frame(H.detach(), self.frame, transpose=True), self.U.to(H.dtype))
        return nearest_etf(H, prox, self.delta, self.frame)


AnyHead: TypeAlias = LearnedHead | FixedETFHead | NearestETFHead
"""The heads that swap for one another."""
