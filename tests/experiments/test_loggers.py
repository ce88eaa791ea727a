"""Loggers of Lightning: they show what was measured, once for each epoch, after a resumption too."""

import csv
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger

from etfopt.errors import InputError, MissingExtraError
from etfopt.experiments.training import loggers
from etfopt.experiments.training.train import RunResult, train
from tests.tools.runs import Stopped, small, stop_after

SMALL = small(epochs=3)


class Mine(CSVLogger):
    """A logger that is named by its import path."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="mine", flush_logs_every_n_steps=1)


def stopped_and_resumed(path: Path, logger: str) -> RunResult:
    """A run that stopped in its second epoch, after it was logged and before its checkpoint, and was resumed."""
    with pytest.raises(Stopped):
        train(SMALL, path, logger=logger, on_epoch=stop_after(1))
    return train(SMALL, path, logger=logger, resume=True)


def same(shown: dict[int, dict[str, float]], result: RunResult) -> None:
    assert list(shown) == [0, 1, 2, 3]
    for record in result.history:
        values = shown[int(record["epoch"])]
        assert values["train/nc1"] == pytest.approx(record["train_nc1"], rel=1e-6)
        assert values["test/etf_distance_means"] == pytest.approx(record["test_etf_distance_means"], rel=1e-6)


def test_a_csv_has_one_line_for_each_epoch(tmp_path: Path):
    result = stopped_and_resumed(tmp_path, "csv")
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    same({int(row["step"]): {k: float(v) for k, v in row.items() if v} for row in rows}, result)
    assert len(rows) == 4
    assert "nearest" in (tmp_path / "csv" / "hparams.yaml").read_text()


def test_tensorboard_shows_what_was_measured(tmp_path: Path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    result = stopped_and_resumed(tmp_path, "tensorboard")
    shown: dict[int, dict[str, float]] = {}
    files = sorted((tmp_path / "tensorboard").glob("events.*"), key=lambda file: file.name.rpartition("-")[2])
    assert len(files) == 2
    for file in files:
        content = file.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            event: Any = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            if event.session_log.status == SessionLog.START:
                shown = {step: values for step, values in shown.items() if step < event.step}
            for value in event.summary.value:
                shown.setdefault(event.step, {})[value.tag] = value.simple_value
    same(shown, result)


def test_a_logger_of_ones_own_is_named_by_its_import_path(tmp_path: Path):
    train(SMALL, tmp_path, logger="tests.experiments.test_loggers:Mine")
    assert len((tmp_path / "mine" / "metrics.csv").read_text().splitlines()) == 5


def test_without_a_name_nothing_is_logged_and_an_overwritten_log_is_gone(tmp_path: Path):
    train(SMALL, tmp_path, logger="csv")
    train(SMALL, tmp_path, overwrite=True)
    assert not any((tmp_path / "csv").iterdir())


@pytest.mark.parametrize(
    ("logger", "error", "message"),
    [
        (
            "tensorbord",
            InputError,
            r"logger = 'tensorbord' is not known; did you mean 'tensorboard'\? choose one of: none, csv",
        ),
        ("nowhere.at:All", InputError, "logger = 'nowhere.at:All': there is no module nowhere"),
        ("wandb", MissingExtraError, "logger = 'wandb' needs wandb; run: pip install wandb"),
    ],
)
def test_a_logger_that_cannot_be_used_is_refused_beforehand(tmp_path: Path, monkeypatch, logger, error, message: str):
    monkeypatch.setattr(loggers, "find_spec", lambda _: None)
    with pytest.raises(error, match=message):
        train(SMALL, tmp_path / "run", logger=logger)
    assert not (tmp_path / "run").exists()
