"""The notebooks: both files of a pair say the same, outputs are clean, and every notebook runs anew."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

pytest.importorskip("jupytext")
pytest.importorskip("nbclient")
pytest.importorskip("torch")
pytest.importorskip("pymanopt")
pytest.importorskip("cvxpy")
pytest.importorskip("matplotlib")

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.tools import notebook_runs

SOURCES = notebook_runs.sources()


def written(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_is_a_pair() -> None:
    assert len(SOURCES) >= 3
    found = {path.stem for path in notebook_runs.FOLDER.glob("*.ipynb")}
    assert found == {path.stem for path in SOURCES}
    assert all(re.fullmatch(r"\d\d_\w+", name) for name in found)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_both_files_of_a_pair_have_the_same_cells_and_clean_outputs(source: Path) -> None:
    script, notebook = jupytext.read(source), written(source)
    assert notebook_runs.cells(script) == notebook_runs.cells(notebook)
    assert notebook.metadata["kernelspec"]["name"] == script.metadata["kernelspec"]["name"] == "python3"
    header = script.metadata["jupytext"]
    assert header["formats"] == "ipynb,py:percent"
    assert header["text_representation"]["format_name"] == "percent"
    assert notebook_runs.faults(notebook) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_explains_asserts_and_starts_with_its_title(source: Path) -> None:
    cells = notebook_runs.cells(jupytext.read(source))
    assert cells[0][0] == "markdown"
    assert cells[0][1].startswith("# ")
    code = [text for kind, text in cells if kind == "code"]
    assert sum(text.count("assert ") for text in code) >= 3
    assert len(cells) - len(code) >= 3


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_anew_in_an_empty_folder(source: Path, tmp_path: Path) -> None:
    # a process of its own: what the Jupyter packages warn of in theirs is not for this one to fail on
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.notebook_runs", source.stem, "--out", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / f"{source.stem}.ipynb", as_version=4)
    assert notebook_runs.cells(notebook) == notebook_runs.cells(written(source))
    assert notebook_runs.faults(notebook) == []
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in written(source).cells]


# --- the harness itself --------------------------------------------------------------------------------------------


def ran(*outputs: nbformat.NotebookNode, count: int = 1) -> nbformat.NotebookNode:
    return new_notebook(
        cells=[new_markdown_cell("# T"), new_code_cell("x", execution_count=count, outputs=list(outputs))]
    )


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (new_output("error", ename="ValueError", evalue="no"), "cell 1 ends with ValueError: no"),
        (new_output("stream", name="stderr", text="hm"), "cell 1 writes to the standard error: hm"),
        (new_output("stream", name="stdout", text="in /srv/data/x.npy"), "cell 1 shows an absolute path"),
        (new_output("stream", name="stdout", text="<b>a</b> 1/2/3, n/a, and/or/not"), ""),
        (new_output("display_data", {"text/html": "<a href='/srv/data/x'>"}), "cell 1 shows an absolute path"),
        (new_output("execute_result", {"text/plain": "C:\\data"}, execution_count=1), "cell 1 shows an absolute path"),
        (new_output("stream", name="stdout", text="UserWarning: no"), "cell 1 shows a warning"),
        (new_output("stream", name="stdout", text="Traceback (most recent call last)"), "cell 1 shows a traceback"),
        (new_output("display_data", {"image/png": "A" * 300_000}), "at most 300000 are allowed"),
        (new_output("display_data", {"image/png": "A" * 1000}), ""),
    ],
)
def test_what_must_not_be_shown_is_found(output, fault: str) -> None:
    found = notebook_runs.faults(ran(output))
    assert (fault in found[0]) if fault else (found == [])
    assert "not executed once each" in notebook_runs.faults(ran(count=2))[0]


def test_a_warning_in_a_cell_and_a_false_claim_stop_a_notebook(tmp_path: Path) -> None:
    script = "# %%\nprint(1)\n\n# %%\n{}\n"
    program = (
        "import sys; from pathlib import Path; from tests.tools.notebook_runs import *\n"
        "try:\n    notebook = executed(Path(sys.argv[1]), Path('.'))\n"
        "except CellExecutionError as error:\n    sys.exit(str(error))\n"
        "print(notebook.cells[0].outputs[0].text, notebook.cells[0].id, faults(notebook))"
    )

    def run(line: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "cells.py").write_text(script.format(line))
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"]
        return subprocess.run([*command, "cells.py"], capture_output=True, text=True, check=False, cwd=tmp_path)

    done = run("import etfopt, os; assert os.environ['OMP_NUM_THREADS'] == '1'")
    assert (done.returncode, done.stdout.split()) == (0, ["1", "cell-0", "[]"]), done.stderr
    for line, why in (("import warnings; warnings.warn('hm')", "UserWarning"), ("assert 1 == 2", "AssertionError")):
        done = run(line)
        assert done.returncode == 1
        assert why in done.stderr
