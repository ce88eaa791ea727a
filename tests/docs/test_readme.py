"""The README runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.tools.terminal import run_forked

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = "".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)).splitlines()


def test_the_readme_has_code_to_run() -> None:
    assert len(PYTHON) >= 2
    assert len(SHELL) >= 4


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_of_the_readme_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_etfopt_commands_of_the_readme_run_in_order(tmp_path: Path) -> None:
    commands = [line.split("#")[0].split() for line in SHELL if line.startswith("etfopt ")]
    assert commands
    for command in commands:
        done = run_forked(*command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {line.split()[1] for line in SHELL if line.startswith("make ")}
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
