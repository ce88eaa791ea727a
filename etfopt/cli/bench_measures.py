"""The command that measures the measures: what an update of a metric costs."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etfopt._scalars import as_integer
from etfopt.cli._app import AsJson, Overwrite, Quiet, hand_over
from etfopt.cli._measuring import measuring, write, wrote
from etfopt.cli._tables import RIGHT, WHOLE, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from etfopt.bench.measures import UpdateRow

__all__ = ["bench_measures"]


def bench_measures(
    largest: Annotated[int, typer.Option(help="Leave out shapes with more classes than this; at least 10.")] = 50257,
    rounds: Annotated[int, typer.Option(help="Timed updates of each.")] = 9,
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/bench-measures"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Time an update of NeuralCollapse beside a plain index_add_ of the features, and neural-collapse if installed.

    Times are microseconds of CPU time for a sample. The command takes a minute, and C = 50257 needs 3 GB of memory.

    ```
    etfopt bench measures --largest 1000
    ```
    """
    as_integer(largest, "largest", at_least=10)
    as_integer(rounds, "rounds", at_least=1)
    from etfopt.bench.measures import LABELS, SHAPES
    from etfopt.bench.measures import bench_measures as run
    from etfopt.bench.timing import as_records, conditions

    shapes = [shape for shape in SHAPES if largest >= shape[0]]
    steps = len(shapes) * len(LABELS)
    with measuring(out, ["bench.json"], steps, "cases", overwrite, quiet or as_json) as step:
        rows = []
        for shape in shapes:
            rows += run([shape], rounds)
            for _ in LABELS:
                step()
        about = {**conditions(), "torch": version("torch")}
        path = write(out, {"conditions": about, "rows": as_records(rows)})
    hand_over(path, [_costs(rows, about)], wrote([path]), as_json)


def _costs(rows: Sequence[UpdateRow], conditions: Mapping[str, object]) -> Table:
    numbers = ("C", "d", "index_add_", "in float64", "means", "with scatter", "neural-collapse")
    cells = [
        (
            row.labels,
            str(row.C),
            str(row.d),
            *(f"{x:.2f}" for x in (row.index_add, row.index_add_double, row.means, row.whole)),
            "-" if row.peer is None else f"{row.peer:.2f}",
        )
        for row in rows
    ]
    caption = ", ".join(f"{key} {value}" for key, value in conditions.items())
    title = "An update, microseconds of CPU time for a sample"
    return table(title, {"labels": WHOLE, **dict.fromkeys(numbers, RIGHT)}, cells, caption=caption)
