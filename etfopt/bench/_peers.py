"""Packages that find the same polar factor, each called as its own documentation would have it.

A peer is a line of `PEERS`: the import path of what it is made of, and a function that turns it into calls. Those
that take tensors need ``tensors_to(...)``, those that take NumPy arrays ``arrays_to(...)``.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from etfopt._registry import Registry
from etfopt.errors import MissingExtraError, require_extra

require_extra("torch", "torch")

import numpy as np
import torch
from torch import Tensor

from etfopt.adjoint import kkt_vjp
from etfopt.bench._peer_calls import Calls, Make, Polar, arrays_to, differentiated, tensors, tensors_to
from etfopt.bench._peer_problems import PeerProblem
from etfopt.bench.units import DELTA
from etfopt.nn.functional import nearest_etf
from etfopt.problem import NearestETF

__all__ = ["OURS", "PEERS", "Peer", "as_peer", "line_up", "package_version"]

OURS = "etfopt"


@dataclass(frozen=True)
class Peer:
    """How a peer is found and called, and what it can be asked."""

    path: str  # "module:attribute", or a module
    make: Make  # from what the path names, a problem and a device to calls
    classes: int = 1000  # the most that it is asked for; more would take minutes, or the memory of the machine
    batches: bool = True
    dtypes: tuple[str, ...] = ("float32", "float64")
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")

    @property
    def module(self) -> str:
        """The top-level module, by whose name the package is known."""
        return self.path.partition(":")[0].partition(".")[0]

    def takes(self, problem: PeerProblem, device: torch.device) -> bool:
        """Whether it is asked for this problem on this device."""
        case = problem.case
        fits = self.classes >= case.C and (self.batches or not case.batch)
        known = case.dtype in self.dtypes and (device.type, case.dtype) != ("mps", "float64")
        return fits and known and device.type in self.devices

    def load(self) -> Any:
        """Import what the path names; raises `ImportError` or `AttributeError`."""
        module, _, attributes = self.path.partition(":")
        found: Any = importlib.import_module(module)
        for name in filter(None, attributes.split(".")):
            found = getattr(found, name)
        return found


def as_peer(name: str) -> Peer:
    """Return a peer by its name, or one's own, a function of a tensor, by its import path."""
    path = _known().checked(name)
    return PEERS.get(path) or Peer(path, tensors_to(lambda polar: polar))


def _known() -> Registry:
    return Registry("peer", {name: peer.path for name, peer in PEERS.items()})


def line_up(names: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Return the peers that are installed, and for each other one why it is left out.

    Parameters
    ----------
    names : sequence of str
        Names of `PEERS`, or import paths ``package.module:function`` of functions of your own, from a tensor A to its
        polar factor. Empty means all that are known.

    Returns
    -------
    there, missing : list of str, dict of str to str

    Raises
    ------
    InputError
        If a name is unknown (the error lists the known ones), or an import path of your own leads nowhere.
    """
    there, missing = [], {}
    for name in dict.fromkeys(names or PEERS):
        peer = as_peer(name)
        if name not in PEERS:
            _known().load(name)
        try:
            with warnings.catch_warnings(action="ignore"):  # of packages about themselves
                peer.load()
            there.append(name)
        except MissingExtraError as error:
            missing[name] = str(error)
        except ModuleNotFoundError:
            missing[name] = "not installed"
        except (ImportError, AttributeError) as error:
            missing[name] = f"not in {peer.module} {package_version(peer.module)}: {error}"
    return there, missing


def package_version(module: str) -> str:
    """Return the version of the package of a top-level module, or "" where it has none."""
    try:
        return version(module)
    except PackageNotFoundError:
        return ""


def _ours(_: Any, problem: PeerProblem, device: torch.device) -> Calls:
    H, prox, frame, G = tensors(problem, device)
    delta = None if prox is None else DELTA
    return differentiated(lambda H: nearest_etf(H, prox, delta, frame), problem, H, G)


def _svd(svd: Any) -> Polar:
    def polar(A: Tensor) -> Any:
        P, _, Qh = svd(A, full_matrices=False)
        return P @ Qh

    return polar


def _square(procrustes: Polar) -> Polar:
    """Roma takes square matrices, and its backward pass needs r^4 numbers: it gets the triangle of a QR."""

    def polar(A: Tensor) -> Any:
        Q, R = torch.linalg.qr(A)
        return Q @ procrustes(R)

    return polar


def _procrustes(procrustes: Any) -> Polar:
    """SciPy's takes matrices of one shape and returns a square one: it gets the triangle of a QR too."""

    def polar(A: Any) -> Any:
        Q, R = np.linalg.qr(A)
        return Q @ procrustes(np.broadcast_to(np.eye(A.shape[-1], dtype=A.dtype), R.shape), R)[0]

    return polar


def _parametrised(Stiefel: Any) -> Polar:
    """Geotorch has a parametrisation and no projection: L-BFGS maximises <A, U> over it, from the Q of a QR."""

    def polar(A: Tensor) -> Any:
        Q, R = torch.linalg.qr(A)
        Q = Q * R.diagonal().sign()
        manifold = Stiefel(A.shape).to(A)
        X = manifold.right_inverse(Q).detach().requires_grad_()
        size = A.norm()
        optimizer = torch.optim.LBFGS(
            [X], max_iter=200, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss() -> Any:
            optimizer.zero_grad()
            value = -(A * manifold(X)).sum() / size
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call] # torch leaves it untyped
        with torch.no_grad():
            return manifold(X)

    return polar


def _trust_region(pymanopt: Any) -> Polar:
    manifolds = importlib.import_module("pymanopt.manifolds")
    solver = importlib.import_module("pymanopt.optimizers").TrustRegions(verbosity=0, min_gradient_norm=1e-10)

    def polar(A: Any) -> Any:
        manifold = manifolds.Stiefel(*A.shape)
        A = A / np.linalg.norm(A)
        cost = pymanopt.function.numpy(manifold)(lambda U: -float((A * U).sum()))
        gradient = pymanopt.function.numpy(manifold)(lambda U: -A)  # noqa: ARG005 - linear
        hessian = pymanopt.function.numpy(manifold)(lambda U, V: 0 * V)  # noqa: ARG005 - linear
        problem = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)
        Q, R = np.linalg.qr(A)
        return solver.run(problem, initial_point=Q * np.sign(np.diag(R))).point

    return polar


