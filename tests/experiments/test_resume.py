"""A run that is killed, at whatever moment, is finished by resuming it, to the last bit as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

if not hasattr(os, "fork") or not Path("/proc/self/fd").exists():
    pytest.skip("the faults need fork and /proc", allow_module_level=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    command = [sys.executable, "-m", "tests.tools.killed_runs", str(tmp_path_factory.mktemp("runs"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_head_was_killed_at_random_moments_and_in_the_middle_of_files(report: dict[str, list]):
    for head in ("learned", "fixed", "nearest"):
        assert f"{head}, at random" in report
        assert sum(case.startswith(f"{head}, amid write .ckpt") for case in report) == 2
    assert len(report) > 20


def test_every_killed_run_was_killed_and_then_finished(report: dict[str, list]):
    for case, (outcomes, _) in report.items():
        assert outcomes[-1] == "finished", case
        if "at random" not in case:
            assert outcomes[:-1] == ["SIGKILL"], case
    killed = [outcomes.count("SIGKILL") for case, (outcomes, _) in report.items() if "at random" in case]
    assert sum(killed) > 0


def test_weights_optimiser_generator_and_every_file_are_those_of_an_uninterrupted_run(report: dict[str, list]):
    assert {case: different for case, (_, different) in report.items() if different} == {}
