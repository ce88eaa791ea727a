"""What the command line prints of a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etfopt._options import CONFIDENCE, frame_temperature
from etfopt.cli._tables import FOLD, RIGHT, table

if TYPE_CHECKING:
    from rich.table import Table

    from etfopt.frames import Frame, FramePair

Facts = dict[str, Any]


def facts(frame: Frame | FramePair, d: int, *, margin: bool) -> Facts:
    """Return what is known of a frame for d features, by name."""
    common = {"d": d, "C": frame.C, "r": frame.r}
    if isinstance(frame, tuple):
        leads = {"logit_gap": frame.logit_gap, "temperature": frame_temperature(frame.C, 1 - frame.logit_gap)}
        parts = {name: _certified(part, margin) for name, part in (("F_H", frame.F_H), ("F_W", frame.F_W))}
        return {"name": "seli", "reason": frame.reason, **common, **leads, **parts}
    temperature = {"temperature": frame_temperature(frame.C, frame.largest_cosine)}
    return {"name": frame.name, "reason": frame.reason, **common, **_certified(frame, margin), **temperature}


def _certified(frame: Frame, margin: bool) -> Facts:
    known = frame.certificate
    return {
        "largest_cosine": known.largest_cosine,
        "lower_bound": known.lower_bound,
        "bound_dimension": known.d,
        "gap": known.gap,
        "method": known.method,
        "proven": known.proven,
        "rho": frame.margin.rho if margin else None,
        "rho_gap": frame.margin.gap if margin else None,
    }


def frame_table(known: Facts) -> Table:
    """Tabulate the facts of a frame, or of a pair of frames side by side."""
    pair = "F_H" in known
    columns = [known["F_H"], known["F_W"]] if pair else [known]
    rows = [
        ("rows r", [str(known["r"])] * len(columns), "features that it needs"),
        ("largest cosine", [f"{one['largest_cosine']:.10g}" for one in columns], "between two classes"),
        ("lower bound", [f"{one['lower_bound']:.10g}" for one in columns], _bound(columns[0], known["d"])),
        ("gap", [f"{one['gap']:.1e}" for one in columns], "the most that another frame could gain"),
        ("optimal", ["proven" if one["proven"] else "not proven" for one in columns], "smallest largest cosine"),
    ]
    if columns[0]["rho"] is not None:
        meaning = f"one-vs-rest margin, to {max(one['rho_gap'] for one in columns):.1e}"
        rows.append(("rho", [f"{one['rho']:.6g}" for one in columns], meaning))
    said = f"gives each class at least {CONFIDENCE:g} at collapse"
    rows.append(("temperature", [f"{known['temperature']:.4g}", *[""] * (len(columns) - 1)], said))
    headings = {"F_H, for the means": RIGHT, "F_W, to classify": RIGHT} if pair else {"value": RIGHT}
    title = f"Frame of {known['C']} classes in {known['d']} dimensions: {known['name']}"
    cells = [(name, *values, meaning) for name, values, meaning in rows]
    return table(title, {"": FOLD, **headings, "meaning": {"style": "dim"}}, cells)


def _bound(known: Facts, d: int) -> str:
    """Return where a lower bound comes from, and for which dimensions it holds."""
    holds = known["bound_dimension"]
    if holds is None:
        where = "in every dimension"
    elif holds >= d:
        where = f"for d <= {holds}"
    else:
        where = f"for d <= {holds} only"
    return f"{known['method']}, {where}"
