"""The node beside whatever else finds a polar factor, on the same problems, judged by the same exact answers."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from etfopt.errors import require_extra

require_extra("torch", "torch")

from etfopt._processes import Overtime, Worker, WorkerDied
from etfopt._scalars import as_integer, as_positive
from etfopt.bench._peer_problems import TERMS, Case, PeerProblem, cases
from etfopt.bench._peer_rows import PeerRow, measure
from etfopt.bench._peers import OURS, PEERS, Peer, as_peer, line_up, package_version
from etfopt.bench._surroundings import PARTS, PartRow, measure_part
from etfopt.bench.node import usable_device

__all__ = [
    "OURS",
    "PARTS",
    "PEERS",
    "TERMS",
    "Case",
    "PartRow",
    "Peer",
    "PeerRow",
    "as_peer",
    "bench_peers",
    "cases",
    "line_up",
    "package_version",
]

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Where the libraries below NumPy and PyTorch look for the number of threads when they are loaded."""

PATIENCE = 600.0
"""Seconds beyond twenty times the limit after which the process that works on a problem is killed."""


def bench_peers(
    problems: Sequence[Case],
    peers: Sequence[str],
    parts: Sequence[tuple[str, str]] = (),
    threads: Sequence[int] = (1,),
    limit: float = 60.0,
    device: str = "cpu",
) -> Generator[list[PeerRow] | list[PartRow]]:
    """Judge and time etfopt and peers on each problem, then parts of the library beside their yardsticks.

    Every number of threads has a process of its own, and they take turns, so that a busy moment meets all.

    Parameters
    ----------
    problems : sequence of Case
        See `cases`.
    peers : sequence of str
        Names that `line_up` found; etfopt always runs.
    parts : sequence of pair of str
        Names of `PARTS`, each with one of its sizes.
    threads : sequence of int
        Numbers of threads, each at least 1.
    limit : float
        Seconds for the timed calls of one problem, or of one part; 60 gives some rounds at 2048 x 1000.
    device : str
        A PyTorch name, such as "cpu" or "cuda:1". Peers of NumPy run on the CPU alone.

    Yields
    ------
    list of PeerRow or list of PartRow
        The rows of a problem or a part on one number of threads. A part that needs a package that is not there has
        no row.

    Raises
    ------
    InputError
        If an argument cannot be used.
    WorkerDied
        If a process cannot be started at all.
    """
    limit = as_positive(limit, "limit")
    usable_device(device)
    for count in threads:
        as_integer(count, "threads", at_least=1)
    with ExitStack() as stack:
        workers = {count: stack.enter_context(Worker()) for count in threads}
        for case in problems:
            problem = PeerProblem(case)
            problem.exact  # noqa: B018 - computed here, once for all processes
            for count, worker in workers.items():
                try:
                    yield _call(worker, count, limit, measure, problem, peers, count, limit, device)
                except (Overtime, WorkerDied) as error:
                    yield [PeerRow.of(case, OURS, count, device, note=f"fails: {error}", failed=True)]
        for name, size in parts:
            for count, worker in workers.items():
                row = _call(worker, count, limit, measure_part, name, size, count, limit, device)
                yield [] if row is None else [row]


def _call(worker: Worker, threads: int, limit: float, *call: Any) -> Any:
    with _environment(threads):
        return worker.call(*call, limit=20 * limit + PATIENCE)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Let processes that start in this block load their libraries with so many threads."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
