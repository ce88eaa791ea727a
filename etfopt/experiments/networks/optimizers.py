r"""Optimisers and learning-rate schedules by configuration: PyTorch's, and automatic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from etfopt._registry import called, takes_any_keyword
from etfopt._scalars import as_positive
from etfopt._torch import BatchNorm
from etfopt.errors import InputError
from etfopt.experiments.settings.names import OPTIMIZERS, is_own

if TYPE_CHECKING:
    from etfopt.experiments.settings import OptimizerConfig, ScheduleConfig

__all__ = ["AGD", "build_optimizer", "build_schedule", "orthogonal_"]


class AGD(torch.optim.Optimizer):
    r"""Automatic gradient descent: no learning rate, from the architecture and the gradient alone.

    With L weights :math:`W_k` of shape :math:`d_k \times d_{k-1}`, gradients :math:`G_k` and
    :math:`s_k = \sqrt{d_k/d_{k-1}}`,

    .. math:: G = \frac1L\sum_k s_k\|G_k\|_F, \qquad \eta = \log\frac{1 + \sqrt{1 + 4G}}{2}, \qquad
              W_k \leftarrow W_k - \text{gain}\,\frac{\eta}{L}\, s_k \frac{G_k}{\|G_k\|_F}.

    A convolution of kernel size a x b is ab matrices, each with :math:`s_k/\sqrt{ab}` for :math:`s_k`, counted as one
    weight. A matrix whose gradient is zero stays as it is. Weights are to start from `orthogonal_`; with another start
    the step sizes are not those of the theory.

    Parameters
    ----------
    params : iterable of Tensor, of any shape with two or more dimensions
        The weights; biases and the parameters of normalisation layers are refused.
    gain : float
        Factor on every step: 1 in the paper's theorems, 10 in Markou et al.'s release. Each group's own.

    Raises
    ------
    InputError
        If a parameter has fewer than two dimensions.

    References
    ----------
    Bernstein, Mingard, Huang, Azizan and Yue (2023), Automatic gradient descent: deep learning without
    hyperparameters, algorithm 1 (arXiv 2304.05187), and its released code for convolutions.

    Examples
    --------
    >>> import torch
    >>> from etfopt.experiments.networks.optimizers import AGD, orthogonal_
    >>> layer = torch.nn.Linear(4, 4, bias=False)
    >>> orthogonal_(layer)
    >>> optimizer = AGD(layer.parameters())
    >>> loss = layer(torch.eye(4)).square().sum()
    >>> loss.backward()
    >>> _ = optimizer.step()
    >>> bool(layer(torch.eye(4)).square().sum() < loss)
    True
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], gain: float = 1.0) -> None:
        super().__init__(params, {"gain": as_positive(gain, "gain")})
        for weight in self._weights():
            if weight.ndim < 2:
                raise InputError(
                    f"AGD moves weight matrices, and a parameter has shape {tuple(weight.shape)}: build the network "
                    "without biases and without affine normalisation"
                )

    def _weights(self) -> list[Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override] # as torch's own
        """Move all weights that have a gradient; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [weight for weight in self._weights() if weight.grad is not None]
        if not moving:
            return loss
        L = len(moving)
        G: Any = sum(_scale(weight) * _norms(weight).sum() for weight in moving) / L
        eta = torch.log((1 + torch.sqrt(1 + 4 * G)) / 2)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    norms = _norms(weight)
                    share = torch.where(norms == 0, 0, group["gain"] * eta * _scale(weight) / (L * norms))
                    _matrices(weight).sub_(share[..., None, None] * _matrices(weight.grad))
        return loss


def _matrices(weight: Tensor) -> Tensor:
    """Return a view of a weight (d_k, d_(k-1), a, b) as matrices (a, b, d_k, d_(k-1))."""
    return weight.permute(*range(2, weight.ndim), 0, 1)


def _norms(weight: Tensor) -> Tensor:
    """Return the Frobenius norms of the gradient's matrices, (a, b)."""
    gradient: Any = weight.grad
    norms: Tensor = torch.linalg.matrix_norm(_matrices(gradient.float() if gradient.dtype.itemsize < 4 else gradient))
    return norms


