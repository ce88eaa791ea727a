"""Execute the notebooks and write them with their outputs: ``python -m tests.tools.notebook_runs [NAME...]``.

A notebook is a pair in ``notebooks/``: ``NAME.py``, which is edited, and ``NAME.ipynb``, which is written from it here.
Every notebook runs in a kernel and a folder of its own, on one thread, and a warning in a cell is an error. What is
written holds no times of execution, no versions and no random identifiers, so that two runs differ in outputs alone.
Pictures are written with a palette, which makes those of 150 dpi small.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

from tests import ROOT

FOLDER = ROOT / "notebooks"

CELL_LIMIT = 120
"""Seconds after which a cell counts as hanging."""

LARGEST = 300_000
"""Bytes of a notebook with its outputs."""

STRICT = (
    "import warnings; warnings.simplefilter('error'); "
    # the kernel's own, at its end: not of a cell
    "warnings.filterwarnings('ignore', category=PendingDeprecationWarning, module='ipykernel')"
)
"""What the kernel executes before the first cell."""

ABSOLUTE = re.compile(r"(?:^|[\s'\"(=:,])(?:/[A-Za-z_][\w.+-]*){2,}|\b[A-Z]:\\\w", re.MULTILINE)
"""A path from the root of a file system; two slashes at least, so that a fraction is none."""

FORBIDDEN = {
    "an absolute path": ABSOLUTE,
    "a traceback": re.compile(r"Traceback \(most recent call last\)"),
    "a warning": re.compile(r"\b\w*Warning: "),
}


def sources() -> list[Path]:
    """Return the notebooks as scripts, in order."""
    return sorted(FOLDER.glob("*.py"))


def cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Return type and source of every cell: what the two files of a pair have in common."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def executed(source: Path, folder: Path) -> NotebookNode:
    """Return the notebook of a script, executed in a folder.

    Raises
    ------
    CellExecutionError
        If a cell raises or warns.
    """
    notebook = jupytext.read(source)
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[
            f"--IPKernelApp.exec_lines={STRICT}",
            "--HistoryManager.enabled=False",
            "--log-level=ERROR",  # it reminds of encryption, and talks to this machine alone
        ],
    )
    with mock.patch.dict(
        os.environ,  # which the kernel inherits
        OMP_NUM_THREADS="1",
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        IPYTHONDIR=str(folder / ".ipython"),  # nobody's own profile
    ):
        client.execute()
    return _without_chance(notebook)


def _without_chance(notebook: NotebookNode) -> NotebookNode:
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    return notebook


def smaller(picture: str) -> str:
    """Return a picture, PNG in base64, with a palette of 256 colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(written := io.BytesIO(), "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def texts(output: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader sees of an output as text."""
    yield output.get("text", "")
    for kind, content in output.get("data", {}).items():
        if not kind.startswith("image/") or kind == "image/svg+xml":
            yield str(content)


def faults(notebook: NotebookNode) -> list[str]:
    """Return what is wrong with a notebook's outputs, a line each."""
    found = []
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"the code cells were not executed once each, from first to last: {counts}")
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {number} ends with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"cell {number} writes to the standard error: {output.text}")
            for text in texts(output):
                shown = [name for name, rule in FORBIDDEN.items() if rule.search(text)]
                found += [f"cell {number} shows {name}: {text}" for name in shown]
    size = len(nbformat.writes(notebook).encode())
    return found + ([f"{size} bytes; at most {LARGEST} are allowed"] if size > LARGEST else [])


def main(arguments: list[str] | None = None) -> int:
    """Execute notebooks by name, all by default, and write them; return 1 if one fails or shows what it must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as 01_nearest_etf; all by default")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the .ipynb files go; notebooks/ by default")
    options = parser.parse_args(arguments)
    known = {path.stem: path for path in sources()}
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"{', '.join(unknown)} not among {', '.join(known)}")
    failed = 0
    for name in options.names or known:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                notebook = executed(known[name], Path(folder))
            except CellExecutionError as error:
                print(f"{name} fails: {error}", file=sys.stderr)
                failed = 1
                continue
        for fault in (wrong := faults(notebook)):
            print(f"{name}: {fault}", file=sys.stderr)
        failed |= bool(wrong)
        target = options.out / f"{name}.ipynb"
        nbformat.write(notebook, target)
        print(f"{target.name}: {time.perf_counter() - begin:.0f} s, {target.stat().st_size // 1000} KB")
    return failed


if __name__ == "__main__":
    sys.exit(main())
