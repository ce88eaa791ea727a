"""Two processes that torchrun started train like one on the same batches, and resume to the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)

from etfopt.experiments.settings import HEADS
from etfopt.experiments.training._checkpoints import load
from etfopt.experiments.training.results import load_run
from tests import ROOT
from tests.tools.ddp_run import run


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "tests.tools.ddp_run", str(folder)]
    device = "lo0" if sys.platform == "darwin" else "lo"
    options = {"env": {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": device}, "cwd": ROOT}
    done = subprocess.run([*torchrun, *script], **options, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("head", [*HEADS])
def test_two_processes_measure_what_one_measures(head: str, together: Path, tmp_path: Path):
    one, two = run(tmp_path, head), load_run(together / head)
    assert len(two.history) == 3
    assert "test_accuracy_tail" in two.history[-1]
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(two.class_means, one.class_means, rtol=0, atol=1e-12)
    np.testing.assert_allclose(two.margins(), one.margins(), rtol=0, atol=1e-12)
    assert one.history[-1]["train_accuracy"] > 0.3  # it learned something to agree on


def test_only_one_process_writes(together: Path):
    for head in HEADS:
        assert len((together / head / "metrics.jsonl").read_text().splitlines()) == 3
        assert (together / head / "environment.json").read_text().count('"date"') == 1


def test_a_run_of_two_processes_is_resumed_to_the_bit(together: Path):
    paths = (together / name / "checkpoints" / "epoch-0002.ckpt" for name in ("nearest", "resumed"))
    whole, resumed = (load(path)["state_dict"] for path in paths)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert load_run(together / "nearest").history == load_run(together / "resumed").history
