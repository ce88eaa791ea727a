"""A way to run, on the CPU, the code that serves where values cannot be looked at."""

import contextlib
from collections.abc import Iterator
from unittest import mock

MODULES = (
    "etfopt._tensors",
    "etfopt.nn._batch",
    "etfopt.nn._ranks",
    "etfopt.nn.class_means",
    "etfopt.nn.heads",
    "etfopt.nn.polar",
)


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """Let every module believe that values cannot be looked at, as on a GPU."""
    with contextlib.ExitStack() as stack:
        for module in MODULES:
            stack.enter_context(mock.patch(f"{module}.visible", return_value=False))
        yield
