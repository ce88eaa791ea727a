"""Installed versions and self-checks, for `etfopt doctor` and for bug reports."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from typing import NamedTuple

import numpy as np

from etfopt import __version__
from etfopt._arrays import Array
from etfopt.adjoint import nearest_etf_vjp
from etfopt.problem import NearestETF
from etfopt.solution import solve

D, C, DELTA = 24, 6, 1e-2
"""Shape and proximal weight of the problem that the self-check solves."""


class Extra(NamedTuple):
    """One requirement of an extra, and the version that is installed; empty if none is."""

    extra: str
    requirement: str
    installed: str


@dataclass(frozen=True)
class Check:
    """What a self-check found: a figure that is at most `tolerance` where all is well, or what broke it."""

    name: str
    figure: float
    tolerance: float
    broken: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure is within its tolerance; NaN never is."""
        return not self.broken and self.figure <= self.tolerance


def platform_facts() -> dict[str, str]:
    """Return versions, processor and BLAS, by name."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "etfopt": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors",
        "numpy": np.__version__,
        "scipy": metadata.version("scipy"),
        "NumPy's BLAS": f"{blas['name']} {blas['version']}",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def extras() -> list[Extra]:
    """Return what each extra asks for, from the package's own metadata, with what is installed of it."""
    found = []
    for line in metadata.requires("etfopt") or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ['"]([^'"]+)['"]""", marker)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and extra[1] not in ("all", "dev") and name[0] != "etfopt":
            found.append(Extra(extra[1], requirement.strip(), version_of(name[0])))
    return sorted(found)


def version_of(name: str) -> str:
    """Return the installed version of a package; empty if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def devices() -> list[str]:
    """Return PyTorch's devices with their names; none where PyTorch is missing, or what it says if it does not load."""
    if not version_of("torch"):
        return []
    try:
        torch = import_module("torch")
        names = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    except Exception as error:  # an installation may be broken in any way, and that is what a report is to show
        return [f"torch does not load: {type(error).__name__}: {error}"]
    return [f"cpu ({torch.get_num_threads()} threads)", *names]


def checks() -> list[Check]:
    """Solve, certify and differentiate one small problem, in NumPy and on every device that PyTorch has."""
    rng = np.random.default_rng(0)
    H, prox, (cotangent, direction) = rng.standard_normal((D, C)), np.eye(D, C), rng.standard_normal((2, D, C))
    problem = NearestETF(H, prox=prox, delta=DELTA)

    def gap() -> float:
        return abs(solve(problem).certificate.relative_gap)

    def gradient() -> Array:
        return nearest_etf_vjp(problem, solve(problem).U, cotangent).H

    def slope() -> float:
        def loss(t: float) -> float:
            U = solve(NearestETF(H + t * direction, prox=prox, delta=DELTA)).U
            return float((cotangent * U).sum())

        step = 1e-5
        return abs((loss(step) - loss(-step)) / (2 * step) / float((gradient() * direction).sum()) - 1)

    def torch_error(device: str) -> float:
        torch, functional = import_module("torch"), import_module("etfopt.nn.functional")
        leaf = torch.tensor(H, device=device, requires_grad=True)
        point, G = (torch.tensor(X, device=device) for X in (prox, cotangent))
        functional.nearest_etf(leaf, prox=point, delta=DELTA).backward(G)
        dH = gradient()
        return float(np.linalg.norm(leaf.grad.cpu().numpy() - dH) / np.linalg.norm(dH))

    found = [
        _attempt("relative gap of a certified solve", 1e-13, gap),
        _attempt("gradient against central differences", 1e-7, slope),
    ]
    for device in devices():
        name = f"PyTorch's gradient against NumPy's, {device}"
        found.append(_attempt(name, 1e-10, partial(torch_error, device.split()[0])))
    return found


def _attempt(name: str, tolerance: float, run: Callable[[], float]) -> Check:
    try:
        return Check(name, run(), tolerance)
    except Exception as error:  # as above: the check is to say what broke
        return Check(name, float("nan"), tolerance, f"{type(error).__name__}: {error}")
