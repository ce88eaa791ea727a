"""Layers measured inside a LightningModule, as docs/howto/measure.md has it, are logged with their values."""

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from etfopt.metrics import LayerMeasures
from tests.tools.layer_cases import C, X, Y, alone, mlp

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning has advice on workers


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = mlp()
        self.layers = LayerMeasures(self.backbone, "[04]", num_classes=C, classifier="5")

    def training_step(self, batch):
        images, labels = batch
        with self.layers.labels(labels):
            return nn.functional.cross_entropy(self.backbone(images), labels)

    def on_train_epoch_end(self):
        self.layers.reset()

    def validation_step(self, batch):
        images, labels = batch
        with self.layers.labels(labels):
            self.backbone(images)

    def on_validation_epoch_start(self):
        self.layers.reset()

    def on_validation_epoch_end(self):
        self.log_dict(self.layers.flat("val/"))
        self.layers.reset()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_lightning_module_logs_the_measures_of_its_layers():
    module, data = Module(), DataLoader(TensorDataset(X, Y), batch_size=16)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet)
    trainer.fit(module, data, data)
    logged, model = trainer.callback_metrics, module.backbone.eval()
    for name, features in {"0": model[0](X), "4": model[:5](X)}.items():
        expected = alone(features, Y)
        for key in ("nc1", "vci", "nc2_means"):
            assert float(logged[f"val/{name}/{key}"]) == pytest.approx(expected[key], rel=1e-4)
    assert "val/5/nc3" in logged
