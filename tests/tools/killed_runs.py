"""Runs killed by SIGKILL at many moments, some of them in the middle of a file, and resumed until they are finished.

A script: it imports what a run needs once, and forks a process for every start. It writes one JSON object to stdout:
for every case, at how many starts the run was finished and what differs from a run that was not interrupted.
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from etfopt import _atomic
from etfopt.experiments.data import load_images
from etfopt.experiments.settings import HEADS, DataConfig, TrainConfig
from etfopt.experiments.training import _checkpoints
from etfopt.experiments.training import train as training
from etfopt.experiments.training._checkpoints import load
from etfopt.experiments.training._means import read_means
from etfopt.experiments.training._recorder import COST
from etfopt.experiments.training._records import read_lines

EPOCHS = 3
IMAGES = load_images(DataConfig(name="digits"))


def with_dropout(_config: object, images: torch.Tensor, *_: object) -> nn.Module:
    """A network that draws from the global generator at every step."""
    inside = images[0].numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(inside, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 12))


training.build_backbone = with_dropout


def config(head: str) -> TrainConfig:
    settings = {"head.name": head, "training.epochs": EPOCHS, "training.batch_size": 256, "backbone.dim": 12}
    return TrainConfig(seed=5).with_settings(settings)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Fault:
    """Kills its process at the `count`-th write of a file whose name ends so: before, amid or after it."""

    def __init__(self, ending: str, when: str, count: int) -> None:
        self.ending, self.when, self.left = ending, when, count

    def install(self) -> None:
        write = _atomic.write_through

        def faulty(descriptor: int, content: bytes) -> None:
            name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            self.left -= name.replace(".part", "").endswith(self.ending)
            if self.left or not name.replace(".part", "").endswith(self.ending):
                return write(descriptor, content)
            if self.when == "amid":
                write(descriptor, content[: len(content) // 2])
            elif self.when == "after":
                write(descriptor, content)
            return die()

        _atomic.write_through = faulty


class Unlinking:
    """Kills its process where an old checkpoint would be removed: the new one is in place, and nothing after it."""

    def install(self) -> None:
        _checkpoints.Path.unlink = lambda *_args, **_options: die()


FAULTS = [
    *(Fault(".ckpt", when, count) for when in ("before", "amid", "after") for count in (1, 2)),
    *(Fault(f"epoch-000{epoch}.json", when, 1) for when in ("before", "amid", "after") for epoch in (1, 2)),
    *(Fault("metrics.jsonl", when, 2) for when in ("before", "amid", "after")),
    *(Fault("class_means_by_epoch.npy", when, 2) for when in ("before", "amid", "after")),
    *(Fault(name, "amid", 1) for name in ("config.json", "environment.json", "history.json")),
]


def start(head: str, path: Path, prepare: Callable[[], None]) -> int:
    """Start or resume a run in a process of its own; return its id."""
    if child := os.fork():
        return child
    status = 1
    try:
        prepare()
        training.train(config(head), path, images=IMAGES, resume=True)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(child: int) -> str:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return "finished" if os.WEXITSTATUS(status) == 0 else "failed"


def content(path: Path) -> dict[str, object]:
    """Everything of a finished run that must not depend on interruptions."""
    last = load(path / "checkpoints" / f"epoch-{EPOCHS:04d}.ckpt")
    recorder = last["callbacks"].pop("Recorder")
    tensors = {**last["state_dict"], **{f"margin {k}": v for k, v in recorder["margins"].items()}}
    for i, state in last["optimizer_states"][0]["state"].items():
        tensors |= {f"optimizer {i} {k}": v for k, v in state.items() if isinstance(v, torch.Tensor)}
    tensors["generator"] = last["callbacks"]["RandomStates"]["states"][0]["torch"]
    digests = {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()}
    lines = [{k: v for k, v in line.items() if k not in COST} for line in read_lines(path / "metrics.jsonl")]
    means = read_means(path / "class_means_by_epoch.npy", EPOCHS + 1)
    margins = np.load(path / "margins.npz")
    return {
        **digests,
        "rates": last["lr_schedulers"][0]["_last_lr"],
        "history": recorder["history"],
        "lines": lines,
        "written history": json.loads((path / "history.json").read_text())["epochs"],
        "class means": hashlib.sha256(means.tobytes()).hexdigest(),
        "last means": hashlib.sha256(np.load(path / "class_means.npy").tobytes()).hexdigest(),
        "margins": [hashlib.sha256(margins[split].tobytes()).hexdigest() for split in ("train", "test")],
        "files": sorted(file.name for file in path.rglob("*") if "tensorboard" not in str(file)),
    }


def differences(path: Path, whole: dict[str, object]) -> list[str]:
    try:
        found = content(path)
    except Exception as error:  # what is wrong must reach the test
        return [repr(error)]
    return [key for key in {*found, *whole} if found.get(key) != whole.get(key)]


def at_random(head: str, path: Path, seconds: float, rng: random.Random) -> list[str]:
    """Kill a run after random times, until it is finished."""
    outcomes: list[str] = []
    while not outcomes or (outcomes[-1] == "SIGKILL" and len(outcomes) < 60):
        child = start(head, path, lambda: None)
        # longer from start to start: on a busy machine every run still comes to its end
        time.sleep(rng.uniform(0.1, 0.8) * seconds * (1 + len(outcomes) / 8))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        outcomes.append(finish(child))
    return outcomes


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    report: dict[str, object] = {}
    for head in HEADS:
        begun = time.monotonic()
        assert finish(start(head, folder / head, lambda: None)) == "finished"
        seconds, whole = time.monotonic() - begun, content(folder / head)
        for i, fault in enumerate(FAULTS if head == "nearest" else FAULTS[2:4]):
            path = folder / f"{head}-{i}"
            outcomes = [finish(start(head, path, fault.install)), finish(start(head, path, lambda: None))]
            report[f"{head}, {fault.when} write {fault.ending}, {i}"] = [outcomes, differences(path, whole)]
        path = folder / f"{head}-random"
        outcomes = at_random(head, path, seconds, random.Random(0))
        report[f"{head}, at random"] = [outcomes, differences(path, whole)]
        path = folder / f"{head}-unlink"
        outcomes = [finish(start(head, path, Unlinking().install)), finish(start(head, path, lambda: None))]
        report[f"{head}, before the removal of an old checkpoint"] = [outcomes, differences(path, whole)]
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
