"""The results of the documentation are written from what studies published, and can be made again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

for extra in ("torch", "pytorch_lightning", "matplotlib", "sphinx", "myst_parser"):
    pytest.importorskip(extra)
from etfopt.experiments.studies.pages import write_report
from etfopt.experiments.studies.plan_file import read_study
from etfopt.experiments.studies.report import make_report
from etfopt.experiments.studies.runs import run_study

sys.path.append(str(ROOT / "docs"))
from generated import NONE_YET, write_commands, write_results

STUDY = """
title = "Two heads, one epoch [small]"
question = "Do pages of results build?"
setup = "One epoch of a narrow perceptron on digits."
findings = "Nothing can be told after **one epoch**."
seeds = [0]
base = { "training.epochs" = 1, "backbone.width" = 16, "backbone.dim" = 12 }
variants = [{ name = "nearest" }, { name = "fixed", "head.name" = "fixed" }]
"""
NOTES = "# Notes\n\n## Conclusion\n\nIt was seen.\n\n## Rest\n\nMore, [of a study](../small/report.md).\n"
CONF = """
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies and results as notebooks/ holds them: a trained study, a folder of notes, and one of neither."""
    root = tmp_path_factory.mktemp("notebooks")
    (root / "studies").mkdir()
    (root / "studies" / "small.toml").write_text(STUDY)
    run_study(read_study(root / "studies" / "small.toml"), root / "runs" / "small")
    write_report(make_report(root / "runs" / "small"), root / "results" / "small")
    (root / "results" / "notes").mkdir()
    (root / "results" / "notes" / "README.md").write_text(NOTES)
    (root / "results" / "raw").mkdir()
    (root / "results" / "raw" / "numbers.json").write_text("{}")
    return root


def pages(root: Path, target: Path) -> None:
    write_results(root / "results", root / "studies", target)


def test_a_study_has_a_page_with_its_tables_figures_file_and_commands(published: Path, tmp_path: Path) -> None:
    pages(published, tmp_path / "results")
    text = (tmp_path / "results" / "small" / "index.md").read_text()
    assert text.startswith((published / "results" / "small" / "report.md").read_text().rstrip())
    assert "etfopt train notebooks/studies/small.toml\netfopt report runs/small" in text
    assert STUDY.strip() in text
    assert (tmp_path / "results" / "small" / "curves-1.png").read_bytes()[:4] == b"\x89PNG"


def test_the_index_says_what_each_study_asked_and_found(published: Path, tmp_path: Path) -> None:
    pages(published, tmp_path / "results")
    text = (tmp_path / "results" / "index.md").read_text()
    for said in ("Two heads, one epoch", "*Do pages of results build?*", "Nothing can be told after **one epoch**."):
        assert said in text
    assert "## Notes\n\nIt was seen.\n\n[Tables" in text
    assert "More" not in text
    assert "raw" not in text


def test_the_findings_are_those_of_the_file_as_it_is_now(published: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY.replace("**one epoch**", "so little"))
    write_results(published / "results", tmp_path, tmp_path / "results")
    assert "Nothing can be told after so little." in (tmp_path / "results" / "index.md").read_text()


def test_without_results_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    write_results(tmp_path / "none", tmp_path, tmp_path / "results")
    assert NONE_YET in (tmp_path / "results" / "index.md").read_text()


def test_what_an_earlier_build_left_is_gone(published: Path, tmp_path: Path) -> None:
    pages(published, tmp_path / "results")
    write_results(tmp_path / "none", tmp_path, tmp_path / "results")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["index.md"]


def test_the_pages_build_without_a_warning(published: Path, tmp_path: Path) -> None:
    pages(published, tmp_path / "source" / "results")
    (tmp_path / "source" / "conf.py").write_text(CONF)
    (tmp_path / "source" / "index.md").write_text("# Top\n\n```{toctree}\nresults/index\n```\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", tmp_path / "source", tmp_path / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "results" / "small" / "index.html").read_text()
    assert "<table" in page
    assert 'curves-1.png"' in page
    assert "Two heads, one epoch [small]" in page


def test_the_reference_of_the_commands_has_them_all(tmp_path: Path) -> None:
    from etfopt.cli import app

    write_commands(tmp_path / "commands.md")
    text = (tmp_path / "commands.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(names) >= 7
    assert not [name for name in names if f"## `etfopt {name}`" not in text]
