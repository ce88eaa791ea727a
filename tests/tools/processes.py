"""Run a function on several processes that talk over gloo on the loopback device, with a deadline that kills them."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

Cases = dict[str, Callable[[int, int], object]]
SHARED = ["torch.distributed.fsdp", "torch._dynamo", "torchmetrics"]
"""What others wrote and most cases import: one process does so for all, which are forked from it."""


def run_cases(cases: Cases, names: list[str], rank: int, size: int, folder: Path) -> None:
    """Run the cases in order and save what each returned, or its traceback."""
    # no host name is looked up: gloo is told the device, and the processes meet at a file
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=20))
    results: dict = {}
    for name in names:
        try:
            results[name] = cases[name](rank, size)
        except Exception:  # what a process raises must reach the test
            results[name] = traceback.format_exc()
        torch.save(results, folder / f"{rank}.part")
        (folder / f"{rank}.part").rename(folder / f"{rank}.pt")
    dist.destroy_process_group()


def on_processes(cases: Cases, size: int, folder: Path, seconds: float = 150) -> list[dict]:
    """Return the results of every rank; after `seconds` the processes are killed and what is there is returned."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SHARED)
    arguments = [(cases, list(cases), rank, size, folder) for rank in range(size)]
    processes = [context.Process(target=run_cases, args=given, daemon=True) for given in arguments]
    deadline = time.monotonic() + seconds
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
    return [torch.load(path, weights_only=False) if path.exists() else {} for path in paths(folder, size)]


def paths(folder: Path, size: int) -> list[Path]:
    return [folder / f"{rank}.pt" for rank in range(size)]
