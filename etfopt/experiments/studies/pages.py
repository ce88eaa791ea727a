"""The report of a study on paper: numbers as JSON, pages as Markdown and HTML, and figures."""

from __future__ import annotations

import gzip
import html
import json
import math
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

from etfopt.experiments.studies._markdown import markdown
from etfopt.experiments.studies._numbers import Collected
from etfopt.experiments.studies._sessions import accuracy_curves, in_sessions
from etfopt.experiments.studies.report import Report
from etfopt.experiments.training._records import write_json
from etfopt.files import make_folder, refuse_occupied, write_atomically
from etfopt.plotting import draw_page, draw_session_page, save

__all__ = ["MEASURES", "REPORT_KEYS", "write_report"]

MEASURES = (
    "train_accuracy",
    "test_accuracy",
    "train_cosine_margin",
    "train_nc1",
    "train_nc2",
    "train_nc3",
    "train_equinorm_difference",
)
"""Panels of a figure, before the sorted margins: the paper's."""

LINES = 7
"""Most lines of one figure: as many as there are colours."""

METRICS = "metrics.jsonl.gz"

REPORT_KEYS = ("study", "runs", "comparisons")
"""Keys by which the numbers of an earlier report are known."""

STYLE = (
    "body{max-width:62rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:#222}"
    "table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}"
    "th,td{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right}"
    "th:first-child,td:first-child{text-align:left}img{max-width:100%}"
)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.json``, ``metrics.jsonl.gz``, figures, ``report.md`` and ``report.html`` into a folder.

    The folder is made if missing. ``metrics.jsonl.gz`` holds every measure of every epoch of every finished run.

    Parameters
    ----------
    report : Report
        The numbers.
    folder : Path
        Folder of the report.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        If it cannot be made, or holds files of these names that are not of an earlier report.
    StorageError
        If a file cannot be written.
    """
    made = [folder / name for name in ("report.json", "report.md", "report.html", METRICS)]
    refuse_occupied([*made, *sorted(folder.glob("curves-*.png"))], REPORT_KEYS, "an earlier report", overwrite=True)
    make_folder(folder)
    write_json(folder / "report.json", report.to_dict())
    write_atomically(folder / METRICS, gzip.compress("".join(_lines(report.collected)).encode(), mtime=0))
    figures = _session_figure(report, folder) if in_sessions(report.collected.study) else _figures(report, folder)
    text = markdown(report, {path.name: caption for path, caption in figures.items()})
    write_atomically(folder / "report.md", text.encode())
    write_atomically(folder / "report.html", as_html(text, report.collected.study.title).encode())
    return [folder / "report.md", folder / "report.html", folder / "report.json", folder / METRICS, *figures]


def _lines(found: Collected) -> Iterator[str]:
    """Give the records of all epochs as lines of JSON, to six digits."""
    for name, runs in found.runs.items():
        for run in runs:
            for record in run.history:
                values = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in record.items()}
                place = {"variant": name, "seed": run.config.seed, "epoch": int(record["epoch"])}
                yield json.dumps({**values, **place}, allow_nan=False) + "\n"


def _session_figure(report: Report, folder: Path) -> dict[Path, str]:
    """Draw the accuracy over the sessions, a panel for every cell of the grid; return the caption."""
    curves = {name: runs for name, runs in accuracy_curves(report.collected.runs).items() if runs}
    cells: dict[str, dict[str, list[list[float]]]] = {}
    for variant in report.collected.study.variants:
        if variant.name in curves:
            cells.setdefault(variant.cell, {})[variant.head or variant.name] = curves[variant.name]
    path, seeds = folder / "curves-1.png", sorted({len(runs) for runs in curves.values()})
    save(draw_session_page(cells), path, dpi=100)
    title = f"accuracy on all classes so far after every session: median and range over {seeds[-1]} seeds"
    return {path: title}


def _figures(report: Report, folder: Path) -> dict[Path, str]:
    """Draw a figure for every cell of the grid, more where it has many variants; return their captions."""
    study, runs = report.collected.study, report.collected.runs
    crossed = any(variant.head for variant in study.variants)
    cells: dict[str, dict[str, str]] = {}
    for variant in study.variants:
        if runs[variant.name]:
            cells.setdefault(variant.cell if crossed else "", {})[variant.head or variant.name] = variant.name
    figures: dict[Path, str] = {}
    for cell, names in cells.items():
        for labels in _shares(list(names)):
            groups = {label: runs[names[label]] for label in labels}
            counts = {len(group) for group in groups.values()}
            seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(counts.pop())
            title = f"{cell + ': ' if cell else ''}median and range over {seeds} seed{'s' * (seeds != '1')}"
            path = folder / f"curves-{len(figures) + 1}.png"
            save(draw_page(groups, MEASURES, title, margins=True), path, dpi=85)
            figures[path] = title
    return figures


def _shares(labels: list[str]) -> list[list[str]]:
    """Divide the curves of a cell among figures of about equal size, each with the first one to compare with."""
    if len(labels) <= LINES:
        return [labels]
    first, *others = labels
    size = math.ceil(len(others) / math.ceil(len(others) / (LINES - 1)))
    return [[first, *others[start : start + size]] for start in range(0, len(others), size)]


def as_html(text: str, title: str) -> str:
    """Return a page of Markdown as one of HTML; markup in it stays text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}</body></html>\n'
