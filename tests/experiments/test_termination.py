"""A job that is told to stop stops, wherever the signal finds it, and keeps what it finished."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from etfopt.experiments.training._termination import heeding_sigterm
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.train import train
from tests.tools.runs import small

# the last point of the first measures, of a step and of an epoch: Lightning itself forgets the first and the last
HOOKS = ("on_validation_epoch_end", "on_train_batch_end", "on_train_epoch_end", "on_fit_end")


@pytest.mark.parametrize("hook", HOOKS)
def test_sigterm_stops_a_run_wherever_it_arrives(digits, tmp_path: Path, monkeypatch, hook: str):
    inner, calls = getattr(Classifier, hook), []

    def signalled(self, *args):
        if not calls:
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append(hook)
        return inner(self, *args)

    monkeypatch.setattr(Classifier, hook, signalled)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as raised:
        train(small(head__name="learned", backbone__dim=9), tmp_path / "run", images=digits)
    assert raised.value.code == 143
    assert calls == [hook]
    assert json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_of_its_own_cannot_hear_signals_and_does_not_try():
    def work() -> bool:
        with heeding_sigterm() as heed:
            return heed.received

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() is False
