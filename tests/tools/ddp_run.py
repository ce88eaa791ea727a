"""A short run on as many processes as the launcher started, of a network whose layers see one sample at a time.

A script for torchrun: it is given a folder, trains a run for every head in it, and resumes a copy of the last one from
its first epoch.
"""

import os
import shutil
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

from etfopt.experiments.data import Images, load_images
from etfopt.experiments.settings import HEADS, DataConfig, TrainConfig
from etfopt.experiments.training import train as training


def plain(_config: object, images: torch.Tensor, *_: object) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 16), nn.Tanh(), nn.Linear(16, 12)).double()


def data() -> Images:
    """Digits with a tail in float64, a number of them that leaves unequal shares."""
    images = load_images(DataConfig(name="digits", imbalance="exp", imbalance_factor=0.4))
    for split, n in ((images.train, 601), (images.test, 99)):
        split.pixels, split.labels = (x[:n] for x in split.tensors)
        split.pixels, split.mean = split.pixels.double(), None
    return images


def config(head: str, epochs: int = 2) -> TrainConfig:
    settings = {"head.name": head, "training.epochs": epochs, "training.batch_size": 101, "backbone.dim": 12}
    return TrainConfig().with_settings(settings)


def run(path: Path, head: str, **options) -> training.RunResult:
    with mock.patch.object(training, "build_backbone", plain):
        return training.train(config(head), path, images=data(), accelerator="cpu", precision="64-true", **options)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    machine = {"devices": int(os.environ["WORLD_SIZE"]), "strategy": "ddp"}
    for head in HEADS:
        run(folder / head, head, **machine)
    resumed = folder / "resumed"
    if os.environ["RANK"] == "0":
        shutil.copytree(folder / "nearest", resumed)
        (resumed / "checkpoints" / "epoch-0002.ckpt").unlink()
    dist.barrier()
    result = run(resumed, "nearest", resume=True, **machine)
    assert result.trained == 1


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the launcher and of Lightning, not of the run
    main(Path(sys.argv[1]))
