r"""Classifier heads on normalised features: learned, fixed ETF, nearest ETF. One interface, so that they swap.

All of them see :math:`f = \tau h/\|h\|`, return logits :math:`fW' + b`, and have ``weight`` (C, d) and ``bias`` (C,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from etfopt import _solve
from etfopt._inputs import as_integer, as_nonnegative
from etfopt._tensors import visible
from etfopt.errors import InputError
from etfopt.nn._etf_head import ETFHead, FixedETFHead, affine
from etfopt.nn._head import Head, LearnedHead, UnitFeatures
from etfopt.nn._routes import require_method
from etfopt.nn._state import refuse_trace, where_valid
from etfopt.nn.class_means import ClassMeans, MeansUpdate
from etfopt.nn.functional import nearest_etf, nearest_minimiser, on_frame
from etfopt.nn.temperature import CONFIDENCE
from etfopt.solution import Solution

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from etfopt.solvers.base import Solver

__all__ = ["AnyHead", "FixedETFHead", "Head", "LearnedHead", "NearestETFHead", "UnitFeatures"]


class NearestETFHead(ETFHead):
    r"""The paper's head: at every step, the simplex ETF nearest to the running class means.

    In training, with f the normalised features and :math:`\mu_G` their batch mean: the class means are updated,
    :math:`H = \bar H_t/\|\bar H_t\|_F`; U solves the nearest-ETF problem with the previous U as proximal point (at the
    first step, the solution without a proximal term, of several the one nearest to the canonical U);
    :math:`W = \sqrt{C/(C-1)}\,(I-11'/C)U'`, :math:`b = -W\mu_G`.
    The loss reaches the network directly through f and :math:`\mu_G`, and through U*(H). In evaluation the last
    training W and b are used, and nothing changes.

    Parameters
    ----------
    dim, num_classes, temperature, confidence, frame
        As in `FixedETFHead`.
    ignore_index
        Label of samples that count neither in the class means nor in :math:`\mu_G`; their logits are returned.
    delta : float
        Proximal weight, at least 0.
    averaging : "paper", "cumulative" or float
        See `ClassMeans`.
    implicit_gradient : bool
        Whether the gradient through U*(H) is used; False cuts that path and leaves the direct one.
    freeze_after : int, optional
        Number of training steps after which U no longer changes. The means and the bias go on following the batches,
        as the fixed head's does; the loss then reaches the network through f and :math:`\mu_G` only.
    solve_every : int
        Solve at steps 0, k, 2k, ... only. In between U is a constant, so that there is no gradient through U*(H) in
        those steps, and the means are updated all the same.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the nearest ETF is found, see `etfopt.nn.functional.nearest_etf`. On a device a step of which no value may
        be looked at has NaN where the method cannot keep its promises.
    process_group, synchronize
        As in `ClassMeans`: under torch.distributed all ranks hold the same means and the same U.

    Raises
    ------
    InputError
        If an argument is out of range; in training if labels are missing or do not fit, or features are not finite.
        A rejected batch leaves every buffer as it was. Where looking at values would wait for a device the error
        comes later, see `ClassMeans`, and such a batch gets the logits of the last good classifier. Also if a
        training forward runs inside a backward pass (activation checkpointing), is traced, or is exported.

    Notes
    -----
    There are no parameters, so nothing for an optimiser or its weight decay to change; all state is in buffers, which
    stay in float32 or better under ``.half()``. An average of models over their buffers averages W and b, and an
    average of ETFs is in general none; `torch.optim.swa_utils.AveragedModel` copies the buffers instead by default.

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

    prox: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        delta: float = 1e-3,
        temperature: float | str = 5.0,
        confidence: float = CONFIDENCE,
        averaging: str | float = "paper",
        implicit_gradient: bool = True,
        frame: Tensor | None = None,
        ignore_index: int = -100,
        freeze_after: int | None = None,
        solve_every: int = 1,
        method: str = "auto",
        process_group: ProcessGroup | None = None,
        synchronize: bool = True,
    ) -> None:
        super().__init__(
            dim,
            num_classes,
            temperature=temperature,
            confidence=confidence,
            ignore_index=ignore_index,
            frame=frame,
        )
        self.delta = as_nonnegative(delta, "delta")
        self.implicit_gradient = bool(implicit_gradient)
        self.freeze_after = None if freeze_after is None else as_integer(freeze_after, "freeze_after", at_least=0)
        self.solve_every = as_integer(solve_every, "solve_every", at_least=1)
        require_method(method)
        self.method = method
        self.means = ClassMeans(
            num_classes,
            dim,
            averaging,
            ignore_index=ignore_index,
            process_group=process_group,
            synchronize=synchronize,
        )
        self.register_buffer("prox", self.U.clone())  # the proximal point of the last solve

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits, shape (n, C), of features, shape (n, d); in training, update the classifier first."""
        if not self.training:
            f = self.normalize(features)
            self._check_labels(features, labels)
            return affine(f, self.weight, self.bias)
        refuse_trace(self)
        logits: Tensor = self._train(features, labels)
        return logits

    # not compiled, for the reason that ClassMeans gives
    @torch.compiler.disable  # type: ignore[untyped-decorator] # torch leaves it untyped
    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        error, f = None, self.bias.new_zeros(0, self.dim)
        try:
            f = self.normalize(features)
        except InputError as found:
            error = found  # the other ranks are told before it is raised
        update = self.means.updated(error or f, labels)
        if update is None:
            return affine(f, self.weight, self.bias)
        return affine(f, *self._classifier(update))

    def _classifier(self, update: MeansUpdate) -> tuple[Tensor, Tensor]:
        """Return the weight and bias for the updated means, differentiable, and make them the state."""
        step = self.means.count()
        solves = step % self.solve_every == 0 and (self.freeze_after is None or step < self.freeze_after)
        with torch.autocast(update.mean.device.type, enabled=False):
            U, prox = self._solve(update, first=step == 0) if solves else (self.U.to(update.mean.dtype), self.prox)
            weight = self._weight(U)
            bias = where_valid(update.valid, -weight @ update.global_mean, self.bias)
        # everything that can fail is behind us, but for a U that a method gave up on where it could not look: NaN
        solved = None if visible(U) else U.isfinite().all()
        self.means.commit(update)
        with torch.no_grad():
            self.prox.copy_(where_valid(solved, prox, self.prox))  # before U, which it may be a view of
            self.U.copy_(where_valid(solved, U, self.U))
            self.bias.copy_(where_valid(solved, bias, self.bias))
            self.means.count_rejected(None if solved is None else ~solved)
        return weight, bias

    def _solve(self, update: MeansUpdate, *, first: bool) -> tuple[Tensor, Tensor]:
        """Return U and its proximal point; what they were, for a batch that does not count."""
        mean = update.mean if self.implicit_gradient else update.mean.detach()
        H = self._unit(mean)
        prox = self.U.to(H.dtype)
        if first:
            prox = nearest_minimiser(2 * on_frame(H.detach(), self.frame, transpose=True), prox)
        U = self.means.ranks.agreed(nearest_etf(H, prox, self.delta, self.frame, method=self.method))
        return where_valid(update.valid, U, self.U), where_valid(update.valid, prox, self.prox)

    def _unit(self, mean: Tensor) -> Tensor:
        size = torch.linalg.matrix_norm(mean)
        # means that differ by rounding alone have no direction, and no gradient
        rounding = 10 * self.num_classes * torch.finfo(mean.dtype).eps * self.temperature
        return torch.where(size > rounding, mean / size.clamp(min=rounding), torch.zeros_like(mean))

    @torch.no_grad()
    def solution(self, solver: Solver | None = None, *, throw: bool = True) -> Solution:
        r"""Solve for the current means with the core, in float64, and certify the answer.

        The problem is :math:`\min_U \|H - UF\|_F^2 + \tfrac{\delta}{2}\|U - U_{prox}\|_F^2` with
        :math:`H = \bar H_t/\|\bar H_t\|_F` of the current means and the proximal point of the last solve. Right after
        a training step that solved it is the problem of that step, so that ``solution().etf`` and the head's
        ``U @ frame`` agree up to rounding; between solves (`solve_every`), and once U is frozen, it is what a solve
        would find now. To grade the head's own U: ``etfopt.certificate.certify(solution.problem, head.U.numpy())``.

        Parameters
        ----------
        solver : etfopt.solvers.base.Solver, optional
            As in `etfopt.solve`.
        throw : bool
            As in `etfopt.solve`.

        Returns
        -------
        Solution

        Raises
        ------
        InputError
            If no batch has been seen.
        """
        self.means.raise_rejected()
        if not int(self.means.steps):
            raise InputError("the head has seen no batch, so that there are no class means; train it, or load a state")
        arrays = [None if X is None else X.double().cpu() for X in (self.means.mean, self.prox, self.frame)]
        H, prox, frame = (None if X is None else X.numpy() for X in arrays)
        unit: Any = self._unit(torch.from_numpy(H)).numpy()
        return _solve.nearest_etf(unit, prox=prox, delta=self.delta, frame=frame, solver=solver, throw=throw)


AnyHead: TypeAlias = LearnedHead | FixedETFHead | NearestETFHead
"""The heads that swap for one another."""
