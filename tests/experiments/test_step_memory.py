"""The memory of a training step: counted on one step, without a trace in what is trained."""

import math
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from etfopt.errors import ConvergenceError
from etfopt.experiments.settings import HEADS
from etfopt.experiments.training import _recorder
from etfopt.experiments.training._records import read_lines
from etfopt.experiments.training.results import RunResult
from etfopt.experiments.training.train import train
from tests.tools.runs import small


def weights(result: RunResult) -> list[Tensor]:
    checkpoint = max((result.path / "checkpoints").glob("*.ckpt"))
    return list(torch.load(checkpoint, weights_only=True)["state_dict"].values())


@pytest.mark.parametrize("head", [*HEADS])
def test_a_step_that_is_watched_is_the_same_step(head: str, tmp_path: Path, monkeypatch):
    chosen = small(epochs=1, head__name=head)
    watched = train(chosen, tmp_path / "watched")
    unwatched = mock.MagicMock(peak=7)  # counts nothing
    unwatched.__enter__.return_value = unwatched
    monkeypatch.setattr(_recorder, "Allocations", mock.Mock(return_value=unwatched))
    plain = train(chosen, tmp_path / "plain")
    assert plain.step_bytes == 7
    assert all(map(torch.equal, weights(watched), weights(plain)))


def test_gradients_and_activations_are_counted_and_more_samples_take_more(tmp_path: Path):
    few, many = (train(small(1, training__batch_size=batch), tmp_path / str(batch)) for batch in (64, 512))
    parameters = sum(x.numel() for x in weights(few) if x.is_floating_point())
    assert few.step_bytes > 4 * (64 * 8 + 0.5 * parameters)
    assert many.step_bytes - few.step_bytes > 4 * 448 * (8 + 12)
    lines = read_lines(tmp_path / "64" / "metrics.jsonl")
    assert math.isnan(lines[0]["step_bytes"])
    assert lines[1]["step_bytes"] == few.step_bytes


def test_a_run_of_one_step_has_no_second_to_ask_but_the_next_epoch_has(tmp_path: Path):
    assert math.isnan(train(small(1, training__batch_size=2000), tmp_path / "one").step_bytes)
    longer = train(small(3, training__batch_size=2000), tmp_path / "three")
    known = [line["step_bytes"] for line in read_lines(longer.path / "metrics.jsonl")]
    assert [math.isnan(value) for value in known] == [True, True, False, False]


def test_a_step_that_fails_while_it_is_watched_leaves_no_watch_behind(tmp_path: Path):
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.steps = nn.Linear(64, 12), 0

        def forward(self, images: Tensor) -> Tensor:
            self.steps += self.training
            return self.layer(images.flatten(1)) * (math.nan if self.steps == 2 else 1.0)

    with pytest.raises(ConvergenceError, match="step 2"):
        train(small(1, backbone__name="custom"), tmp_path, backbone=Failing())
    assert _get_current_dispatch_mode() is None
