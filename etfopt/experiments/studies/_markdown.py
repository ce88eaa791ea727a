"""A study's report as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etfopt.experiments.studies._cells import number, plain, spread, table
from etfopt.experiments.studies._comparisons import Pair
from etfopt.experiments.studies._numbers import QUANTITIES, Spread
from etfopt.experiments.studies._sessions import SESSION_QUANTITIES, accuracy_curves, in_sessions
from etfopt.experiments.studies.statistics import LEVEL, RESAMPLES, Comparison, Steadiness

if TYPE_CHECKING:
    from etfopt.experiments.studies.report import Report

ACCURACIES = {"test_accuracy_first": 0, "test_accuracy_second": 1}
PERCENT = {*ACCURACIES, *SESSION_QUANTITIES}
SPEED = ("epochs_to_99", "epochs_to_100", "epochs_to_margin_1")
COLLAPSE = ("cosine_margin", "nc1", "nc2", "nc3", "equinorm_difference")
COST = ("step_ms", "step_mib")


def markdown(report: Report, figures: Mapping[str, str]) -> str:
    """Return the page."""
    study = report.collected.study
    parts = [
        f"# {plain(study.title)}",
        f"*{plain(study.question)}*" if study.question else "",
        study.setup,
        *_incomplete(report),
        f"## Findings\n\n{study.findings}" if study.findings else "",
        *(_session_tables(report) if in_sessions(study) else _epoch_tables(report)),
        "## Time and memory of a training step\n\nForward, backward and update on the machine of the runs: the median "
        "time, and the most memory that tensors made in a step took at a time, activations and gradients included.",
        _table(report, COST),
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
    ]


def _session_tables(report: Report) -> list[str]:
    curves = accuracy_curves(report.collected.runs)
    count = max((len(run) for runs in curves.values() for run in runs), default=0)
    medians = {name: [Spread.of(column) for column in zip(*runs, strict=True)] for name, runs in curves.items() if runs}
    summary = [
        [plain(name), str(len(report.values[name])), *(spread(row[key], "percent") for key in SESSION_QUANTITIES)]
        for name, row in report.spreads.items()
    ]
    return [
        "## Accuracy over the sessions\n\nTest top-1 on all classes so far; median over seeds, and range. The average "
        "is over all sessions, the base session included. Older classes are those of earlier sessions, newest classes "
        "those of the session: both averaged over the sessions after the base. Forgetting is, averaged over all "
        "sessions but the last, the highest accuracy on the session's classes after any session but the last, minus "
        "that after the last one (Chaudhry et al., 2018).",
        table(["variant", "seeds", *SESSION_QUANTITIES.values()], summary),
        "## After every session\n\nTest top-1 on all classes so far, median over seeds; 0 is the base session.",
        table(
            ["variant", *map(str, range(count))],
            [[plain(name), *(number(x.median, "percent") for x in row)] for name, row in medians.items()],
        ),
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
        [plain(name), str(len(report.values[name])), *(spread(row[key], "percent") for key in keys)]
        for name, row in report.spreads.items()
    ]
    return table(head, rows)


def _table(report: Report, keys: Sequence[str]) -> str:
    lengths = {variant.name: variant.config.epochs for variant in report.collected.study.variants}
    rows = [
        [plain(name), *(spread(row[key], "epochs" if key in SPEED else "number", lengths[name]) for key in keys)]
        for name, row in report.spreads.items()
    ]
    return table(["variant", *(QUANTITIES[key] for key in keys)], rows)


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
    return [text, *sorted(notes), table(head, [_pair(p, report.epochs[p.variant]) for p in pairs], 3)]


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
    quantity = QUANTITIES[pair.quantity] if place is None else f"test top-1, epoch {epochs[place]}"
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
    return [text, table(head, [_spread_pair(p, report.epochs[p.variant]) for p in pairs], 3)]


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
