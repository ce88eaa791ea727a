"""The tables of runs in sessions, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etfopt.experiments.studies._cells import number_text, plain, spread_text, table_text
from etfopt.experiments.studies._numbers import Spread
from etfopt.experiments.studies._sessions import SESSION_QUANTITIES, accuracy_curves

if TYPE_CHECKING:
    from etfopt.experiments.studies.report import Report


def session_tables(report: Report) -> list[str]:
    """Return headings and tables: the quantities of the sessions, and the accuracy after each of them."""
    curves = accuracy_curves(report.collected.runs)
    count = max((len(run) for runs in curves.values() for run in runs), default=0)
    medians = {name: [Spread.of(column) for column in zip(*runs, strict=True)] for name, runs in curves.items() if runs}
    summary = [
        [plain(name), str(len(report.values[name])), *(spread_text(row[key], "percent") for key in SESSION_QUANTITIES)]
        for name, row in report.spreads.items()
    ]
    return [
        "## Accuracy over the sessions\n\nTest top-1 on all classes so far; median over seeds, and range. The average "
        "is over all sessions, the base session included. Older classes are those of earlier sessions, newest classes "
        "those of the session: both averaged over the sessions after the base. Forgetting is, averaged over all "
        "sessions but the last, the highest accuracy on the session's classes after any session but the last, minus "
        "that after the last one (Chaudhry et al., 2018).",
        table_text(["variant", "seeds", *SESSION_QUANTITIES.values()], summary),
        "## After every session\n\nTest top-1 on all classes so far, median over seeds; 0 is the base session.",
        table_text(
            ["variant", *map(str, range(count))],
            [[plain(name), *(number_text(x.median, "percent") for x in row)] for name, row in medians.items()],
        ),
    ]
