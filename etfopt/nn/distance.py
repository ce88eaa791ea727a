r"""A module for the distance of class means to their nearest ETF, as a loss to add to a loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from etfopt._arrays import as_matrix
from etfopt._options import as_method
from etfopt._scalars import as_choice
from etfopt._torch import require_finite, require_floats, require_labels, working_dtype
from etfopt.errors import InputError
from etfopt.nn._distance import distance_of

__all__ = ["ETFDistance"]

REDUCTIONS = ("mean", "sum", "none")
ANY_LABEL = 2**62
"""Number of classes where only the classes that occur matter."""


class ETFDistance(nn.Module):
    r"""Squared distance of class means to their nearest ETF, to be added to a loss.

    .. math:: D(H) = \min_{s, U} \sum_c w_c \|h_c - s\,U f_c\|^2 \quad [\; / \textstyle\sum_c w_c \|h_c\|^2 \;]

    It is 0 when the class means have collapsed to the vertices of an ETF, here a simplex unless you pass a frame. The
    module has no parameters. Call it with class means, or call `from_features` with features and labels.

    Parameters
    ----------
    frame : Tensor or array_like, shape (r, C), optional
        Default: the reduced simplex of as many classes as H has, for which d >= C-1 is enough.
    free_scale : bool
        True compares with an ETF of any size, False with the frame's own size.
    relative : bool
        Whether to divide by the squared norm of H. A network can reduce the plain distance by shrinking its features;
        it cannot reduce the relative one so, which is at most 1. Take True unless your features have a fixed norm.
    reduction : "mean", "sum" or "none"
        Over the items of a batch, or the sets of a list. An item without any weight counts as one of distance 0.
    ignore_index : int
        Label of features that `from_features` leaves out, as in `torch.nn.CrossEntropyLoss`.
    method : "auto", "svd", "gram" or "newton-schulz"
        See `etfopt.nn.functional.polar_factor`.

    Raises
    ------
    InputError
        If an argument is not one of the above; in `forward`, as `etfopt.nn.functional.etf_distance`.

    References
    ----------
    Danskin (1967), The Theory of Max-Min, for the gradient. Proof: ``theory/envelope.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import ETFDistance
    >>> distance = ETFDistance(relative=True)
    >>> features = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9]], requires_grad=True)
    >>> loss = distance.from_features(features, torch.tensor([0, 1, 2]))
    >>> loss.backward()
    >>> round(loss.item(), 4)
    0.0004
    """

    frame: Tensor | None

    def __init__(
        self,
        frame: Tensor | ArrayLike | None = None,
        *,
        free_scale: bool = True,
        relative: bool = False,
        reduction: str = "mean",
        ignore_index: int = -100,
        method: str = "auto",
    ) -> None:
        super().__init__()
        if frame is not None:
            F = frame if isinstance(frame, Tensor) else torch.from_numpy(np.array(as_matrix(frame, "frame")))
            frame = require_floats(F, "frame", ("r", "C"))
            if not (frame.is_meta or frame.any()):
                raise InputError(f"frame of shape {tuple(frame.shape)} is zero; pass one with a non-zero entry")
        self.register_buffer("frame", frame, persistent=False)
        self.free_scale, self.relative, self.ignore_index = free_scale, relative, ignore_index
        self.reduction, self.method = as_choice(reduction, "reduction", REDUCTIONS), method
        as_method(method)

    def forward(self, H: Tensor | Sequence[Tensor], weights: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """Return the distance of class means.

        Parameters
        ----------
        H : Tensor, shape (..., d, C), or sequence of Tensor, shapes (d, C_i)
            Class means, centred, one column a class.
        weights : Tensor, shape (..., C), or sequence of Tensor, shapes (C_i,), optional
            How much each class counts; 0 masks a class.

        Returns
        -------
        Tensor
            A scalar; with ``reduction="none"`` one number for each item, shape (...) or (m,).

        Raises
        ------
        InputError
            As `etfopt.nn.functional.etf_distance`.
        """
        D = distance_of(H, self.frame, weights, self.free_scale, self.method, relative=self.relative)
        return D if self.reduction == "none" else D.sum() if self.reduction == "sum" else D.mean()

    def from_features(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the distance of the centred class means of a batch to the simplex of the classes that occur in it.

        Some vertices of a simplex, centred, are a simplex again. So a batch need not hold all classes.

        Parameters
        ----------
        features : Tensor, shape (..., d)
        labels : Tensor of integers, shape (...)
            Class indices, or `ignore_index`. Their values are looked at, which waits for a GPU.

        Returns
        -------
        Tensor, shape ()
            0, with a gradient of 0, if fewer than two classes occur.

        Raises
        ------
        InputError
            If the shapes do not fit, a label is negative, more than d + 1 classes occur, (on the CPU) a feature that
            counts is not finite, or the module has a frame: then pass class means, for example those of
            `etfopt.nn.ClassMeans`.
        """
        if self.frame is not None:
            raise InputError("from_features is for the simplex, and this module has a frame; pass class means to it")
        require_floats(features, "features", None)
        if features.dim() < 2:
            raise InputError(f"features has shape {tuple(features.shape)}; it must be (..., d)")
        index = require_labels(labels, tuple(features.shape[:-1]), ANY_LABEL, self.ignore_index)
        counted = index != self.ignore_index
        X = features[counted].to(working_dtype(features))
        present, index = torch.unique(index[counted], return_inverse=True)
        m, d = len(present), X.shape[1]
        if m > d + 1:
            remedy = "use more features, ignore some classes, or pass class means to a module with a frame"
            raise InputError(
                f"labels holds {m} classes, and a simplex of {m} vertices needs d >= {m - 1} features; got d = {d}: "
                f"{remedy}"
            )
        if m < 2:
            return X[:0].sum()
        require_finite(X, "features")
        sums = X.new_zeros(m, d).index_add(0, index, X)
        means = sums / index.bincount(minlength=m)[:, None]
        return self.forward((means - means.mean(dim=0)).mT)

    def extra_repr(self) -> str:
        """Return the options, for ``repr``.

        Returns
        -------
        str
        """
        frame = "" if self.frame is None else f"frame={tuple(self.frame.shape)}, "
        return f"{frame}free_scale={self.free_scale}, relative={self.relative}, reduction={self.reduction!r}"
