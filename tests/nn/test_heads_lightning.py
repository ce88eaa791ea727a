"""The heads under Lightning's callbacks and precisions, which write to buffers without a trace."""

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from etfopt.nn import NearestETFHead

C, D = 4, 7
ETF = (C * torch.eye(C) - 1) / (C - 1)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning has advice on workers and precision


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(D, D), NearestETFHead(D, C)
        self.off: list[float] = []

    def training_step(self, pair, _):
        x, y = pair
        return nn.functional.cross_entropy(self.head(self.backbone(x), y), y)

    def validation_step(self, pair, _):
        logits = self.head(self.backbone(pair[0]))
        W = self.head.weight
        self.off.append(float((W @ W.T - ETF).abs().max()))
        f = self.head.normalize(self.backbone(pair[0]))
        rounding = 100 * torch.finfo(logits.dtype).eps
        torch.testing.assert_close(logits.float(), f.float() @ W.T + self.head.bias, rtol=rounding, atol=rounding)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def fitted(precision: str = "32-true", **options) -> Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, x = Module(), torch.randn(96, D)
        data = DataLoader(TensorDataset(x, torch.arange(96) % C), batch_size=24)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", precision=precision, **quiet, **options)
        trainer.fit(module, data, data)
    return module


@pytest.mark.parametrize("options", [{}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}], ids=["plain", "EMA"])
def test_a_network_that_lightning_averages_is_validated_and_ends_with_an_etf(options):
    module = fitted(callbacks=[WeightAveraging(**options)])
    assert len(module.off) >= 12
    assert max(module.off) < 1e-6
    W = module.head.weight
    torch.testing.assert_close(W @ W.T, ETF, rtol=0, atol=1e-6)
    columns = module.head.U.norm(dim=0)
    assert columns.max() < 1 - 1e-4  # what was averaged is no rotation


def test_under_bf16_true_the_state_is_float32_and_the_classifier_an_etf():
    module = fitted("bf16-true")
    assert module.backbone.weight.dtype == torch.bfloat16
    assert {value.dtype for value in module.head.buffers()} == {torch.float32}
    assert max(module.off) < 1e-6
    assert int(module.head.means.steps) == 12
