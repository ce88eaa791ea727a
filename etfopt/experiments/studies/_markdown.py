"""A study's report as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from etfopt.experiments.studies._cells import ACCURACIES, PERCENT, SPEED, kind_of, plain, spread_text, table_text
from etfopt.experiments.studies._comparisons import Pair
from etfopt.experiments.studies._numbers import COLLAPSE, QUANTITIES, TAILS
from etfopt.experiments.studies._session_tables import session_tables
from etfopt.experiments.studies._sessions import in_sessions
from etfopt.experiments.studies._tried import at_edges, is_chosen, tried_with
from etfopt.experiments.studies.statistics import LEVEL, RESAMPLES, Comparison, Steadiness

if TYPE_CHECKING:
    from etfopt.experiments.studies.report import Report

COST = ("step_ms", "step_mib", "head_kib")


def markdown(report: Report, figures: Mapping[str, str]) -> str:
    """Return the page."""
    study = report.collected.study
    parts = [
        f"# {plain(study.title)}",
        f"*{plain(study.question)}*" if study.question else "",
        study.setup,
        *_incomplete(report),
        f"## Findings\n\n{study.findings}" if study.findings else "",
        *(session_tables(report) if in_sessions(study) else _epoch_tables(report)),
        "## Time and memory of a training step\n\nForward, backward and update on the machine of the runs: the median "
        "time, and the most memory that tensors made in a step took at a time, activations and gradients included. The "
        "head's memory is that of its parameters and buffers.",
        _table(report, COST),
        *_tuning(report),
        *_paired(report),
        *_steadiness(report),
        *(["## Figures"] if figures else []),
        *(f"![{plain(caption)}]({name})\n\n{plain(caption)}" for name, caption in figures.items()),
        *_origins(report.origins),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _epoch_tables(report: Report) -> list[str]:
    return [
        "## Top-1 at two epochs\n\nMedian over seeds, and range.",
        _accuracies(report),
        "## Epochs to reach\n\nTraining accuracy of 99 % and 100 %, and a mean cosine margin of 1.0 on the training "
        "split; median over seeds, and range; > stands for runs that did not get there in their epochs.",
        _table(report, SPEED),
        "## Collapse after the last epoch\n\nMeasures of the training split.",
        _table(report, COLLAPSE),
        *_tails(report),
    ]


def _incomplete(report: Report) -> list[str]:
    found, parts = report.collected, []
    if found.missing:
        planned = len(found.missing) + len(found.diverged) + sum(map(len, found.runs.values()))
        runs = "; ".join(f"{plain(name)} ({done})" for name, done in found.missing.items())
        parts.append(f"**Not finished: {len(found.missing)} of {planned} runs**, which are left out below: {runs}.")
    if found.diverged:
        runs = "\n".join(f"- {plain(name)}: {plain(said)}" for name, said in found.diverged.items())
        parts.append(f"**Diverged: {len(found.diverged)} runs**, which are left out below:\n\n{runs}")
    return parts


def _accuracies(report: Report) -> str:
    keys = ("train_accuracy_first", "train_accuracy_second", "test_accuracy_first", "test_accuracy_second")
    common = set(report.epochs.values())
    first, second = map(str, common.pop()) if len(common) == 1 else ("quarter", "last")
    head = [
        "variant",
        "seeds",
        *(f"{split}, epoch {epoch}" for split in ("training", "test") for epoch in (first, second)),
    ]
    rows = [
        [plain(name), str(len(report.values[name])), *(spread_text(row[key], "percent") for key in keys)]
        for name, row in report.spreads.items()
    ]
    return table_text(head, rows)


def _table(report: Report, keys: Sequence[str]) -> str:
    lengths = {variant.name: variant.config.epochs for variant in report.collected.study.variants}
    rows = [
        [plain(name), *(spread_text(row[key], kind_of(key), lengths[name]) for key in keys)]
        for name, row in report.spreads.items()
    ]
    return table_text(["variant", *(QUANTITIES[key] for key in keys)], rows)


def _tails(report: Report) -> list[str]:
    """Return the table of imbalanced classes, if there are any."""
    rows = {name: row for name, row in report.spreads.items() if row.keys() & TAILS.keys()}
    if not rows:
        return []
    text = (
        "## Head, middle and tail classes\n\nAfter the last epoch. The head is the third of the classes with the most "
        "training samples, the tail the third with the fewest (rounded down), the middle the rest. Accuracies are "
        "means over the classes of a group. Distances are squared, of the training split's class means to the simplex "
        "and to SELI for these numbers of samples, at the best rotation, size and shift, over the means' squared norm."
    )
    table = [
        [plain(name), *(spread_text(row[key], kind_of(key)) if key in row else "-" for key in TAILS)]
        for name, row in rows.items()
    ]
    return [text, table_text(["variant", *TAILS.values()], table)]


def _tuning(report: Report) -> list[str]:
    """Return every value that was tried for every variant, a column a combination, and what was chosen in bold."""
    if not report.tried:
        return []
    first, study = report.tried[0], report.collected.study
    share, seeds = first.config.data.validation or 0.0, list(first.accuracies)
    only = ", ".join(f"{plain(name)} = {plain(str(value))}" for name, value in tried_with(study, first).items())
    text = (
        "## Tuning\n\nThese settings were chosen for every variant alone, by the mean validation accuracy after the "
        f"last epoch over {_count(len(seeds), 'seed')} that the study does not use "
        f"({', '.join(map(str, seeds))}); of equally good ones the first. The validation split is {100 * share:g} % of "
        "every class of the training split, the same for all variants; no test image was looked at. "
        f"{f'These runs had {only}. ' * bool(only)}The chosen one is bold, with the range over seeds where there are "
        "several. The study's runs train on the whole training split."
    )
    if edges := at_edges(study, report.tried):
        text += f" **At an end of what was tried**, so that a value beyond may be better: {plain('; '.join(edges))}."
    columns = list(dict.fromkeys(t.values for t in report.tried))
    rows: dict[str, dict[str, str]] = {}
    for t in report.tried:
        cell = _tried(list(t.accuracies.values()))
        rows.setdefault(t.variant, {})[t.values] = f"**{cell}**" if is_chosen(study, t) else cell
    table = [[plain(name), *(row[values] for values in columns)] for name, row in rows.items()]
    return [text, table_text(["variant", *map(plain, columns)], table)]


def _tried(accuracies: Sequence[float | None]) -> str:
    values = [value for value in accuracies if value is not None]
    if len(values) < len(accuracies):
        return "diverged"
    low, mean, high = (f"{100 * x:.2f}" for x in (min(values), fmean(values), max(values)))
    return f"{mean} %" if low == high else f"{mean} % ({low} to {high})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _paired(report: Report) -> list[str]:
    pairs = [pair for pair in report.pairs if pair.result.seeds]
    if not pairs:
        return []
    notes = {note for p in pairs if (note := few_seeds(len(p.result.seeds)))}
    text = (
        "## Paired differences\n\nThe runs of a seed start from the same backbone and see the same batches. "
        "Differences are variant minus baseline, test top-1 in percentage points; the interval is a "
        f"{100 * LEVEL:.0f} % percentile bootstrap of the mean over seeds ({RESAMPLES} resamples), p the exact "
        "two-sided p-value of the sign-flip permutation test. An epoch that never came counts as the one after the "
        "last; pairs with such an epoch are censored: their difference is a bound, or says nothing where both have one."
    )
    head = ["variant", "baseline", "quantity", "pairs", "mean", "median", "interval", "p", "censored"]
    return [text, *sorted(notes), table_text(head, [_pair(p, report.epochs[p.variant]) for p in pairs], 3)]


def few_seeds(n: int) -> str | None:
    """Return a warning if n pairs are too few for a p-value below 0.05."""
    if 2 / 2**n <= 1 - LEVEL:
        return None
    least = min(1.0, 2 / 2**n)
    return (
        f"With {n} pair{'s' * (n != 1)} of runs the sign-flip test gives no p-value below {least:.3g}, whatever the "
        "difference, and a bootstrap interval over so few is narrower than it should be: take these as descriptions."
    )


def _names(pair: Pair[Any], epochs: tuple[int, int]) -> list[str]:
    place = ACCURACIES.get(pair.quantity)
    quantity = {**QUANTITIES, **TAILS}[pair.quantity] if place is None else f"test top-1, epoch {epochs[place]}"
    return [plain(pair.variant), plain(pair.baseline), quantity]


def _steadiness(report: Report) -> list[str]:
    pairs = [pair for pair in report.spread_pairs if pair.result.interval]
    if not pairs:
        return []
    text = (
        "## Spread between seeds\n\nStandard deviations over the seeds that both have finished (test top-1 in "
        f"percentage points), their ratio with a {100 * LEVEL:.0f} % percentile bootstrap interval, and the p-value of "
        "the test of Pitman and Morgan for equal variances of pairs, which supposes normal ones. A ratio below 1: the "
        "variant differs less from seed to seed than the baseline. Pairs in which an epoch never came are left out."
    )
    head = ["variant", "baseline", "quantity", "pairs", "deviation", "baseline's", "ratio", "interval", "p"]
    return [text, table_text(head, [_spread_pair(p, report.epochs[p.variant]) for p in pairs], 3)]


def _spread_pair(pair: Pair[Steadiness], epochs: tuple[int, int]) -> list[str]:
    found, unit = pair.result, 100 if pair.quantity in PERCENT else 1
    return [
        *_names(pair, epochs),
        str(len(found.seeds)),
        f"{unit * found.deviation:.3g}",
        f"{unit * found.baseline_deviation:.3g}",
        f"{found.ratio:.2f}",
        " to ".join(f"{x:.2f}" for x in found.interval or ()),
        "-" if found.p_value is None else f"{found.p_value:.2g}",
    ]


def _pair(pair: Pair[Comparison], epochs: tuple[int, int]) -> list[str]:
    found, percent = pair.result, pair.quantity in PERCENT

    def text(value: float) -> str:
        return f"{100 * value:+.2f}" if percent else f"{value:+.3g}"

    return [
        *_names(pair, epochs),
        str(len(found.seeds)),
        text(found.mean),
        text(found.median),
        "-" if found.interval is None else " to ".join(map(text, found.interval)),
        "-" if found.p_value is None else f"{found.p_value:.3g}",
        str(found.censored),
    ]


def _origins(origins: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for origin in origins:
        git = origin.get("git") or {}
        revision = f"revision {git['revision'][:12]}{' with changes' * git['dirty']}" if git else "no revision known"
        lines.append(
            f"- etfopt {origin['etfopt']}, {revision}; torch {origin['torch']}, Python {origin['python']}, "
            f"{plain(str(origin['platform']))}; {origin['accelerator']}, {origin['precision']}"
        )
    return ["## Made with", "\n".join(lines)] if lines else []
