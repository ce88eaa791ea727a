"""SIGTERM during a run: noticed wherever it arrives, acted on between two batches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

__all__ = ["Heed", "heeding_sigterm"]


class Heed(pl.Callback):
    """Ends a run between two batches once SIGTERM was received.

    Lightning forgets a signal that arrives after the last batch of one of its loops, since the next loop starts with
    its own mark cleared: a job that was told to stop would go on. This mark is cleared by nobody.
    """

    received = False

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
    """Yield a callback that knows of every SIGTERM in this block, and end with status 143 where it stopped the run.

    Python handles signals in the main thread alone; in any other the callback does nothing.
    """
    heed = Heed()

    def receive(*_: Any) -> None:
        heed.received = True

    if threading.current_thread() is not threading.main_thread():
        yield heed
        return
    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield heed
        heed.check()  # it came after the last batch
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
