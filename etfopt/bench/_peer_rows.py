"""One problem for all peers: their answers judged, then their times, in turn."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Self

from etfopt.errors import InputError, require_extra

require_extra("torch", "torch")

import numpy as np
import torch

from etfopt.bench._peer_calls import Calls
from etfopt.bench._peer_problems import Case, Errors, PeerProblem
from etfopt.bench._peers import OURS, as_peer
from etfopt.bench.node import wait
from etfopt.bench.timing import blocks_in_turn, seconds

__all__ = ["PeerRow", "measure"]

REPEATS = 9
"""Rounds of timed calls, where the time allows them."""

LEAST = 0.5
"""Least seconds for the rounds of a problem, so that short calls are medians of many."""

FAR = 50.0
"""A peer so many times slower than etfopt is timed once."""

NOT_ASKED = "not asked: too large, or a dtype, batch or device that it does not take"


@dataclass(frozen=True)
class PeerRow:
    """A peer on a problem; None where it does not compute a thing, or a ratio would be that of a wrong answer.

    Times are medians in seconds, ratios are medians over the rounds of the peer's time over that of etfopt.
    """

    problem: str
    d: int
    C: int
    batch: int
    dtype: str
    spectrum: str
    term: str
    device: str
    threads: int
    peer: str
    forward: float | None = None  # U alone
    total: float | None = None  # U and dL/dH
    forward_ratio: float | None = None
    ratio: float | None = None  # of forward and backward
    orthonormality: float | None = None
    distance: float | None = None  # from the exact U; see `Errors`
    derivative: float | None = None
    second: float | None = None
    right: bool | None = None  # U and the derivative within the tolerance; None where nothing was computed
    second_right: bool | None = None
    note: str = ""
    failed: bool = False

    @classmethod
    def of(cls, case: Case, peer: str, threads: int, device: str, **found: Any) -> Self:
        """Return a row of a problem, without numbers but those that are given."""
        return cls(
            case.name, case.d, case.C, case.batch, case.dtype, case.spectrum, case.term, device, threads, peer, **found
        )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):  # of packages about themselves, and of SciPy about a hard problem
        yield


@dataclass(frozen=True)
class _First:
    """What is known of a peer before its times: its row, its calls, and the seconds that each took at first."""

    row: PeerRow
    calls: Calls | None = None
    once: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of the slower call; infinite where there is none."""
        return max(self.once.values(), default=math.inf)


@_quiet()
def measure(
    problem: PeerProblem, names: Sequence[str], threads: int = 1, limit: float = 10.0, device: str = "cpu"
) -> list[PeerRow]:
    """Judge and time etfopt and the named peers on a problem, in a process that has so many threads.

    After the first round of calls, none begins that would end after `limit` seconds. A peer is timed once if a call
    takes a quarter of that, or fifty times as long as etfopt's: it would take the time of the others.
    """
    where = torch.device(device)
    rows: dict[str, PeerRow] = {}
    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    taken: dict[tuple[str, str], list[float]] = {}
    first = {
        name: _first(PeerRow.of(problem.case, name, threads, device), problem, where)
        for name in dict.fromkeys((OURS, *names))
    }
    for name, peer in first.items():
        slow = bool(peer.once) and peer.seconds > min(limit / 4, FAR * first[OURS].seconds)
        rows[name] = replace(peer.row, note="timed once") if slow else peer.row
        taken |= {(name, kind): [time] for kind, time in peer.once.items()}
        runs |= {} if slow else {(name, kind): vars(peer.calls)[kind] for kind in peer.once}
    if runs:
        taken |= blocks_in_turn(runs, REPEATS, LEAST, limit, lambda: wait(where), {key: taken[key][0] for key in runs})
    return [_timed(problem, row, taken, rows[OURS]) for row in rows.values()]


def _first(row: PeerRow, problem: PeerProblem, device: torch.device) -> _First:
    """Call a peer once, and judge what it returns."""
    if not as_peer(row.peer).takes(problem, device):
        return _First(replace(row, note=NOT_ASKED))
    _warm_up(row.peer, device)
    try:
        calls, once, errors = _called(problem, row.peer, device)
    except InputError as error:
        return _First(replace(row, note=f"refuses: {error.args[0]}"))
    except Exception as error:  # what fails is a row
        first_line, _, _ = str(error).partition("\n")
        return _First(replace(row, note=f"fails: {type(error).__name__}: {first_line}", failed=True))
    second_right = None if errors.second is None else errors.second <= problem.tolerance
    row = replace(row, **vars(errors), right=problem.right(errors), second_right=second_right)
    return _First(row, calls, once)


def _called(problem: PeerProblem, name: str, device: torch.device) -> tuple[Calls, dict[str, float], Errors]:
    """Return the calls of a peer, the seconds that each takes at first, and the worst errors of what they return."""
    calls = as_peer(name).make(as_peer(name).load(), problem, device)
    found: dict[str, Any] = {}
    once = {}
    for kind in ("forward", "total"):
        if run := vars(calls)[kind]:
            once[kind] = seconds(partial(_keep, found, kind, run), lambda: wait(device))
    errors = problem.errors(_array(found["forward"]))
    if "total" in found:
        errors = errors.worst(problem.errors(*map(_array, found["total"])))
    if calls.second and problem.has_second:
        with suppress(RuntimeError):  # a derivative that cannot be differentiated says so
            errors = replace(errors, second=problem.second_error(_array(calls.second())))
    return calls, once, errors


def _keep(found: dict[str, Any], kind: str, run: Callable[[], Any]) -> None:
    found[kind] = run()


@cache
def _warm_up(name: str, device: torch.device) -> None:
    """Run a peer once on tiny problems, so that imports and first calls are behind it."""
    for dtype in ("float32", "float64"):
        with suppress(Exception):  # it will fail on the real problem too, where that becomes a row
            tiny = PeerProblem(Case(8, 4, dtype))
            if as_peer(name).takes(tiny, device):
                _called(tiny, name, device)


def _array(X: Any) -> Any:
    return X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else np.asarray(X)


def _timed(
    problem: PeerProblem, row: PeerRow, taken: Mapping[tuple[str, str], Sequence[float]], ours: PeerRow
) -> PeerRow:
    """Return a row with its medians, and with ratios where both answers are right."""
    found: dict[str, Any] = {}
    for kind, ratio in (("forward", "forward_ratio"), ("total", "ratio")):
        times, own = taken.get((row.peer, kind)), taken.get((OURS, kind))
        if times is None:
            continue
        found[kind] = statistics.median(times)
        if own and all(_judged(problem, one, kind) for one in (row, ours)):
            if len(times) == len(own):
                found[ratio] = statistics.median(a / b for a, b in zip(times, own, strict=True))
            else:  # one of them was timed once
                found[ratio] = statistics.median(times) / statistics.median(own)
    return replace(row, **found)


def _judged(problem: PeerProblem, row: PeerRow, kind: str) -> bool:
    """Whether what a kind of call returned is right."""
    if row.orthonormality is None or row.distance is None:
        return False
    return problem.right(Errors(row.orthonormality, row.distance, row.derivative if kind == "total" else None))
