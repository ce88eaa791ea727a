"""A device that is none, for what a GPU would refuse or wait for: a script, as PyTorch keeps a new device for good.

Its tensors hold one of the CPU, on which everything is computed. Operations that mix the two devices fail, as on a GPU,
and those that bring values to the host are noted. It writes one JSON object to stdout, for `test_second_device.py`.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from etfopt import InputError
from etfopt.frames import simplex_etf
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from etfopt.nn.functional import etf_distance, nearest_etf
from tests.tools.blind import LOOKS

NAME = "second"
METHODS = ("auto", "svd", "gram", "newton-schulz")
COPIES = ("_to_copy", "copy_")
noted: list[str] = []


class Backend:
    """What PyTorch asks of the module of a device."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda _: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])  # the heads switch autocast off by name


class Away(Tensor):
    """A tensor on the second device; `host` holds its values."""

    @staticmethod
    def __new__(cls, host: Tensor) -> "Away":
        placed = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        return Tensor._make_wrapper_subclass(cls, host.size(), device=torch.device(NAME, 0), **placed)

    def __init__(self, host: Tensor) -> None:
        self.host = host

    def tolist(self) -> Any:  # PyTorch has none for subclasses
        noted.append("tolist")
        return self.host.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Second(TorchDispatchMode):
    """Let functions that make tensors make them on the second device where it is asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        away = any(isinstance(X, Away) for X in tree_leaves((args, kwargs)))
        return compute(func, args, kwargs) if away or device_type(kwargs) == NAME else func(*args, **kwargs)


def device_type(kwargs: dict[str, Any]) -> str | None:
    return None if kwargs.get("device") is None else torch.device(kwargs["device"]).type


def compute(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    name, wanted = func.overloadpacket.__name__, device_type(kwargs)
    given = [X for X in tree_leaves((args, kwargs)) if isinstance(X, Tensor)]
    away = {id(X.host): X for X in given if isinstance(X, Away)}
    if away and name not in COPIES and any(X.dim() for X in given if not isinstance(X, Away)):
        raise RuntimeError(f"{func} was given tensors of two devices")
    to_host = away and (wanted == "cpu" or (name == "copy_" and not isinstance(args[0], Away)))
    if to_host or name in LOOKS or "linalg_eig" in name or "linalg_svd" in name:
        noted.append(name)
    if wanted == NAME:
        kwargs = {**kwargs, "device": "cpu"}
    hosts = tree_map(lambda X: X.host if isinstance(X, Away) else X, (args, kwargs))
    found = func(*hosts[0], **hosts[1])
    if to_host:
        return found
    # what is written in place is what was given
    return tree_map(lambda X: away[id(X)] if id(X) in away else Away(X) if isinstance(X, Tensor) else X, found)


def relative(X: Tensor, Y: Tensor) -> float:
    """Return |X - Y| / |Y| for X on any device; NaN is infinitely far off."""
    return float((X.detach().to("cpu") - Y.detach()).norm() / Y.detach().norm().clamp(min=1e-300)).__abs__()


def watched(f: Callable[[], Any]) -> tuple[Any, list[str]]:
    noted.clear()
    return f(), list(noted)


def means(shape: tuple[int, ...], collapsed: bool) -> Tensor:
    H = torch.randn(shape, dtype=torch.float64)
    return 5 * torch.linalg.qr(H)[0] + 1e-6 * H if collapsed else H


def node(method: str, shape: tuple[int, ...], frame: bool, collapsed: bool) -> dict[str, Any]:
    """Compare U, its gradient and a second derivative with the CPU, and note what waits."""
    C = shape[-1]
    H, prox, G, V = means(shape, collapsed), torch.linalg.qr(torch.randn(shape).double())[0], *torch.randn(2, *shape)
    M = torch.tensor(simplex_etf(C, reduced=True)) if frame else None

    def derivatives(device: str) -> tuple[list[Tensor], list[str]]:
        leaf, P, X, Y = (Z.double().to(device).detach() for Z in (H, prox, G, V))
        leaf.requires_grad_()
        problem = (None, None, M.to(device)) if M is not None else (P, 0.1, None)
        X, Y = (X[..., : C - 1], Y) if M is not None else (X, Y)

        def once() -> tuple[Tensor, Tensor]:
            U = nearest_etf(leaf, *problem, method=method)
            return U, torch.autograd.grad(U, leaf, X)[0]

        found, waited = watched(once)
        U = nearest_etf(leaf, *problem, method=method)
        slope = torch.autograd.grad(U, leaf, X, create_graph=True)[0]
        return [*found, torch.autograd.grad(slope, leaf, Y)[0]], waited

    (here, _), (there, waited) = derivatives("cpu"), derivatives(NAME)
    return {"errors": [relative(X, Y) for X, Y in zip(there, here, strict=True)], "waits": waited}


def weighted(what: str, method: str) -> dict[str, Any]:
    """Do the same for a batch with weights of its own, for held classes and for the distance."""
    drawn = torch.randn(2, 3, 9, 4).double()
    H, w, U0 = drawn[0], drawn[1, :, 0].square(), torch.linalg.qr(drawn[1, 0, :, :3])[0]

    def derivatives(device: str) -> tuple[list[Tensor], list[str]]:
        given = [X.to(device).detach().requires_grad_() for X in (H, w)]
        F, V = (X.to(device) for X in (torch.tensor(simplex_etf(4, reduced=True)), drawn[1]))

        def value() -> Tensor:
            if what == "distance":
                return etf_distance(given[0], F, given[1], method=method)
            held = {"hold": [1], "hold_at": U0.to(device)} if what == "hold" else {}
            return nearest_etf(given[0], frame=F, weights=given[1], method=method, **held).pow(3).sum()

        found, waited = watched(lambda: torch.autograd.grad(value().sum(), given))
        first = torch.autograd.grad(value().sum(), given, create_graph=True)
        return [value(), *found, *torch.autograd.grad((first[0] * V).sum(), given)], waited

    (here, _), (there, waited) = derivatives("cpu"), derivatives(NAME)
    return {"errors": [relative(X, Y) for X, Y in zip(there, here, strict=True)], "waits": waited}


def head(make: type[torch.nn.Module], **options: Any) -> dict[str, Any]:
    """Train a head here and there; then spoil a batch, which must be told of late and change nothing."""
    here, there = make(12, 7, **options).double(), make(12, 7, **options).double()
    there.load_state_dict(here.state_dict())
    there.to(NAME)
    features, labels = torch.randn(32, 12, dtype=torch.float64), torch.arange(32) % 7
    found: dict[str, Any] = {"errors": [], "waits": [], "late": None, "kept": None}
    for step in range(4):
        gradients = []
        for module, device in ((here, "cpu"), (there, NAME)):
            x, y = features.roll(step, 0).to(device).requires_grad_(), labels.roll(step, 0).to(device)
            _, waited = watched(lambda m=module, x=x, y=y: cross_entropy(m(x, y), y).backward())
            gradients.append(x.grad)
        found["waits"] += waited if step > 1 else []  # the first and the second look whether there was a first
        found["errors"].append(relative(gradients[1], gradients[0]))
    found["errors"] += [relative(there.state_dict()[k].double(), v.double()) for k, v in here.state_dict().items()]
    if make is not LearnedHead:
        before = {name: value.to("cpu").clone() for name, value in there.state_dict().items()}
        there(x.detach() * torch.nan, y)
        try:
            there.eval()
        except InputError as error:
            found["late"] = str(error)
        found["kept"] = all(torch.equal(there.state_dict()[name].to("cpu"), value) for name, value in before.items())
    return found


def cases() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for method in METHODS:
        for shape in ((9, 4), (80, 70), (3, 9, 4)):
            for collapsed in (False, True):
                for frame in (False, True):
                    words = (method, "x".join(map(str, shape)), "collapsed" * collapsed, "frame" * frame)
                    results[" ".join(filter(None, words))] = node(method, shape, frame, collapsed)
        results[f"{method} weights"] = weighted("weights", method)
        results[f"{method} distance"] = weighted("distance", method)
        results[f"hold {method}"] = weighted("hold", method)
    for make in (LearnedHead, FixedETFHead):
        results[make.__name__] = head(make)
    for method in METHODS:
        results[f"NearestETFHead {method}"] = head(NearestETFHead, method=method)
    return results


def mixed() -> str | None:
    """Return how the device refuses what a GPU refuses."""
    try:
        torch.zeros(2, device=NAME) + torch.zeros(2)
    except RuntimeError as error:
        return str(error)
    return None


def looked() -> list[str]:
    """Return what is noted of every way to wait that the tests rely on."""
    X = torch.ones(2, 2, device=NAME)
    return watched(lambda: (float(X.sum()), bool(X.any()), X.tolist(), X.to("cpu"), torch.linalg.svd(X)))[1]


def main() -> None:
    torch.manual_seed(0)
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    torch.__future__.set_swap_module_params_on_conversion(True)  # parameters of another class must be new ones
    with Second():
        print(json.dumps({"mixed": mixed(), "looked": looked(), "cases": cases()}))


if __name__ == "__main__":
    main()
