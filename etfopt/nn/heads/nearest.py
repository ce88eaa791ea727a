r"""The paper's head: the simplex ETF nearest to the running class means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from etfopt import solution as core
from etfopt._options import as_method, as_shrinkage
from etfopt._scalars import as_integer, as_nonnegative
from etfopt._torch import outside_graphs, visible
from etfopt.errors import InputError
from etfopt.nn._renamed import takes_old_options
from etfopt.nn._running import MeansOptions, MeansUpdate, RunningMeans
from etfopt.nn._state import refuse_trace, where_valid
from etfopt.nn._targets import LABELS_REQUIRED
from etfopt.nn.class_means import ClassMeans
from etfopt.nn.functional import nearest_etf, on_frame
from etfopt.nn.heads._etf import ETFHead, FrameOptions
from etfopt.nn.heads._rotation import nearest_minimiser
from etfopt.nn.heads._shrinkage import shrunk_rows, unit_means
from etfopt.nn.heads.base import affine
from etfopt.nn.paper_means import PaperClassMeans
from etfopt.solution import Solution

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from etfopt.solvers.base import Solver

__all__ = ["NearestETFHead"]


@takes_old_options
class NearestETFHead(ETFHead):
    r"""The simplex ETF nearest to the running class means, at every training step.

    A training step normalises the features to f and updates the class means, with H the centred class means over
    their Frobenius norm. U solves the nearest-ETF problem with the previous U as proximal point. The first step solves
    without a proximal term, and takes the solution nearest to the canonical U. Then :math:`W = \sqrt C\,(UF)'/\|F\|_F`
    and :math:`b = -W\mu_G`. The gradient reaches the network directly through f and :math:`\mu_G`, and indirectly
    through U*(H).

    Evaluation uses the running class means and the last U, and changes nothing. The last batch has no special part in
    it, so that its size does not matter. A training step sees the labels of its batch before it classifies: its
    logits are better than those of new samples. Compute training accuracy in evaluation mode, or pass
    ``classify_first=True``.

    Parameters
    ----------
    dim, num_classes : int
        d and C; d must be at least the frame's number of rows.
    delta : float
        Proximal weight, at least 0. It makes U unique and keeps it near the previous one; 1e-3 is the paper's.
    statistics : "running" or "paper"
        How the class means are kept: "running" is `ClassMeans`, "paper" are the rules of the paper's release to the
        letter, `PaperClassMeans`, with its square frame and tau = 5 as defaults.
    memory : float, optional
        Of "running": the number of samples of a class after which its mean has forgotten an old one; default 64.
    averaging : "paper", "cumulative" or float, optional
        Of "paper": how the class means are averaged over batches.
    implicit_gradient : bool
        Whether the gradient through U*(H) is used. False leaves the direct one, and saves a backward pass.
    freeze_after : int, optional
        Number of training steps after which U no longer changes. The means and the bias still follow the batches.
    solve_every : int
        Solve at steps 0, k, 2k, ... only, to save time. In between U is a constant without a gradient.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the nearest ETF is found, see `etfopt.nn.functional.nearest_etf`. On a GPU, a matrix that the method cannot
        handle gives NaN logits in that step, and counts as a bad batch.
    shrinkage : float
        s in (0, 1], how far the class means are shrunk to their nearest ETF. 1 is the paper's classifier. Below, the
        rows of W are those of :math:`s\,(UF)'/\|F\|_F + (1-s)\,H'`, brought to the length of the ETF's; a class never
        seen has a column of zeros in this H. H follows the means in every step, also while U does not.
    evaluation_shrinkage : float, optional
        Another s for evaluation; None is `shrinkage`. 0.01 nearly classifies by the angle to the class means.
    classify_first : bool
        True classifies a training batch by the classifier of the batches before it and updates afterwards, without a
        gradient through U*(H). The paper updates first, and compares a sample with a mean that contains it.
    synchronize : bool or ProcessGroup
        Whose batches count under torch.distributed, see `ClassMeans`. All ranks hold the same U.
    **options
        ``temperature``, ``ignore_index``, ``device``, ``dtype``: see `Head`; ``frame``, ``reduced``: `FixedETFHead`.

    Raises
    ------
    InputError
        If an argument is out of range; in training if a batch does not fit, or a forward is traced, exported or run
        inside a backward pass (activation checkpointing). A rejected batch leaves every buffer as it was. On a GPU the
        error comes later, see `ClassMeans`, and such a batch gets the logits of the last good classifier.

    Notes
    -----
    With many classes of few samples, try ``shrinkage=0.5, evaluation_shrinkage=0.01, classify_first=True``: an ETF
    gives weight to directions in which few samples cannot tell classes apart. On Omniglot, 242 classes of 15 images, a
    small convolutional network at temperature 5 reached 87.1 % test accuracy with these. The learned head reached
    86.2 % (8 seeds), the paper's classifier 76.9 % at the best temperature tried, 10 (3 seeds).

    There are no parameters: all state is in buffers of float32 or better. The frame is part of the state: a head takes
    the frame of the state that it loads, and refuses a state with a frame if it has none, or the reverse. The other
    arguments are not: build the head with those that it was trained with. ``to_empty()`` from the meta device, and
    ``reset_parameters()``, restore the state of construction.

    Models may be averaged with their buffers (EMA, SWA): the classifier is then the ETF of the rotation nearest to the
    averaged U. Call ``eval()`` on the average before you compile, export or trace it; overwritten since, it gives NaN.

    References
    ----------
    Markou, Ajanthan and Gould (2024), arXiv 2411.01248. What it leads to: ``theory/unconstrained_features.py``; what is
    left of the gradient through U*(H) after t steps: ``theory/fading.py``.

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
        memory: float | None = None,
        averaging: str | float | None = None,
        implicit_gradient: bool = True,
        freeze_after: int | None = None,
        solve_every: int = 1,
        method: str = "auto",
        shrinkage: float = 1.0,
        evaluation_shrinkage: float | None = None,
        classify_first: bool = False,
        synchronize: bool | ProcessGroup = True,
        **options: Unpack[FrameOptions],
    ) -> None:
        super().__init__(dim, num_classes, **options)
        self.delta = as_nonnegative(delta, "delta")
        self.implicit_gradient = bool(implicit_gradient)
        self.freeze_after = None if freeze_after is None else as_integer(freeze_after, "freeze_after", at_least=0)
        self.solve_every = as_integer(solve_every, "solve_every", at_least=1)
        self.method = as_method(method)
        self.shrinkage = as_shrinkage(shrinkage, "shrinkage")
        later = shrinkage if evaluation_shrinkage is None else evaluation_shrinkage
        self.evaluation_shrinkage = as_shrinkage(later, "evaluation_shrinkage")
        self.classify_first = bool(classify_first)
        self.means = _class_means(
            self.statistics,
            memory,
            averaging,
            num_classes=num_classes,
            dim=dim,
            ignore_index=self.ignore_index,
            synchronize=synchronize,
            device=options.get("device"),
            dtype=options.get("dtype"),
        )
        self.register_buffer("prox", self.U.clone())  # the proximal point of the last solve

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: frame and rotation, and no batch has been seen."""
        super().reset_parameters()
        self.prox.copy_(self.U)
        self.means.reset_parameters()

    def _center(self) -> Tensor:
        return self.means.center()

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        means = f"{prefix}means."
        wrong = self._other_statistics(state_dict, f"{means}samples", f"{means}seen")
        return wrong or super()._misfits(state_dict, prefix)  # of other statistics the shapes may differ too

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        state_dict.pop(prefix + "bias", None)  # of release 0.1: it is that of the means

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        refuse_trace(self)
        return self._step(features, labels)

    @outside_graphs  # for the reason that `etfopt.nn.ClassMeans` gives
    def _step(self, features: Tensor, labels: Tensor | None) -> Tensor:
        with self.means.sharing_refusals():
            f, target = self._checked(features, labels)
            if target is None:
                raise InputError(LABELS_REQUIRED)
        update = self.means.updated(f, target)
        if update is None:
            return self._classified(f)
        return affine(f, *self._classifier(update))

    def _classifier(self, update: MeansUpdate) -> tuple[Tensor, Tensor]:
        """Return the weight and bias for the updated means, differentiable, and make them the state."""
        step = self.means.count()
        solves = step % self.solve_every == 0 and (self.freeze_after is None or step < self.freeze_after)
        with torch.autocast(update.mean.device.type, enabled=False):
            mean = update.mean if self.implicit_gradient else update.mean.detach()
            current = self.rotation()
            U, prox = current.to(mean.dtype), self.prox
            if solves:
                U, prox = self._solve(mean, current, update.valid, first=step == 0)
            if self.classify_first:
                weight = self._shrunk(current, self.means.centred(), self.means.occurred, self.shrinkage).to(mean.dtype)
            else:
                weight = self._shrunk(U, mean, update.seen, self.shrinkage)
            if self.evaluation_shrinkage != self.shrinkage:  # for a batch that does not count: what fits its bias
                weight = where_valid(update.valid, weight, self.weight)
            bias = -weight @ update.center
        # no check can fail after this line, except a NaN in U that could not be detected without synchronising
        solved = None if visible(U) else U.isfinite().all()
        self.means.commit(update)
        with torch.no_grad():
            self.prox.copy_(where_valid(solved, prox, self.prox))  # before U, which it may be a view of
            self.U.copy_(where_valid(solved, U, self.U))
            if solved is not None:
                self.know_rotation()
            self.means.count_rejected(None if solved is None else ~solved)
        return weight, bias

    @property
    def weight(self) -> Tensor:
        """Classifier weight in evaluation, shape (C, d), detached: the nearest ETF's rows, see `shrinkage`."""
        return self._shrunk(self.rotation(), self.means.centred(), self.means.occurred, self.evaluation_shrinkage)

    def _shrunk(self, U: Tensor, mean: Tensor, seen: Tensor, s: float) -> Tensor:
        if s == 1:
            return self._weight(U)
        return shrunk_rows(self._weight(U), unit_means(torch.where(seen, mean, 0), self.temperature), s)

    def _solve(self, mean: Tensor, current: Tensor, valid: Tensor | None, *, first: bool) -> tuple[Tensor, Tensor]:
        """Return U and its proximal point; what they were, for a batch that does not count."""
        H = unit_means(mean, self.temperature)
        prox = current.to(H.dtype)
        if first:
            prox = nearest_minimiser(2 * on_frame(H.detach(), self.frame, transpose=True), prox)
        U = self.means.ranks.agreed(nearest_etf(H, prox, self.delta, self.frame, method=self.method))
        return where_valid(valid, U, current), where_valid(valid, prox, self.prox)

    @torch.no_grad()
    def solution(self, solver: Solver | None = None, *, throw: bool = True) -> Solution:
        r"""Solve for the current means with the core, in float64, and certify the answer.

        The problem has :math:`H = \bar H_t/\|\bar H_t\|_F` of the current means and the proximal point of the last
        solve. Right after a training step that solved, ``solution().etf`` and the head's ``U @ frame`` agree up to
        rounding. Between solves (`solve_every`), and once U is frozen, it is what a solve would find now. To grade the
        head's own U, also of an average of models: ``etfopt.certify(solution.problem, head.rotation().numpy())``.

        Parameters
        ----------
        solver, throw : str or Solver, optional; bool
            Which solver, and whether a rejected answer raises: see `etfopt.solve`.

        Returns
        -------
        Solution

        Raises
        ------
        InputError
            If no batch has been seen.
        """
        self.means.raise_rejected()
        if not float(self.means.steps):
            raise InputError("the head has seen no batch, so that there are no class means; train it, or load a state")
        arrays = [None if X is None else X.double().cpu() for X in (self.means.centred(), self.prox, self.frame)]
        H, prox, frame = (None if X is None else X.numpy() for X in arrays)
        unit: Any = unit_means(torch.from_numpy(H), self.temperature).numpy()
        return core.nearest_etf(unit, prox=prox, delta=self.delta, frame=frame, solver=solver, throw=throw)


def _class_means(
    statistics: str, memory: float | None, averaging: str | float | None, **options: Unpack[MeansOptions]
) -> RunningMeans:
    if statistics == "paper":
        if memory is not None:
            raise InputError(
                f"memory = {memory!r} is an option of statistics='running'; leave it out, or pass averaging= instead"
            )
        return PaperClassMeans(averaging="paper" if averaging is None else averaging, **options)
    if averaging is not None:
        raise InputError(
            f"averaging = {averaging!r} is a rule of statistics='paper'; pass that too, or memory= in its place"
        )
    return ClassMeans(**options) if memory is None else ClassMeans(memory=memory, **options)
