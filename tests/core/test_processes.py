"""A process that runs calls: it is replaced when a call takes too long or brings it down, and it outlives nobody."""

import math
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from etfopt._processes import Overtime, Worker, WorkerDied


def test_a_process_that_overstays_is_killed_and_replaced():
    with Worker() as worker:
        assert worker.call(math.sqrt, 4, limit=10) == 2
        (process,) = multiprocessing.active_children()
        with pytest.raises(Overtime, match=r"within 0\.1 s"):
            worker.call(time.sleep, 60, limit=0.1)
        assert not process.is_alive()
        assert worker.call(math.sqrt, 9, limit=10) == 3
        assert worker.generation == 2
        with pytest.raises(WorkerDied, match="exit status 5"):
            worker.call(os._exit, 5, limit=10)
    assert not multiprocessing.active_children()


def test_a_script_without_its_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from etfopt._processes import Worker\nWorker().start()\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be started: the process ended with exit status 1. In a script, call it under: if" in done.stderr


def test_the_process_ends_in_the_middle_of_a_call_when_its_parent_is_killed():
    code = """
import time
from etfopt._processes import Worker
worker = Worker()
worker.start()
print("started", flush=True)
worker.call(time.sleep, 600, limit=600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.kill()
        # the child holds the other end of this pipe: it ends when the child does
        assert process.communicate(timeout=30)[0] == ""
