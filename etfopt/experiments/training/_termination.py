"""SIGTERM during a run: noticed wherever it arrives, obeyed between two batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from etfopt._processes import on_sigterm


class Heed(pl.Callback):
    """Ends a run between two batches once SIGTERM was received.

    Lightning forgets a signal that arrives after the last batch of one of its loops, because the next loop clears its
    flag: a job that was told to stop would continue. Nothing clears this flag.
    """

    received = False

    def receive(self) -> None:
        """Remember a SIGTERM."""
        self.received = True

    def check(self) -> None:
        """Raise Lightning's `SIGTERMException` if SIGTERM was received."""
        if self.received:
            raise SIGTERMException

    def on_fit_start(self, *_: Any) -> None:
        self.check()

    def on_train_batch_start(self, *_: Any) -> None:
        self.check()

    def on_validation_batch_start(self, *_: Any) -> None:
        self.check()


@contextmanager
def heeding_sigterm() -> Iterator[Heed]:
    """Yield a callback that notices every SIGTERM in this block, and exit with status 143 if it stopped the run.

    Python handles signals in the main thread only; in any other the callback does nothing.
    """
    heed = Heed()
    try:
        with on_sigterm(heed.receive):
            yield heed
            heed.check()  # it came after the last batch
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
