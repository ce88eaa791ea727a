"""Measure the house: ``python -m tests.tools.house``. Lines, import cycles, arrows between rooms, the way of a config.

A room is a module or a package, whichever lies directly in the one that is looked at. A stay of a training run's
configuration is a function of the package that is handed the whole `TrainConfig`, as an argument or on an object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import grimp

from tests import ROOT

Graph = dict[str, set[str]]


def lines(folder: str, *suffixes: str) -> int:
    """Count the lines that are not blank."""
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes and "results" not in path.parts]
    return sum(1 for path in files for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def rooms(graph: grimp.ImportGraph, package: str) -> Graph:
    """Return which rooms of a package import which: what lies directly in it, with all that lies below."""
    arrows: Graph = {child: set() for child in graph.find_children(package)}
    depth = package.count(".") + 2
    for importer in graph.find_descendants(package):
        here = ".".join(importer.split(".")[:depth])
        for imported in graph.find_modules_directly_imported_by(importer):
            there = ".".join(imported.split(".")[:depth])
            if there in arrows and there != here:
                arrows[here].add(there)
    return arrows


def cycles(arrows: Graph) -> list[list[str]]:
    """Return the groups of rooms that reach each other (the strongly connected components of more than one)."""
    reach: dict[str, set[str]] = {}
    for room in arrows:
        seen, todo = set[str](), [*arrows[room]]
        while todo:
            if (next_room := todo.pop()) not in seen:
                seen.add(next_room)
                todo += arrows[next_room]
        reach[room] = seen
    groups = {frozenset(b for b in reach[a] if a in reach[b]) | {a} for a in arrows}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def packages(graph: grimp.ImportGraph) -> Iterator[str]:
    """Yield the package and every package in it."""
    yield from (name for name in sorted(graph.modules) if graph.find_children(name))


def stays() -> dict[str, int]:
    """Train for one epoch, and count for each function how often it was handed the configuration."""
    from etfopt.experiments.settings import TrainConfig
    from etfopt.experiments.training.train import train

    met: dict[str, int] = defaultdict(int)

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and "/etfopt/" in code.co_filename and "/settings/" not in code.co_filename:
            arguments = [
                frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            ]
            if any(isinstance(value, TrainConfig) for value in arguments):
                met[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1

    settings = {"training.epochs": 1, "backbone.width": 16, "backbone.dim": 12}
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig().with_settings(settings)
        sys.setprofile(watch)
        try:
            train(config, Path(folder) / "run")
        finally:
            sys.setprofile(None)
    return dict(met)


def main() -> None:
    """Print all of it as JSON."""
    graph = grimp.build_graph("etfopt", cache_dir=None)
    drawn = {package: rooms(graph, package) for package in packages(graph)}
    found = {
        "lines": {"etfopt": lines("etfopt", ".py"), "tests and mutants": lines("tests", ".py", ".toml")},
        "modules": len(graph.modules),
        "cycles": {package: loops for package, arrows in drawn.items() if (loops := cycles(arrows))},
        "rooms and arrows": {name: [len(a), sum(map(len, a.values()))] for name, a in drawn.items()},
        "stays of config": stays(),
    }
    json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
