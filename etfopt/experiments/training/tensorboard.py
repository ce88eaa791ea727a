"""A run's measures for TensorBoard, where the package tensorboardX is installed."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

from etfopt.experiments.training.files import Record
from etfopt.files import StorageError, make_folder

__all__ = ["Scalars", "open_scalars"]


class Scalars:
    """TensorBoard's file of a run: one event an epoch, written at once, in this thread.

    The writers that log from a thread of their own wait for ever once that thread has met a full disk.

    Parameters
    ----------
    folder : Path
        Of TensorBoard's files.
    epoch : int
        From which the file counts.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        make_folder(folder)
        self._folder, self._writer = folder, EventsWriter(str(folder / "events"))
        # what an earlier start of the run wrote of this epoch and later ones is not to be shown
        self._write(step=epoch, session_log=SessionLog(status=SessionLog.START))

    def add(self, epoch: int, record: Record) -> None:
        """Write a record; "train_loss" is shown as "train/loss".

        Parameters
        ----------
        epoch : int
            Of the record.
        record : dict
            The numbers; others are left out.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name.replace("_", "/", 1), simple_value=value) for name, value in record.items()]
        self._write(step=epoch, summary=Summary(value=values))

    def _write(self, **content: object) -> None:
        from tensorboardX.proto.event_pb2 import Event

        try:
            self._writer.write_event(Event(wall_time=time.time(), **content))
            self._writer.flush()
        except OSError as error:
            raise StorageError(f"{self._folder}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def open_scalars(folder: Path, epoch: int) -> Scalars | None:
    """Return the file for a run that goes on with an epoch, or None if tensorboardX is not installed.

    Parameters
    ----------
    folder : Path
        Of TensorBoard's files.
    epoch : int
        With which the run goes on.

    Returns
    -------
    Scalars or None
        None if tensorboardX is not installed.
    """
    return None if find_spec("tensorboardX") is None else Scalars(folder, epoch)
