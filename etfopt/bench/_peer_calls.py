"""How a peer is called on a problem: what is timed of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from etfopt.errors import require_extra

require_extra("torch", "torch")

import numpy as np
import torch
from torch import Tensor

from etfopt.bench._peer_problems import PeerProblem

__all__ = ["Calls", "Make", "Polar", "arrays_to", "differentiated", "tensors", "tensors_to"]


@dataclass(frozen=True)
class Calls:
    """What is timed of a peer on one problem."""

    forward: Callable[[], Any]  # returns U
    total: Callable[[], tuple[Any, Any]] | None = None  # returns U and dL/dH; None where the peer has no derivative
    second: Callable[[], Any] | None = None  # returns the derivative of dL/dH along `PeerProblem.along`; not timed


Polar: TypeAlias = Callable[[Any], Any]
"""From A to its polar factor, tensors or arrays."""

Make: TypeAlias = Callable[[Any, PeerProblem, torch.device], Calls]
"""From what a peer's import path names, a problem and a device to calls."""


def tensors_to(polar: Callable[[Any], Polar], derivative: bool = True) -> Make:
    """Return what calls a polar factor of tensors on the linear term, and differentiates it by autograd."""

    def make(found: Any, problem: PeerProblem, device: torch.device) -> Calls:
        H, prox, frame, G = tensors(problem, device)
        function, weight = polar(found), float(problem.weight)

        def U(H: Tensor) -> Any:
            if frame is not None:
                return function(H @ frame.mT)
            A = H - H.mean(-1, keepdim=True)
            return function(A if prox is None else torch.add(A, prox, alpha=weight))

        return differentiated(U, problem, H, G) if derivative else Calls(lambda: U(H))

    return make


def differentiated(U: Callable[[Tensor], Any], problem: PeerProblem, H: Tensor, G: Tensor) -> Calls:
    """Return calls of a differentiable function of the class means."""
    leaf = H.clone().requires_grad_()

    def total() -> tuple[Tensor, Tensor]:
        found = U(leaf)
        return found, torch.autograd.grad(found, leaf, G)[0]

    def second() -> Tensor:
        (slope,) = torch.autograd.grad(U(leaf), leaf, G, create_graph=True)
        return torch.autograd.grad(slope, leaf, torch.from_numpy(problem.along).to(H))[0]

    return Calls(lambda: U(H), total, second)


def arrays_to(polar: Callable[[Any], Polar]) -> Make:
    """Return what calls a polar factor of NumPy arrays, which has no derivative, on the linear term."""

    def make(found: Any, problem: PeerProblem, _: torch.device) -> Calls:
        H, prox, frame = problem.H, problem.prox, problem.frame
        function, weight = polar(found), H.dtype.type(problem.weight)

        def forward() -> Any:
            if frame is not None:
                return function(H @ frame.T)
            A = H - H.mean(-1, keepdims=True)
            return function(A if prox is None else A + weight * prox)

        return Calls(forward)

    return make


def tensors(problem: PeerProblem, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Return H, proximal point, frame and cotangent of a problem as tensors."""
    H, prox, frame, G = (
        None if X is None else torch.from_numpy(np.ascontiguousarray(X)).to(device)
        for X in (problem.H, problem.prox, problem.frame, problem.G)
    )
    assert H is not None
    assert G is not None
    return H, prox, frame, G
