"""The distance to the nearest ETF for tensors (..., d, C) and for lists of class sets, with its arguments checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from torch import Tensor

from etfopt._arrays import Array
from etfopt._options import as_method
from etfopt._torch import full_precision, require_floats, working_dtype
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn._arguments import masked, require_batches, require_classes, require_frame, usable_weights
from etfopt.nn.minimiser._distance import distance, divisor


def etf_distance(
    H: Tensor | Sequence[Tensor],
    frame: Tensor | None = None,
    weights: Tensor | Sequence[Tensor] | None = None,
    free_scale: bool = True,
    *,
    method: str = "auto",
) -> Tensor:
    r"""Return the squared distance of class means to their nearest ETF: a loss, differentiable to every order.

    .. math:: D(H) = \min_{s, U} \sum_c w_c \|h_c - s\,U f_c\|^2
       = \|H\|_D^2 - \|HDF'\|_*^2 / \|F\|_D^2, \qquad \|X\|_D^2 = \sum_c w_c \|x_c\|^2, \quad D = diag(w)

    Its gradients are :math:`2(H - s^*U^*F)D` in H and :math:`\|h_c - s^*U^*f_c\|^2` in :math:`w_c`. One polar factor
    gives value and gradient. Both are right and finite at collapse, where they are 0.

    Parameters
    ----------
    H : Tensor, shape (..., d, C), or sequence of Tensor, shapes (d, C_i)
        Class means, one column a class. Centre them first: the mean of the columns counts as distance. Sets of
        different sizes come as a list, with at least two classes each. All sets of one size are computed together.
    frame : Tensor, shape (r, C), optional
        Default: the reduced simplex, for which d >= C-1 is enough. A list of sets then gets one for each size. On a
        GPU, keep a frame there and pass it: the default one is copied to the GPU in each call.
    weights : Tensor, shape (..., C), or sequence of Tensor, shapes (C_i,), optional
        How much each class counts, at least 0. Weights of 0 mask classes, whose columns may then hold NaN; the others
        are compared with a part of the simplex of all C classes. An item without any weight has distance 0.
        Default: 1 for every class.
    free_scale : bool
        True compares with an ETF of any size. The distance then falls as H shrinks; divide it by :math:`\|H\|^2`, as
        `etfopt.nn.ETFDistance` can, where that would be the easiest way to reduce a loss. False compares with UF.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the polar factor is found, see `etfopt.nn.functional.polar_factor`.

    Returns
    -------
    Tensor, shape (...), or (m,) for a sequence of m sets
        In the dtype of H; float32 for float16 and bfloat16.

    Raises
    ------
    InputError
        If an argument does not fit, d < r, a set has fewer than two classes, or (on the CPU) a value is not finite or
        a weight negative.

    Notes
    -----
    The value is the residual of the nearest ETF, not the difference in the formula: near collapse it keeps its digits.
    Second derivatives contain that of U, and are as accurate as it. A compiled graph is differentiable once; a second
    derivative of it is an error of PyTorch.

    Where the nearest ETF is not unique, the gradient is that of one of them. The derivative in a weight of 0 is that
    to the right; a masked column that holds NaN has derivative 0.

    References
    ----------
    Danskin (1967), The Theory of Max-Min. Proof: ``theory/envelope.py``; the value: ``theory/free_scale.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.functional import etf_distance
    >>> H = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)  # three classes on a line
    >>> D = etf_distance(H)
    >>> D.backward()
    >>> round(D.item(), 4), H.grad.shape
    (1.0, torch.Size([2, 3]))
    >>> etf_distance([torch.eye(3), torch.eye(3, 2)]).shape
    torch.Size([2])
    """
    return distance_of(H, frame, weights, free_scale, method)


def distance_of(
    H: Tensor | Sequence[Tensor],
    frame: Tensor | None,
    weights: Tensor | Sequence[Tensor] | None,
    free_scale: bool,
    method: str,
    *,
    relative: bool = False,
) -> Tensor:
    """Return the distance of each item or set, over the squared norm of H if it is relative; 0 where H is 0."""
    as_method(method)
    if isinstance(H, (list, tuple)):
        return _of_sets(H, frame, weights, free_scale, method, relative)
    if not (weights is None or isinstance(weights, Tensor)):
        raise InputError(f"weights must be a torch tensor, as H is; got {type(weights).__name__}")
    return _of_batch(cast(Tensor, H), frame, weights, free_scale, method, relative)


def _of_batch(
    H: Tensor, frame: Tensor | None, weights: Tensor | None, free_scale: bool, method: str, relative: bool
) -> Tensor:
    require_classes(H)
    dtype = working_dtype(H)
    F = _reduced_simplex(int(H.shape[-1]), dtype, H.device) if frame is None else frame
    if frame is not None or H.shape[-2] < H.shape[-1] - 1:
        require_frame(H, F)
    w = usable_weights(H, weights, may_vanish=True)
    with full_precision(H):
        work = H.to(dtype)
        if w is not None:
            require_batches(H=H, weights=w)
            work, w = masked(work, w)
            if work.shape[:-2] != w.shape[:-1]:
                batch = torch.broadcast_shapes(work.shape[:-2], w.shape[:-1])  # type: ignore[no-untyped-call] # torch's
                work, w = work.expand(*batch, -1, -1), w.expand(*batch, -1)
        if relative and free_scale:
            work = _of_size_one(work, w)
        size = "fixed" if not free_scale else "simplex" if frame is None else "free"
        D = distance(work, w, F.to(work), size, method)
        if relative:
            total = work.square() if w is None else work.square() * w.unsqueeze(-2)
            D = D / divisor(total.sum(dim=(-2, -1)))
    return D.to(torch.promote_types(H.dtype, torch.float32))


def _of_size_one(H: Tensor, w: Tensor | None) -> Tensor:
    """Return H over its largest entry that counts, so that no square leaves the range: the relative distance stays."""
    size = H.detach().abs()
    size = size if w is None else torch.where(w.detach().unsqueeze(-2) > 0, size, 0)
    return H / divisor(size.amax(dim=(-2, -1), keepdim=True))


def _reduced_simplex(C: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    find = _simplex if torch.compiler.is_compiling() else _cached_simplex
    # a tensor must not outlive the mode that it is made in, such as inference mode
    return torch.from_numpy(find(C, dtype == torch.float32)).to(device)


def _simplex(C: int, single: bool) -> Array:
    return simplex_etf(C, reduced=True).astype(np.float32 if single else np.float64)


_cached_simplex = lru_cache(maxsize=8)(_simplex)


def _of_sets(
    sets: Sequence[Tensor],
    frame: Tensor | None,
    weights: Tensor | Sequence[Tensor] | None,
    free_scale: bool,
    method: str,
    relative: bool,
) -> Tensor:
    """Return the distance of each set of classes, those of one shape together."""
    if not sets:
        raise InputError("H is an empty sequence; pass one set of class means at the least")
    if weights is not None and (not isinstance(weights, (list, tuple)) or len(weights) != len(sets)):
        raise InputError(f"weights must be a sequence of {len(sets)} tensors, one for each set, as H is")
    groups: dict[torch.Size, list[int]] = {}
    for i, X in enumerate(sets):
        require_classes(require_floats(X, f"H[{i}]", ("d", "C")), f"H[{i}]")
        if weights is not None and weights[i].shape != X.shape[1:]:
            raise InputError(f"weights[{i}] has shape {tuple(weights[i].shape)}; it must be ({X.shape[1]},)")
        groups.setdefault(X.shape, []).append(i)
    found = []
    for members in groups.values():
        w = None if weights is None else torch.stack([weights[i] for i in members])
        try:
            stacked = torch.stack([sets[i] for i in members])
            found.append(distance_of(stacked, frame, w, free_scale, method, relative=relative))
        except InputError as error:
            raise InputError(f"of the sets {members}, stacked: {error}") from error
    order = sorted(range(len(sets)), key=[i for members in groups.values() for i in members].__getitem__)
    return torch.cat(found)[torch.tensor(order, device=found[0].device)]
