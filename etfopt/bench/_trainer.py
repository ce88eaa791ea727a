"""A training loop that is not ours: Hugging Face's Trainer, where it is installed."""

from __future__ import annotations

import tempfile

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from etfopt.bench._loop_problems import Problem, logits_of
from etfopt.errors import require_extra


def require() -> None:
    """Raise `MissingExtraError` unless the Trainer can be imported."""
    require_extra("integrations", "transformers", "accelerate")


class _Model(nn.Module):
    """A network and its head as the Trainer wants them: labels go in, loss and logits come out."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = logits_of(self.head, self.network(inputs), labels)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class _Samples(Dataset[dict[str, Tensor]]):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __len__(self) -> int:
        return len(self.problem.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": self.problem.inputs[index], "labels": self.problem.labels[index]}


def train(problem: Problem, head: nn.Module, *, epochs: int, rate: float, batch: int, seed: int) -> None:
    """Train with the Trainer's defaults: AdamW, and a learning rate that falls to zero linearly."""
    require()
    from transformers import PrinterCallback, Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            learning_rate=rate,
            per_device_train_batch_size=batch,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            logging_strategy="no",
        )
        trainer = Trainer(_Model(problem.network, head), settings, train_dataset=_Samples(problem))
        trainer.remove_callback(PrinterCallback)  # standard output is for the numbers
        trainer.train()
