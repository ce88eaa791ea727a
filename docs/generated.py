"""Pages that are written before the build: the results of published studies, and the commands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

INTRODUCTION = """# Results

What training shows. A study is a file of variants and seeds. The library trains them all, and computes the tables,
paired differences and figures of each page from the runs. Only the findings are written by hand. Each page ends with
the file of its study and the commands that repeat it. Pages of notes describe screenings, and say what they rest on."""

NONE_YET = "No study has been published yet. The planned ones are in `notebooks/studies/`."


@dataclass(frozen=True)
class Page:
    """One published folder of results.

    Attributes
    ----------
    name : str
        Of the folder, and of the study.
    title, question, findings : str
        For the index; question and findings may be empty.
    text : str
        The whole page.
    """

    name: str
    title: str
    question: str
    findings: str
    text: str


def write_results(results: Path, studies: Path, target: Path) -> list[Page]:
    """Write a page of every folder of results, with its pictures beside it, and an index of them all.

    Parameters
    ----------
    results : Path
        A folder a study, each with ``report.md`` or, where no study file made it, ``README.md``.
    studies : Path
        The study files; that of results/NAME is NAME.toml.
    target : Path
        For the pages; what an earlier build left there is removed.

    Returns
    -------
    list of Page
        The summary, then by name.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    pages = []
    folders = (
        sorted(results.iterdir(), key=lambda path: (path.name != "summary", path.name)) if results.is_dir() else []
    )
    for folder in folders:
        page = _page(folder, studies / f"{folder.name}.toml")
        if page is None:
            continue
        (target / page.name).mkdir()
        (target / page.name / "index.md").write_text(page.text)
        for picture in sorted(folder.glob("*.png")):
            shutil.copy(picture, target / page.name)
        pages.append(page)
    (target / "index.md").write_text(_index(pages))
    return pages


def _page(folder: Path, study: Path) -> Page | None:
    """Return the page of a folder; None if it holds nothing to show."""
    if (folder / "report.md").exists():
        plan = json.loads((folder / "report.json").read_text())["study"]
        # the file is what people edit; the plan is what was run
        said = {**plan, **(tomllib.loads(study.read_text()) if study.exists() else {})}
        text = (folder / "report.md").read_text().rstrip() + "\n\n" + _again(folder.name, study)
        return Page(folder.name, *(said.get(key, "").strip() for key in ("title", "question", "findings")), text)
    if (folder / "README.md").exists():
        # what is report.md in the repository is the index of a folder here
        text = (folder / "README.md").read_text().replace("/report.md)", "/index.md)")
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        conclusion = re.search(r"^## Conclusion\n+(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        findings = conclusion[1].strip() if conclusion else ""
        return Page(folder.name, title[1] if title else folder.name, "", findings, text)
    return None


def _again(name: str, study: Path) -> str:
    commands = f"etfopt train notebooks/studies/{name}.toml\netfopt report runs/{name}"
    parts = [
        "## Repeat this study",
        "The first command trains what is missing; stop it at any time and run it again to continue. It ends with this "
        f"page in `runs/{name}/report/`. The second command only writes the page.",
        f"```sh\n{commands}\n```",
    ]
    if study.exists():
        parts += [f"The study, `notebooks/studies/{name}.toml`:", f"````toml\n{study.read_text().rstrip()}\n````"]
    return "\n\n".join(parts) + "\n"


def _index(pages: list[Page]) -> str:
    if not pages:
        return f"{INTRODUCTION}\n\n{NONE_YET}\n"
    entries = [
        "\n\n".join(
            [
                f"## {_plain(page.title)}",
                *([f"*{_plain(page.question)}*"] if page.question else []),
                *([page.findings] if page.findings else []),
                f"[Tables and figures]({page.name}/index.md)",
            ]
        )
        for page in pages
    ]
    names = "\n".join(f"{page.name}/index" for page in pages)
    toctree = f"```{{toctree}}\n:maxdepth: 1\n:hidden:\n\n{names}\n```"
    return "\n\n".join([INTRODUCTION, *entries, toctree]) + "\n"


def _plain(text: str) -> str:
    """Return text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>|#$])", r"\\\1", text)


def write_commands(target: Path) -> None:
    """Write the reference of the command line, as its own help says it."""
    said = ["utils", "docs", "--name", "etfopt", "--title", "Command line", "--output", str(target)]
    subprocess.run([sys.executable, "-m", "typer", "etfopt.cli", *said], check=True, capture_output=True, cwd=ROOT)
