"""Every code block of the guides runs as printed."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import ROOT

torch = pytest.importorskip("torch")
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
DOCS = ROOT / "docs"
GENERATED = {"theory", "api", "results", "notebooks", "commands.md", "messages.md"}
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if not GENERATED & set(page.parts)]
BLOCKS = {
    str(page.relative_to(DOCS)): blocks
    for page in PAGES
    if (blocks := re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
}


def test_the_guides_have_code_to_run() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_runs_in_a_namespace_of_its_own(page: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        for number, code in enumerate(BLOCKS[page], 1):
            exec(compile(code, f"{page}, block {number}", "exec"), {"__name__": "block"})


def test_the_program_for_many_processes_runs_as_printed(tmp_path: Path) -> None:
    """It ends with a check that both hold the same ETF."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("this build of PyTorch has no gloo")
    (code,) = BLOCKS["howto/distributed.md"]
    (line,) = re.findall(r"^torchrun (.*)$", (DOCS / "howto/distributed.md").read_text(), re.MULTILINE)
    (tmp_path / "train.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", *line.split()]
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert code.startswith("# train.py\n")
    assert done.returncode == 0, done.stderr


def test_the_study_that_is_shown_is_one() -> None:
    from etfopt.experiments.studies.plan_file import parse_study

    page = (DOCS / "howto" / "study.md").read_text()
    text, tuning = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    study = parse_study(tomllib.loads(text), "heads")
    assert len(study.runs()) == 2 * 2 * len(study.seeds)
    tuned = parse_study(tomllib.loads(text + tuning), "heads")
    assert len(tuned.tuning.runs()) == 2 * 2 * 3 * 2 * len(tuned.tuning.seeds)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    import typer

    from etfopt.cli import app

    commands, text = typer.main.get_command(app).commands, page.read_text()
    assert set(re.findall(r"(?:^|`)etfopt ([a-z]\w*)", text, re.MULTILINE)) <= commands.keys()
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for name, rest in re.findall(r"^etfopt (\w+)([^#\n]*)", shell, re.MULTILINE):
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for page in PAGES:
        for names in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            listed |= {(page.parent / name).with_suffix(".md") for name in names.split("\n") if name and name[0] != ":"}
    assert not set(PAGES) - listed - {DOCS / "index.md"}
