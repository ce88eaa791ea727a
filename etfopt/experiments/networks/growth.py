"""What heads do when a session brings classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from etfopt.errors import InputError
from etfopt.experiments.networks.heads import AnyHead
from etfopt.frames import simplex_etf
from etfopt.nn.heads import Head, NearestETFHead

if TYPE_CHECKING:
    from etfopt.experiments.settings import HeadConfig

__all__ = ["grow"]


def grow(head: AnyHead, k: int, config: HeadConfig, seed: int) -> None:
    """Add k classes to a head in place, by the rule of ``head.growth``.

    "held": old classes keep their rows, and new ones take free vertices of the head's capacity. "least": the head's own
    rule, by which old vertices move as little as they can; `growth_weight` is the class weight of the new ones in the
    steps that follow. "random": old vertices move as little as they can, the new ones are uniform among the places that
    are left, and no vertex moves until the next classes come.

    Parameters
    ----------
    head : Head
        With parameters and buffers, which are replaced: build the optimiser after it.
    k : int
        Number of new classes.
    config : HeadConfig
        The rule.
    seed : int
        Of rows and vertices that are drawn.

    Raises
    ------
    InputError
        If the head cannot grow so.

    References
    ----------
    The random rule is that of Wang, Yu, Li and Lin (2025), Rethinking continual learning with progressive neural
    collapse, arXiv 2505.24254. How far vertices must move: ``theory/growth.py``.

    Examples
    --------
    >>> from etfopt.experiments.networks.growth import grow
    >>> from etfopt.experiments.settings import HeadConfig
    >>> from etfopt.nn import NearestETFHead
    >>> head = NearestETFHead(8, 3)
    >>> grow(head, 2, HeadConfig(growth="random"), seed=0)
    >>> head.num_classes, head.held
    (5, (0, 1, 2, 3, 4))
    """
    if not isinstance(head, Head):
        raise InputError(
            f"head.name = {config.name!r} cannot take new classes; use a head of etfopt, or derive yours from "
            "etfopt.nn.heads.Head and define _reindex"
        )
    old, drawn = head.num_classes, config.growth == "random"
    if drawn and not isinstance(head, NearestETFHead):
        raise InputError(f"head.growth = 'random' is of the nearest head; got a {type(head).__name__}")
    if isinstance(head, NearestETFHead) and drawn:
        head.release()
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of new rows of a learned head
        head.add_classes(k, hold=config.growth == "held")
    if isinstance(head, NearestETFHead) and drawn:
        _scatter(head, old, torch.Generator().manual_seed(seed))
        head.hold()
    if isinstance(head, NearestETFHead) and config.growth_weight != 1:
        weights = torch.ones(old + k, dtype=torch.float64)
        weights[old:] = config.growth_weight
        head.class_weights = weights / weights.mean()


@torch.no_grad()
def _scatter(head: NearestETFHead, old: int, generator: torch.Generator) -> None:
    """Draw new places for all vertices of a simplex but the first ones, uniformly among those that these leave."""
    d, C = head.dim, head.num_classes
    if d < C - 1:
        raise InputError(f"head.growth = 'random' needs a simplex: d = {d} is below C - 1 = {C - 1}; set backbone.dim")
    F = torch.from_numpy(simplex_etf(C)) if head.frame is None else head.frame.double().cpu()
    basis, _ = torch.linalg.qr(F[:, :old], mode="complete")  # fewer vertices of a simplex than all are independent
    held, free = basis[:, :old], basis[:, old:]
    V = head.rotation().double().cpu() @ held
    drawn = torch.randn(d, free.shape[1], generator=generator, dtype=V.dtype)
    W, R = torch.linalg.qr(drawn - V @ (V.mT @ drawn))
    W = W * R.diagonal().sign()  # uniform
    head.U.copy_(V @ held.mT + (W - V @ (V.mT @ W)) @ free.mT)
    head.prox.copy_(head.U)
