"""Worker processes with time limits, and the signals that reach them and the process that starts them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from etfopt.errors import EtfoptError

START_LIMIT = 120.0
"""Seconds that a process may take to start and to import the functions that it will run."""


class Overtime(EtfoptError, TimeoutError):
    """A call did not return within its limit; the process that ran it was killed."""


class WorkerDied(EtfoptError, ChildProcessError):
    """The process ended during a call."""


class Worker:
    """Runs functions in a process of its own, one at a time.

    The process is a fresh interpreter, started when it is first needed, and replaced when a call takes too long or
    crashes it. Functions and arguments must be importable or picklable. Use it as a context manager, which stops the
    process at its end; in a script, use it under ``if __name__ == "__main__":``.

    """

    def __init__(self) -> None:
        self.generation = 0  # processes started so far; when it changes, caches of the process are cold
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """Return ``function(*arguments)``, computed in the process within `limit` seconds.

        Raises `Overtime` after the limit, and `WorkerDied` if the process ends during the call or cannot be started.
        """
        self.start()
        return self._exchange((function, arguments), limit)

    def start(self) -> None:
        """Start the process, unless it is running."""
        if self._process is not None:
            return
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.generation += 1
        with sigint_blocked():
            self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        try:
            self._exchange(None, START_LIMIT)
        except (Overtime, WorkerDied) as error:
            raise WorkerDied(
                f"the process that runs the solvers cannot be started: {error}. In a script, call it under: "
                "if __name__ == '__main__':"
            ) from error

    def _exchange(self, request: object, limit: float) -> Any:
        assert self._pipe is not None
        try:
            if request is not None:
                self._pipe.send(request)
            if self._pipe.poll(limit):
                return self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise WorkerDied(f"the process ended with exit status {self.stop()}") from error
        except BaseException:
            self.stop()
            raise
        self.stop()
        raise Overtime(f"no answer within {limit:g} s; the process was killed")

    def stop(self) -> int | None:
        """Stop the process, if it is running, and return its exit status."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is None or pipe is None:
            return None
        pipe.close()
        process.join(timeout=0.2)  # a process that has ended, or waits for a request, ends by itself
        process.kill()
        process.join()
        return process.exitcode


def _serve(pipe: Connection[Any, Any]) -> None:
    """Answer requests until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the mask does not do it
    end_with_parent()
    try:
        pipe.send(None)
        while True:
            function, arguments = pipe.recv()
            pipe.send(function(*arguments))
    except (EOFError, ConnectionError):
        return


def end_with_parent() -> None:
    """Make this process exit at once when its parent is gone, also in the middle of a call. Call it in a worker."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Protect processes that are started in this block from Ctrl-C; their parent stops them instead.

    A process inherits the signal mask, so none dies with a traceback during its imports. Ctrl-C during the block
    reaches this process after it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which unblocks the signal if it has to be started first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def on_sigterm(handler: Callable[[], object]) -> Iterator[None]:
    """Call a function at each SIGTERM in this block. Other threads than the main one cannot handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
