"""Rows of the table of training loops that Lightning runs: averages, accumulation, precision, checkpoints."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.tools.loop_cases import HEADS, C, accuracy, images, network, refit

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning has advice on workers and precision


class Module(lightning.LightningModule):
    def __init__(self, make: type[nn.Module]) -> None:
        super().__init__()
        self.model = network(make)

    def training_step(self, pair, _):
        x, y = pair
        with self.model[1].labels(y):
            return nn.functional.cross_entropy(self.model(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(make: type[nn.Module], batch_size: int = 32, checkpoint: Path | None = None, **options: object) -> Module:
    module, data = Module(make), DataLoader(TensorDataset(*images()), batch_size=batch_size)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(**{"max_epochs": 4, "accelerator": "cpu", **quiet, **options})
    trainer.fit(module, data, ckpt_path=checkpoint)
    if checkpoint is None and "default_root_dir" in options:
        trainer.save_checkpoint(options["default_root_dir"] / "last.ckpt")
    return module


WAYS = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 8, "batch_size": 4},
    "bf16": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", HEADS)
def test_lightning_trains_every_head(make, way):
    assert accuracy(fitted(make, **WAYS[way]).model) > 0.95


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("callback", [WeightAveraging, lambda: EMAWeightAveraging(decay=0.9)], ids=["mean", "EMA"])
def test_an_average_of_lightning_predicts(callback, make):
    assert accuracy(fitted(make, callbacks=[callback()]).model) > 0.95


@pytest.mark.parametrize("make", HEADS)
def test_swa_of_lightning_averages_the_parameters_and_a_pass_refits_the_head(make):
    model = fitted(make, callbacks=[StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)]).model
    before = accuracy(model)
    x, y = images()
    refit(model, [(x, y)])
    assert accuracy(model) >= max(before, 0.95)


@pytest.mark.parametrize("make", HEADS)
def test_a_run_that_is_resumed_ends_as_the_whole_one(make, tmp_path):
    whole = fitted(make)
    fitted(make, max_epochs=2, default_root_dir=tmp_path)
    rest = fitted(make, checkpoint=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(rest.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
    assert whole.model[1].num_classes == C
