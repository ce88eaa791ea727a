"""The command that measures the node beside whatever else finds a polar factor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etfopt.cli import _peer_tables as tables
from etfopt.cli._app import Overwrite, Quiet, hand_over, interruptible, one_of, progress
from etfopt.cli._bench_tables import conditions_line
from etfopt.cli._measuring import Device
from etfopt.errors import InputError, require_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from etfopt.bench.peers import PartRow, PeerRow

__all__ = ["bench_peers"]

PRINTED = Path("-")

PICTURES = (".png", ".svg", ".pdf")


def _names() -> list[str]:
    from etfopt.bench.peers import PARTS, PEERS

    return [*PEERS, *PARTS]


def bench_peers(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A peer, a part of the library (core, distance, head, metric, import), or the import path of a "
            "function of your own from A to its polar factor; may be given again. [all that are installed]",
            autocompletion=one_of(_names),
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only 64 x 10, on one thread, at most a second each.")] = False,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads; may be given again. [1, and all processors; 1 if quick]")
    ] = None,
    device: Device = "cpu",
    seconds: Annotated[
        float | None, typer.Option(help="Seconds of timed calls for each problem, at most. [60; 1 if quick]")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File for the numbers; - prints them instead of tables.")] = None,
    figure: Annotated[Path | None, typer.Option(help="File for the picture: .png, .svg or .pdf.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Time the node beside other packages on the same problems, and judge every answer.

    The peers: torch.linalg.polar (PyTorch 2.14 and newer), an SVD through autograd, SciPy, roma, geoopt, geotorch,
    pymanopt, the paper's pipeline. A ratio is the time of a peer over that of etfopt: above 1, etfopt is faster. A
    wrong answer has no ratio. A second table times parts of the library beside simple operations. The command takes a
    quarter of an hour, with --quick a minute.

    ```
    etfopt bench peers --quick
    etfopt bench peers --json peers.json --figure peers.svg
    etfopt bench peers --only torch.linalg.polar --only distance --threads 2
    ```
    """
    from etfopt.bench.node import usable_device
    from etfopt.bench.peers import OURS, PARTS, PeerRow, cases, line_up
    from etfopt.bench.peers import bench_peers as run

    known = [name for name in only or () if name not in PARTS]
    names, missing = line_up(known) if known or not only else ([], {})
    problems = cases(quick) if known or not only else []
    parts = [(name, size) for name in PARTS if name in (only or PARTS) for size in PARTS[name].sizes]
    if quick:
        parts = [(name, size) for name, size in parts if size in ("64 x 10", "512 x 10")]
    counts = threads or ([1] if quick else sorted({1, os.cpu_count() or 1}))
    limit = (1.0 if quick else 60.0) if seconds is None else seconds
    usable_device(device)
    _check(json, figure, overwrite, bool(problems))
    peers: list[PeerRow] = []
    surroundings: list[PartRow] = []
    total = len(counts) * (len(problems) + len(parts))
    with interruptible(lambda: "Nothing was written."), progress(total, quiet, "problems") as step:
        for rows in run(problems, names, parts, counts, limit, device):
            for row in rows:
                peers.append(row) if isinstance(row, PeerRow) else surroundings.append(row)
            step()
    _report(peers, surroundings, missing, _conditions(names, counts, device), json, figure)
    if any(row.failed or (row.peer == OURS and row.right is False) for row in peers):
        raise typer.Exit(1)


def _report(
    peers: Sequence[PeerRow],
    surroundings: Sequence[PartRow],
    missing: Mapping[str, str],
    about: Mapping[str, object],
    json: Path | None,
    figure: Path | None,
) -> None:
    """Write the files and print the tables, or the document."""
    from etfopt.bench.timing import as_records
    from etfopt.files import strict_json, write_atomically

    document = {"conditions": about, "left_out": missing, "rows": as_records(peers), "parts": as_records(surroundings)}
    notes = [conditions_line(about), *(f"{name} is left out: {reason}" for name, reason in missing.items())]
    if json is not None and json != PRINTED:
        write_atomically(json, strict_json(document).encode())
        notes.append(f"wrote {json}")
    if figure is not None:
        _draw(peers, figure)
        notes.append(f"wrote {figure}")
    shown = [*tables.answers(peers), *tables.overview(peers), *tables.surroundings(surroundings)]
    hand_over(document, shown, notes, json == PRINTED)


def _check(json: Path | None, figure: Path | None, overwrite: bool, drawn: bool) -> None:
    """Refuse files that cannot be written before anything is timed."""
    if figure is not None:
        if figure.suffix not in PICTURES:
            raise InputError(f"figure = {str(figure)!r} has no format; end it in one of: {', '.join(PICTURES)}")
        if not drawn:
            raise InputError(f"figure = {str(figure)!r} would be empty: --only names no peer; leave out --figure")
        require_extra("plots", "matplotlib")
    for path in (json, figure):
        if path is None or path == PRINTED:
            continue
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it first")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; choose another name, or replace it with --overwrite")


def _conditions(names: Sequence[str], threads: Sequence[int], device: str) -> dict[str, object]:
    from etfopt.bench.node import gpu_name
    from etfopt.bench.peers import as_peer, package_version
    from etfopt.bench.timing import conditions

    modules = dict.fromkeys(["torch", *(as_peer(name).module for name in names)])
    versions = {module: package_version(module) for module in modules}
    about: dict[str, object] = {**conditions(), **versions, "threads": ", ".join(map(str, threads)), "device": device}
    if device.startswith("cuda"):
        about["gpu"] = gpu_name(device)
    return about


def _draw(rows: Sequence[PeerRow], path: Path) -> None:
    """Draw the ratios of forward and backward on the largest number of threads."""
    from etfopt.bench.peers import OURS
    from etfopt.plotting import draw_ratios, save

    most = max(row.threads for row in rows)
    found = {(row.problem, row.peer): row.ratio for row in rows if row.threads == most}
    problems = list(dict.fromkeys(problem for problem, _ in found))
    peers = dict.fromkeys(peer for (_, peer), ratio in found.items() if ratio is not None and peer != OURS)
    save(draw_ratios(problems, {peer: [found.get((one, peer)) for one in problems] for peer in peers}), path)