def _paper(TrustRegion: Any, problem: PeerProblem, _: torch.device) -> Calls:
    """Rebuild the release's steps: a trust region with autograd's derivatives, then the dense gradient."""
    pipelines = importlib.import_module("etfopt.bench.pipelines")
    solver = TrustRegion(
        max_iterations=pipelines.PAPER_ITERATIONS,
        gradient_tolerance=pipelines.PAPER_TOLERANCE,
        derivatives="autograd",
    )
    H, prox, frame, G = problem.H, problem.prox, problem.frame, problem.G
    start = np.eye(*G.shape) if prox is None else prox

    def forward() -> tuple[NearestETF, Any]:
        posed = NearestETF(H, prox, 0.0 if prox is None else DELTA, frame)
        return posed, solver.run(posed, start).U

    def total() -> tuple[Any, Any]:
        posed, U = forward()
        return U, kkt_vjp(posed, U, G)

    return Calls(lambda: forward()[1], total)


PEERS: Mapping[str, Peer] = {
    OURS: Peer("etfopt.nn", _ours),
    "torch.linalg.polar": Peer("torch:linalg.polar", tensors_to(lambda polar: lambda A: polar(A)[0])),
    "torch.linalg.svd": Peer("torch:linalg.svd", tensors_to(_svd)),
    "scipy.polar": Peer("scipy.linalg:polar", arrays_to(lambda polar: lambda A: polar(A)[0]), devices=("cpu",)),
    "scipy.procrustes": Peer("scipy.linalg:orthogonal_procrustes", arrays_to(_procrustes), devices=("cpu",)),
    "roma": Peer("roma:procrustes", tensors_to(_square), classes=32),
    "geoopt": Peer("geoopt:Stiefel", tensors_to(lambda Stiefel: Stiefel().projx)),
    "geotorch": Peer(
        "geotorch:Stiefel", tensors_to(_parametrised, derivative=False), classes=10, batches=False, dtypes=("float64",)
    ),
    "pymanopt": Peer(
        "pymanopt", arrays_to(_trust_region), classes=100, batches=False, dtypes=("float64",), devices=("cpu",)
    ),
    "paper": Peer(
        "etfopt.solvers.trust_region:TrustRegion", _paper, 10, batches=False, dtypes=("float64",), devices=("cpu",)
    ),
    "gram-newton-schulz": Peer(
        "gram_newton_schulz:GramNewtonSchulz",
        tensors_to(lambda GramNewtonSchulz: GramNewtonSchulz(), derivative=False),
        devices=("cuda",),
    ),
}
"""The peers by name, in the order of the table. etfopt comes first: ratios are of other times over its own."""
