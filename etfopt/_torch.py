"""What depends on PyTorch below the bridge and the metrics: validation, precision, and every private name of torch."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves

from etfopt.errors import InputError

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")
BatchNorm = _NormBase


def require_floats(value: object, name: str, shape: tuple[int | str, ...] | None) -> Tensor:
    """Return `value` if it is a dense floating-point tensor of this shape, or raise; None and letters allow any.

    Values are not looked at; see `require_finite`.
    """
    tensor = _as_dense(value, name)
    if shape is not None and (
        tensor.ndim != len(shape)
        or any(isinstance(want, int) and want != got for want, got in zip(shape, tensor.shape, strict=True))
    ):
        wanted = ", ".join(map(str, shape))
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}; it must be ({wanted}{',' * (len(shape) == 1)}): "
            "check dim and num_classes, or reshape it"
        )
    if not tensor.is_floating_point():
        raise InputError(f"{name} has dtype {tensor.dtype}; pass real floating-point numbers, e.g. {name}.float()")
    return tensor


def require_features(features: object, dim: int) -> Tensor:
    """Return `features` if it is a dense floating-point tensor of shape (..., dim), or raise; values are not looked at.

    The last axis is that of one feature; the others number the samples: images, tokens, pixels.
    """
    tensor = require_floats(features, "features", None)
    if tensor.ndim == 2:
        return require_floats(tensor, "features", ("n", dim))
    if tensor.ndim == 0 or tensor.shape[-1] != dim:
        maps = tensor.ndim > 2 and tensor.shape[1] == dim
        remedy = "pass features.movedim(1, -1), with the channels last" if maps else "check dim, or reshape it"
        raise InputError(f"features has shape {tuple(tensor.shape)}; it must be (..., {dim}): {remedy}")
    return tensor


def require_finite(X: Tensor, name: str, largest: float = math.inf) -> None:
    """Raise `InputError` if X is `visible` and holds NaN, infinity or a size above `largest`."""
    if not visible(X) or (largest == math.inf and math.isfinite(float(X.detach().sum()))):
        return  # a finite sum has finite terms
    good = X.isfinite() if largest == math.inf else X.isfinite() & (X.abs() <= largest)
    if not good.all():
        bad = (~good).nonzero()
        first = tuple(bad[0].tolist())
        beyond = "NaN or infinite" if largest == math.inf else f"NaN, infinite or above {largest:g} in size"
        raise InputError(
            f"{name} holds {len(bad)} value(s) that are {beyond}, the first at {first}: {float(X[first].detach())}; "
            "nothing was changed. Remove or rescale them, or look for what made the network diverge"
        )


def require_labels(
    labels: object, shape: int | tuple[int, ...], num_classes: int, ignore_index: int | None = None
) -> Tensor:
    """Return `labels` as int64 if it is an integer tensor of this shape with values in [0, num_classes), or raise.

    A shape of n is (n,). `ignore_index` is one more value that is allowed. The cast comes first: in uint8 the index
    -100 would be 156.
    """
    tensor = _as_dense(labels, "labels")
    wanted = (shape,) if isinstance(shape, int) else tuple(shape)
    found = tuple(tensor.shape)
    if found != wanted or tensor.dtype not in INTEGERS:
        misfit = f"shape {found}; it must be {wanted}: one class index for each row of features"
        misfit = misfit if found != wanted else f"dtype {tensor.dtype}; pass class indices as integers"
        raise InputError(f"labels has {misfit}{_label_remedy(tensor, wanted)}")
    index = tensor.to(torch.int64)
    if tensor.dtype == torch.uint64:
        index = index.masked_fill(index < 0, torch.iinfo(torch.int64).max)  # beyond int64, and so no class
    if visible(index):
        wrong = (index < 0) | (index >= num_classes)
        if wrong.any() and len(bad := (wrong if ignore_index is None else wrong & (index != ignore_index)).nonzero()):
            first = tuple(bad[0].tolist())
            position = first[0] if len(first) == 1 else first
            remedy = "drop the samples to be ignored" if ignore_index is None else f"ignore samples by {ignore_index}"
            raise InputError(
                f"labels holds {tensor[first].numpy()} at position {position}; it must lie in [0, {num_classes}): "
                f"check num_classes, and {remedy}"
            )
    return index


INTEGERS = frozenset(
    getattr(torch, name) for name in ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
)


def _label_remedy(labels: Tensor, wanted: tuple[int, ...]) -> str:
    """Say what labels that are no class indices of this shape seem to be, and how to get class indices from them."""
    found, last = tuple(labels.shape), len(wanted)
    if found == wanted:
        cut = labels.is_floating_point() and visible(labels) and not (labels == labels.round()).all()
        return ". Some are fractions, which labels.long() would cut off" if cut else ", e.g. labels.long()"
    if found == (*wanted, 1):
        return f". They are a column: pass labels.squeeze({last})"
    if not wanted or found[:-1] != wanted or not visible(labels):
        return ""
    rows = labels.to(torch.complex128).real  # of every dtype
    index = f"labels.long().argmax(dim={last})" if labels.dtype == torch.bool else f"labels.argmax(dim={last})"
    if not ((rows == 0) | (rows == 1)).all():
        return f". They look like soft labels: pass {index} here, and the soft labels to the loss only"
    if not (rows.sum(dim=-1) == 1).all():
        return ". They look like several classes a sample, which is not supported: pass one class index a sample"
    return f". They look one-hot: pass {index}"


def _as_dense(value: object, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a torch tensor; got {type(value).__name__}: pass torch.as_tensor({name})")
    if value.layout != torch.strided:
        raise InputError(f"{name} has layout {value.layout}; pass {name}.to_dense()")
    return value


# --- what torch has no public name for, or only one that loads the compiler


def outside_graphs(f: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Run a function uncompiled. `torch.compiler.disable` does the same, and loads the compiler on import."""
    return _disable_dynamo(f)


