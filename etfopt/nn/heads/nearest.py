r"""The paper's head: the simplex ETF nearest to the running class means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor, nn

from etfopt import solution as core
from etfopt._torch import require_finite
from etfopt.errors import InputError
from etfopt.nn._renamed import takes_old_options
from etfopt.nn._targets import rows
from etfopt.nn.functional import polar_factor
from etfopt.nn.heads._following import FollowingHead
from etfopt.nn.heads._framed import FrameOptions
from etfopt.nn.heads._growth import columns
from etfopt.nn.heads._weighting import reindexed
from etfopt.problem import NearestETF
from etfopt.solution import Solution

if TYPE_CHECKING:
    from etfopt.solvers.base import Solver

__all__ = ["NearestETFHead"]


@takes_old_options
class NearestETFHead(FollowingHead):
    r"""The simplex ETF, or another frame, nearest to the running class means, at every training step.

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
        d and C; d must be at least the frame's number of rows. With C > d + 1 the frame is no simplex, see `frame`.
    delta : float
        Proximal weight, at least 0. It makes U unique and keeps it near the previous one; 1e-3 is the paper's.
    statistics : "running" or "paper"
        How the class means are kept: "running" is `ClassMeans`, "paper" are the rules of the paper's release to the
        letter, `PaperClassMeans`, with its square frame and tau = 5 as defaults.
    memory : float, optional
        With "running": the number of samples of a class after which its mean has forgotten an old one; default 64.
    averaging : "paper", "cumulative" or float, optional
        With "paper": how the class means are averaged over batches, see `PaperClassMeans`.
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
    class_weights : Tensor or array_like of shape (C,), or "counts", optional
        How much each class counts where U is found: the problem is
        :math:`\sum_c w_c\|h_c - Uf_c\|^2 + \frac\delta2\|U - U_{prox}\|^2`. Default: 1 each, the paper's. "counts" are
        the numbers of samples so far. A class of weight 0, or never seen, does not pull. Weights are scaled to the mean
        1 over the classes that count, so that `delta` keeps its meaning. H is then centred by the weighted mean of the
        class means and has the weighted norm 1: U is the best of all rotations *and shifts* of the frame. A class that
        is added later has the mean weight of those before it.
    synchronize : bool or ProcessGroup
        Whose batches count under torch.distributed, see `ClassMeans`. All ranks hold the same U.
    **options
        ``temperature``, ``ignore_index``, ``device``, ``dtype``: see `Head`; ``frame``, ``reduced``, ``counts``,
        ``capacity``: see `FixedETFHead`. With a pair of frames U is fitted to the first one and W has the second one.
        For SELI, ``class_weights="counts"`` are the natural weights. With a `capacity`, classes that are not there
        yet have no part in the problem; `hold` keeps the vertices of some classes while others are trained.

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

    Only rotations are searched. The vertices of a simplex are all alike; of other frames class c has column c, and
    another order of the columns could lie nearer to the class means: ``etfopt.nearest_etf(H, assign=True)`` looks for
    one.

    There are no parameters: all state is in buffers of float32 or better. The frame is part of the state: a head takes
    the frame of the state that it loads, and refuses a state with a frame if it has none, or the reverse. The other
    arguments are not: build the head with those that it was trained with. ``to_empty()`` from the meta device, and
    ``reset_parameters()``, restore the state of construction.

    Models may be averaged with their buffers (EMA, SWA): the classifier is then the ETF of the rotation nearest to the
    averaged U. Call ``eval()`` on the average before you compile, export or trace it; overwritten since, it gives NaN.

    References
    ----------
    Markou, Ajanthan and Gould (2024), arXiv 2411.01248. What it leads to: ``theory/unconstrained_features.py``; what is
    left of the gradient through U*(H) after t steps: ``theory/fading.py``. Class weights and shifts:
    ``theory/weights.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import NearestETFHead
    >>> head = NearestETFHead(8, 3)
    >>> logits = head(torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    >>> torch.allclose(head.weight @ head.weight.T, 1.5 * torch.eye(3) - 0.5, atol=1e-5)
    True
    """

    @torch.no_grad()
    def _reindex(self, index: list[int]) -> None:
        before, weights = self.U, reindexed(self.class_weights, index)
        super()._reindex(index)
        if self.U is not before:
            self.prox = self.U.clone()
        self.means.take_columns(lambda X: columns(X, index), len(index))
        self.class_weights = weights

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls, linear: nn.Linear, features: Tensor | None = None, **options: Unpack[FrameOptions]
    ) -> NearestETFHead:
        r"""Return a head that starts from a trained layer: its rows, centred, are the first class means.

        Parameters
        ----------
        linear : nn.Linear
            From d features to C classes.
        features : Tensor, shape (n, d), optional
            Features that the layer was trained on, some hundred, all kinds of them: the class means are then theirs, by
            the classes that the layer predicts, and so is the global mean. Pass them if the features have a common
            offset, as behind a ReLU. Without them the bias of the layer is left out.
        **options
            Options of `NearestETFHead`, such as ``temperature`` or ``class_weights``.

        Returns
        -------
        NearestETFHead
            In training mode, on the device of the layer.

        Raises
        ------
        InputError
            If d is too small for the frame, or an argument does not fit.

        Notes
        -----
        A simplex has less freedom than the layer. On scikit-learn's digits, above a 64-128-64 perceptron, the head
        predicts the same class as the layer for 95 % of the test samples with 256 features drawn from all (94 to 96 %,
        8 seeds), and for 93 % without (91 to 96 %). On a test set of other writers it is 91 to 94 % with and without.

        Examples
        --------
        >>> import torch
        >>> from etfopt.nn import NearestETFHead
        >>> linear = torch.nn.Linear(8, 3)
        >>> head = NearestETFHead.from_linear(linear).eval()
        >>> head(torch.randn(5, 8)).shape
        torch.Size([5, 3])
        """
        if not isinstance(linear, nn.Linear):
            raise InputError(f"linear must be a torch.nn.Linear; got {type(linear).__name__}")
        weight = linear.weight.detach()
        require_finite(weight, "linear.weight")
        C, d = weight.shape
        if features is not None:
            features = rows(features, d)
        options.setdefault("device", weight.device)
        head = cls(d, C, **options)
        centred = weight.mT.to(head.U.dtype) - weight.mean(dim=0).to(head.U.dtype)[:, None]
        size = torch.linalg.vector_norm(centred, dim=0).mean()
        head.means.start_from(centred * (head.temperature / head.unit / size if size > 0 else 0))
        if features is not None:
            predicted = linear(features.to(weight.dtype)).argmax(dim=-1)
            head.means(head.normalize(features) / head.unit, predicted)
        head.turn_to_means()
        return head

    @torch.no_grad()
    def solution(self, solver: Solver | None = None, *, throw: bool = True) -> Solution:
        r"""Solve for the current means with the core, in float64, and certify the answer.

        The problem has :math:`H = \bar H_t/\|\bar H_t\|_F` of the current means, the proximal point of the last solve,
        and the head's class weights and held classes. Right after a training step that solved, ``solution().etf`` and
        the head's ``U @ frame`` agree up to rounding. Between solves (`solve_every`), and once U is frozen, it is what
        a solve would find now. To grade the head's own U, also of an average of models:
        ``etfopt.certify(solution.problem, head.rotation().numpy())``.

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
            If no batch has been seen, or the held vertices determine all others.
        """
        self.means.raise_rejected()
        if not float(self.means.steps):
            raise InputError("the head has seen no batch, so that there are no class means; train it, or load a state")
        if self.pinned:
            raise InputError("the held vertices determine all others, so that nothing is solved; call release() first")
        H, weights = self._posed_now(torch.float64)
        at = polar_factor(self.held_at.double()) if self.held and self.held_at is not None else None
        given = (self.prox, self._means_of, weights, at)
        prox, frame, w, U0 = (None if X is None else X.double().cpu().numpy() for X in given)
        problem = NearestETF(
            H.cpu().numpy(), prox, self.delta, frame, weights=w, hold=self.spanning or None, hold_at=U0
        )
        return core.solve(problem, solver, throw=throw)
