"""Hooks that keep what layers return during one block, and are gone after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import nn

from etfopt._torch import outside_graphs
from etfopt.errors import InputError
from etfopt.metrics._reading import Seen

CALLS = ("once", "first", "last", "each")

Read: TypeAlias = Callable[[Any, Any], Seen]
"""What to keep of a call, from the first argument of the module and its output."""


@contextmanager
def hooked(modules: Mapping[str, nn.Module], reads: Mapping[str, Read], calls: str) -> Iterator[dict[str, list[Seen]]]:
    """Yield what the modules return inside the block, a list by name; no hook is left behind, whatever happens."""
    kept: dict[str, list[Seen]] = {name: [] for name in modules}
    with ExitStack() as hooks:
        for name, module in modules.items():
            hook = _hook(name, kept[name], reads[name], calls)
            hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield kept


def _hook(name: str, kept: list[Seen], read: Read, calls: str) -> Callable[..., None]:
    @outside_graphs
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if calls == "first" and kept:
            return
        try:
            given = args[0] if args else kwargs.get("features", kwargs.get("input"))
            seen = read(given, output)
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from error
        if calls == "last":
            kept.clear()
        kept.append(seen)

    return hook


def by_call(kept: Mapping[str, list[Seen]], calls: str) -> dict[str, Seen]:
    """Return what was kept of each call by name, or raise where a layer was not called, or too often."""
    if silent := [name for name, seen in kept.items() if not seen]:
        raise InputError(_silence(silent, everywhere=len(silent) == len(kept)))
    if calls == "each":
        several = {name: len(seen) > 1 for name, seen in kept.items()}
        return {f"{name}[{i}]" if several[name] else name: one for name in kept for i, one in enumerate(kept[name])}
    for name, seen in kept.items():
        if len(seen) > 1:
            raise InputError(
                f"layer {name!r} was called {len(seen)} times inside labels(), and one call is expected: run one "
                "forward a block; for a module that a forward uses several times pass calls='first', 'last' or 'each'"
            )
    return {name: seen[0] for name, seen in kept.items()}


def _silence(names: list[str], everywhere: bool) -> str:
    """Say why hooks may not have run."""
    listed = ", ".join(map(repr, names[:5])) + ", ..." * (len(names) > 5)
    remedy = (
        "call the model inside the block"
        if everywhere
        else "leave out layers that this forward does not use, or whose weights are used without a call"
    )
    return (
        f"layers {listed} were not called inside labels(); {remedy}. A compiled or scripted network skips hooks: "
        "call the plain module, not what torch.compile or torch.jit returned"
    )
