"""A job that is told to stop stops, wherever the signal finds it, and keeps what it finished."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from etfopt.experiments.settings import BackboneConfig, HeadConfig, TrainConfig, TrainingConfig
from etfopt.experiments.training._termination import heeding_sigterm
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.train import train

# the last point of the first measures, of a step and of an epoch: Lightning itself forgets the first and the last
HOOKS = ("on_validation_epoch_end", "on_train_batch_end", "on_train_epoch_end", "on_fit_end")


@pytest.mark.parametrize("hook", HOOKS)
def test_sigterm_stops_a_run_wherever_it_arrives(tmp_path: Path, monkeypatch, hook: str) -> None:
    inner, calls = getattr(Classifier, hook), []

    def signalled(self, *args):
        if not calls:
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append(hook)
        return inner(self, *args)

    monkeypatch.setattr(Classifier, hook, signalled)
    before = signal.getsignal(signal.SIGTERM)
    small = BackboneConfig(width=8, dim=9)
    config = TrainConfig(backbone=small, head=HeadConfig(name="learned"), training=TrainingConfig(epochs=2))
    with pytest.raises(SystemExit) as raised:
        train(config, tmp_path / "run")
    assert raised.value.code == 143
    assert calls == [hook]
    assert json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_of_its_own_cannot_hear_signals_and_does_not_try() -> None:
    heard = []

    def work() -> None:
        with heeding_sigterm() as heed:
            heard.append(heed.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
