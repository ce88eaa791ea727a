"""How Sphinx builds the documentation: ``make docs``, warnings are errors."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]  # theory/ and generated.py are no installed packages

import generated  # noqa: E402 - after the path
import messages  # noqa: E402 - after the path
import offline  # noqa: E402 - after the path

import etfopt  # noqa: E402 - after the path
from theory import registry  # noqa: E402 - after the path

project = "etfopt"
author = "The etfopt developers"
project_copyright = "2026, The etfopt developers"
version = release = etfopt.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax itself, so that mathematics shows without a network
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks are shown with the outputs that they are kept with
nb_merge_streams = True
smartquotes = False  # --option is no dash
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = f"etfopt {release}"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
SINGLE = (
    "index",
    "install",
    "start",
    "comparison",
    "gallery",
    "cheatsheet",
    "promises",
    "glossary",
    "messages",
    "commands",
)
html_sidebars = {page: [] for page in SINGLE}
html_show_sourcelink = False

autosummary_generate = True
shutil.rmtree(ROOT / "docs" / "api", ignore_errors=True)  # pages of names that are no longer listed are warnings
default_role = "py:obj"  # a name in a docstring is a link where there is such a name
autodoc_typehints = "none"  # the docstrings say types and shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the templates list them
numpydoc_xref_param_type = False


def _write_theory(_app: object) -> None:
    """Make a page of every claim from its docstring."""
    folder = Path(__file__).with_name("theory")
    folder.mkdir(exist_ok=True)
    pages = []
    for claim in registry.claims():
        short = re.split(r"[:,]", claim.title, maxsplit=1)[0]
        sections = {
            "Statement": claim.statement,
            "Assumptions": claim.assumptions,
            "Proof": claim.proof,
            "In the code": claim.used_in,
            "References": claim.references,
        }
        body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
        check = f"## Check\n\n```sh\netfopt verify --claim {claim.id}\n```"
        (folder / f"{claim.id}.md").write_text(f"# {claim.title}\n\n{body}\n\n{check}\n")
        pages.append(f"{short} <{claim.id}>")
    toctree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *pages, "```"])
    (folder / "index.md").write_text(f"{INTRODUCTION}\n\n{toctree}\n")


def _copy_notebooks(_app: object) -> None:
    """Put the notebooks, which lie outside this folder, where Sphinx finds them, under an index."""
    folder = Path(__file__).with_name("notebooks")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in paths:
        shutil.copyfile(path, folder / path.name)
    toctree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *(path.stem for path in paths), "```"])
    (folder / "index.md").write_text(f"{NOTEBOOKS}\n\n{toctree}\n")


INTRODUCTION = """# Theory

The folder `theory/` has a file for every claim that the code rests on. Its docstring, shown here, states and proves the
claim; `etfopt verify` checks it on adversarial cases, and repeats any case from its seed."""


NOTEBOOKS = """# Notebooks

The library at work, with the outputs of one run on the CPU. The folder `notebooks/` has each notebook twice: as a
script to edit, and with outputs. The tests execute them all, and every claim is asserted in its cell."""


def _write_generated(_app: object) -> None:
    """Write the pages of results, commands and messages."""
    notebooks, docs = ROOT / "notebooks", ROOT / "docs"
    generated.write_results(notebooks / "results", notebooks / "studies", docs / "results")
    generated.write_commands(docs / "commands.md")
    messages.write_messages(docs / "messages.md")


def _link_theory(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Make a link of every file of the theory that a docstring cites."""
    lines[:] = [re.sub(r"``theory/(\w+)\.py``", r":doc:`theory/\1.py </theory/\1>`", line) for line in lines]


def _require_offline(app: object, error: Exception | None) -> None:
    """Fail where a page loads anything from another host."""
    found = [] if error else offline.outside(Path(app.outdir))  # type: ignore[attr-defined] # as below
    if found:
        raise RuntimeError("pages load from other hosts: " + "; ".join(found[:5]))


def setup(app: object) -> None:
    """Connect what is written before the build."""
    app.connect("builder-inited", _write_generated)  # type: ignore[attr-defined] # as below
    app.connect("autodoc-process-docstring", _link_theory)  # type: ignore[attr-defined] # as below
    app.connect("builder-inited", _write_theory)  # type: ignore[attr-defined] # Sphinx is not imported for one name
    app.connect("builder-inited", _copy_notebooks)  # type: ignore[attr-defined] # as above
    app.connect("build-finished", _require_offline)  # type: ignore[attr-defined] # as above