def _scale(weight: Tensor) -> float:
    """Return s_k, over the square root of the number of matrices."""
    return math.sqrt(weight.shape[0] / weight.shape[1] / math.prod(weight.shape[2:]))


@torch.no_grad()
def orthogonal_(module: nn.Module) -> None:
    r"""Make every weight of a module :math:`s_k` times a random semi-orthogonal matrix, as AGD assumes.

    Draws from the global generator. Parameters with fewer than two dimensions stay as they are.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    """
    for weight in module.parameters():
        if weight.ndim < 2:
            continue
        fresh = torch.empty(weight.shape[2:] + weight.shape[:2], dtype=weight.dtype, device=weight.device)
        for matrix in fresh.flatten(0, -3) if fresh.ndim > 2 else [fresh]:
            nn.init.orthogonal_(matrix)
        _matrices(weight).copy_(_scale(weight) * fresh)


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimiser that a configuration names, over all parameters of a module that take a gradient.

    One of the user's own, named by import path, gets the groups of parameters, ``optimizer.options``, and ``lr`` and
    ``weight_decay`` where it has parameters of these names.

    Parameters
    ----------
    module : nn.Module
        What is trained.
    config : OptimizerConfig
        Name and settings.

    Returns
    -------
    torch.optim.Optimizer
        With two groups where weight decay acts on matrices alone.

    Raises
    ------
    InputError
        If there is no such optimiser, or the settings do not fit it.
    """
    rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    own = {
        "momentum": config.momentum,
        "nesterov": config.nesterov,
        "betas": (config.beta1, config.beta2),
        "gain": config.gain,
    }
    offers = rates if is_own(config.name) else {**rates, **own}
    make, options = OPTIMIZERS.load(config.name), config.options
    if is_own(config.name) and takes_any_keyword(make):
        options = {**rates, **options}
    optimizer = called(make, "optimizer", _groups(module, config), offers=offers, options=options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer.name = {config.name!r} makes no torch.optim.Optimizer, but {optimizer!r}")
    return optimizer


def _groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return one group of all parameters, or a second one, without weight decay, of biases and normalisation layers."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    if config.decay == "all":
        return [{"params": trainable}]
    norms = (BatchNorm, nn.LayerNorm, nn.GroupNorm)
    free = {id(p) for m in module.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    free |= {id(p) for p in trainable if p.ndim < 2}
    kept, spared = ([p for p in trainable if (id(p) in free) == out] for out in (False, True))
    groups: list[dict[str, Any]] = [{"params": kept}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_schedule(
    optimizer: torch.optim.Optimizer, config: ScheduleConfig, epochs: int, epoch_steps: int = 1
) -> lr_scheduler.LRScheduler | None:
    """Return PyTorch's schedule of a configuration, to be stepped after every interval; None where there is none.

    Parameters
    ----------
    optimizer : Optimizer
    config : ScheduleConfig
    epochs : int
        Length of the run.
    epoch_steps : int
        Intervals in an epoch: 1, or the number of its batches.

    Returns
    -------
    LRScheduler or None
        None for a constant rate without warm-up, and for AGD.

    Raises
    ------
    InputError
        If the optimiser has no learning rate to change.
    """
    total, warmup = epochs * epoch_steps, round(config.warmup * epoch_steps)
    if config.name == "constant" and not warmup:
        return None
    if any("lr" not in group for group in optimizer.param_groups):
        raise InputError(f"{type(optimizer).__name__} has no learning rate; use schedule.name = 'constant', no warm-up")
    main: lr_scheduler.LRScheduler
    if config.name == "cosine":
        main = lr_scheduler.CosineAnnealingLR(optimizer, total - warmup)
    else:
        after = [round(epoch * epoch_steps) - warmup for epoch in config.milestones]
        main = lr_scheduler.MultiStepLR(optimizer, after, config.decay)
    if not warmup:
        return main
    # the first step already takes the share 1/(warmup + 1)
    rise = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, main], [warmup])