def constant_in_graphs(f: Callable[[], Output]) -> Callable[[], Output]:
    """Compile the result of a function as a constant. `torch.compiler.assume_constant_result` loads the compiler."""
    f._dynamo_marked_constant = True  # type: ignore[attr-defined] # Dynamo reads this mark
    return f


def tracing() -> bool:
    """Whether torch.jit.trace is at work."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call] # torch's annotations lack it


@constant_in_graphs
def transforms() -> tuple[str, ...]:
    """Return the names of the transforms of torch.func at work, outermost first."""
    return tuple(level.key().name for level in torch._C._functorch.get_interpreter_stack() or [])


def in_forward_mode() -> bool:
    """Whether dual numbers are at work."""
    return forward_ad._current_level >= 0


def differentiated_again() -> bool:
    """Whether somebody may differentiate what a backward pass computes now."""
    return torch.is_grad_enabled() or in_forward_mode()


def in_backward() -> bool:
    """Whether a backward pass is running this code."""
    return torch._C._current_graph_task_id() != -1


def sharded(module: torch.nn.Module) -> bool:
    """Whether FSDP holds the parameters of a module, of either version: they are then other tensors in a forward."""
    return bool(getattr(module, "_is_fsdp_managed_module", False))


def version(X: Tensor) -> int:
    """Return how often X was written to."""
    return X._version


def storage_key(X: torch.UntypedStorage) -> int:
    """Return a number that no other living storage has."""
    return int(X._cdata)


# --- precision


def visible(X: Tensor) -> bool:
    """Whether looking at a value is free: elsewhere it waits for a device, or breaks (or is frozen in) a trace."""
    return X.device.type == "cpu" and readable(X)


def readable(X: Tensor) -> bool:
    """Whether values can be looked at, though that may wait for a device, as decompositions do in any case."""
    # vmap hides values, so they cannot steer Python
    traced = torch.compiler.is_compiling() or tracing()
    return not (traced or torch._C._functorch.is_functorch_wrapped_tensor(X))


def full_precision(X: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products on the device of X keep the digits of their dtype: no autocast, no TF32.

    Graphs and autograd compute outside of it, later: for them there are `working_dtype` and `widened`.
    """
    device = X.device.type
    # to enter a region costs as much as a small product, so only where there is something to leave
    single = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
    if torch.compiler.is_compiling() or not _coarse():
        return single
    regions = ExitStack()
    for region in (single, _Exact()):
        regions.enter_context(region)
    return regions


def working_dtype(X: Tensor) -> torch.dtype:
    """Return the dtype to compute X in: float32 at the least, and float64 in graphs that would round float32."""
    dtype = torch.promote_types(X.dtype, torch.float32)
    graph = torch.compiler.is_compiling() or tracing()
    return torch.float64 if graph and dtype == torch.float32 and _coarse() else dtype


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return float32 in float64 if autograd, which does not know of regions, would round the products of these."""
    if tensors[0].dtype == torch.float32 and _coarse():
        return tuple(X.double() for X in tensors)
    return tensors


@constant_in_graphs
def _coarse() -> bool:
    """Whether products of float32 are rounded, or would be but for a region; a graph that is compiled guards it."""
    return _Exact.depth > 0 or not UNROUNDED.issuperset(_precisions())


class _Exact:
    """A region in which products in float32 are products in float32; the previous setting is restored on exit."""

    lock = threading.Lock()  # a backward pass has threads of its own
    depth = 0
    before: tuple[str, ...] = ()

    def __enter__(self) -> None:
        with _Exact.lock:
            if _Exact.depth == 0:
                _Exact.before = _precisions()
                _set_precisions(EXACT)
            _Exact.depth += 1

    def __exit__(self, *_: object) -> None:
        with _Exact.lock:
            _Exact.depth -= 1
            if _Exact.depth == 0:
                _set_precisions(_Exact.before)


UNROUNDED = frozenset({"ieee", "none"})
EXACT = ("ieee", "ieee")
BACKENDS = ("cuda", "mkldnn")


# the getters and setters behind `torch.backends.cuda.matmul.fp32_precision`, at a tenth of the time
def _precisions() -> tuple[str, ...]:
    return tuple(torch._C._get_fp32_precision_getter(name, "matmul") for name in BACKENDS)


def _set_precisions(values: tuple[str, ...]) -> None:
    for name, value in zip(BACKENDS, values, strict=True):
        # a backend set to "none" follows the setting of all backends, and must do so afterwards
        torch._C._set_fp32_precision_setter(name, "matmul", "none")
        if torch._C._get_fp32_precision_getter(name, "matmul") != value:
            torch._C._set_fp32_precision_setter(name, "matmul", value)
