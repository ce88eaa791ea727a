"""Ways to see, on the CPU, what else only a GPU does: values that cost a wait, and products in TF32."""

import contextlib
from collections.abc import Iterator
from unittest import mock

MODULES = (
    "etfopt._torch",
    "etfopt.nn.pooling",
    "etfopt.nn.minimiser._single",
    "etfopt.nn._ranks",
    "etfopt.nn.heads._rotation",
    "etfopt.nn._state",
    "etfopt.nn._running",
    "etfopt.nn._targets",
    "etfopt.nn.heads._following",
    "etfopt.nn.polar._node",
    "etfopt.nn.minimiser._held",
    "etfopt.nn._arguments",
)

LOOKS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "bincount", "item")
"""Operations that bring values to the host."""


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """Let every module believe that values cannot be looked at, as on a GPU."""
    with contextlib.ExitStack() as stack:
        for module in MODULES:
            stack.enter_context(mock.patch(f"{module}.visible", return_value=False))
        yield


@contextlib.contextmanager
def coarse() -> Iterator[None]:
    """Round every product of matrices to the eleven binary digits that TF32 has, and float16."""
    from torch.utils._python_dispatch import TorchDispatchMode  # here, so that tests can skip where there is no torch

    class Coarse(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            return found.half().float() if "mm" in func.overloadpacket.__name__ else found

    with Coarse():
        yield


@contextlib.contextmanager
def waits() -> Iterator[list[str]]:
    """Note every operation that brings values to the host, for which a GPU is waited for: looks, decompositions."""
    from torch.utils._python_dispatch import TorchDispatchMode  # here, so that tests can skip where there is no torch

    noted: list[str] = []

    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            if name in LOOKS or "linalg_eig" in name or "linalg_svd" in name:
                noted.append(name)
            return func(*args, **(kwargs or {}))

    with Waits():
        yield noted
