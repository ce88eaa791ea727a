"""What a newcomer finds by asking Python: names, a tour, short descriptions, tables in a notebook, a log."""

import html.parser
import logging

import numpy as np
import pytest

import etfopt
from etfopt._display import html_table
from etfopt.bench.summary import Summary
from etfopt.frames import code, polygon, seli
from etfopt.solvers.base import Stats, TracePoint
from tests.package.test_layers import succeeds

H = np.random.default_rng(0).standard_normal((500, 60))


def line(solver: str, problem: str, seconds: float | None, certified: int = 1) -> Summary:
    return Summary(problem, solver, 1, certified, seconds, seconds, seconds, 1e-9, None, None, None, "")


def test_dir_lists_the_public_names_before_they_are_imported_and_help_gives_a_tour() -> None:
    said = succeeds("import etfopt, sys\nprint(*dir(etfopt))\nassert 'numpy' not in sys.modules\nprint(etfopt.__doc__)")
    names = said.splitlines()[0].split()
    assert {*etfopt.__all__, "frames", "nn", "metrics", "__version__"} <= {*names}
    assert not {"HOMES", "importlib", "find_spec", "annotations"} & {*names}
    for word in ("nearest_etf(H)", "etfopt.nn", "best_frame", "etfopt doctor", "getLogger"):
        assert word in said


WITHOUT = """
import importlib.util, pydoc
found = importlib.util.find_spec
absent = ("torch", "torchmetrics", "matplotlib")
importlib.util.find_spec = lambda name, *rest: None if name in absent else found(name, *rest)
import etfopt
print(*dir(etfopt))
pydoc.render_doc(etfopt)
"""


def test_help_works_where_pytorch_is_not_installed() -> None:
    names = succeeds(WITHOUT).split()
    assert "frames" in names
    assert not {"nn", "metrics", "plotting"} & {*names}


def shown() -> list[object]:
    solution = etfopt.nearest_etf(H)
    return [
        solution.problem,
        solution,
        solution.certificate,
        Stats("TrustRegion", 0.1, 50, (TracePoint(0.1, 1, 2.0, 3.0),) * 50),
        polygon(5),
        polygon(5).certificate,
        polygon(5).margin,
        seli([9, 1]),
    ]


def test_descriptions_are_short_and_hold_no_arrays() -> None:
    for one in shown():
        said = repr(one)
        assert len(said) < 600, said
        assert max(map(len, said.splitlines())) < 200
        assert "array(" not in said
        assert "TracePoint" not in said


def test_settings_show_what_was_changed_and_a_module_its_sizes() -> None:
    pytest.importorskip("torchmetrics")
    from etfopt.experiments.settings import HeadConfig, TrainConfig
    from etfopt.metrics import NeuralCollapse
    from etfopt.nn import FixedETFHead

    assert repr(TrainConfig()) == "TrainConfig()"
    changed = TrainConfig().with_settings({"optimizer.learning_rate": 0.1, "seed": 3})
    assert repr(changed) == str(changed) == "TrainConfig(seed=3, optimizer.learning_rate=0.1)"
    assert repr(HeadConfig(name="fixed")) == "HeadConfig(name='fixed')"
    assert repr(NeuralCollapse(num_classes=3, dim=5)) == "NeuralCollapse(num_classes=3, dim=5)"
    assert repr(FixedETFHead(5, 3)) == "FixedETFHead(dim=5, num_classes=3, temperature=2.701)"


class Tags(html.parser.HTMLParser):
    """Counts tags, and sees that all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.rows, self.words = list[str](), 0, list[str]()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert not attrs  # no style, no colour: the notebook's own theme decides
        self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_notebooks_get_plain_tables_and_every_value_is_escaped() -> None:
    from etfopt.bench.standings import Standings

    solution, named = etfopt.nearest_etf(H), etfopt.frames.Frame("<b>&", polygon(3).F, polygon(3).certificate)
    standings = Standings([line("<i>fast</i>", "p", 1e-3), line("slow", "p", 2.0, certified=0)])
    for one, rows, words in (
        (solution, 6, "Procrustes"),
        (solution.certificate, 5, "feasible"),
        (named, 5, "<b>&"),
        (standings, 3, "<i>fast</i>"),
    ):
        read = Tags(one._repr_html_())
        assert read.rows == rows
        assert words in " ".join(read.words)
    assert html_table("<", [("a", "&")], ["<x>"]).count("&lt;") == 2


def test_standings_rank_by_certified_runs_and_then_by_time() -> None:
    from etfopt.bench.standings import Standings

    lines = [line("a", "p", 2.0), line("a", "q", 3.0), line("b", "p", 1.0), line("b", "q", 1e-3, certified=0)]
    lines += [line("c", "p", 4.0), line("c", "q", 1.5), line("d", "p", None, certified=0)]
    found = Standings(lines)
    assert [(one.solver, one.certified, one.runs, one.slowdown) for one in found] == [
        ("c", 2, 2, 1.0),  # 4 and 1: what is not certified is not the fastest
        ("a", 2, 2, 2.0),
        ("b", 1, 2, 1.0),
        ("d", 0, 1, np.inf),
    ]
    assert found.cells()[3] == ("d", "0 of 1", "-", "-", "1e-09")
    assert "Standings of 4 solvers" in repr(found)


def test_the_library_logs_and_prints_nothing(caplog, capsys) -> None:
    with caplog.at_level(logging.DEBUG, "etfopt"):
        etfopt.nearest_etf(H)
        code(3, 7, starts=1, cache=False)
    said = [(record.name, record.getMessage()) for record in caplog.records]
    assert [name for name, _ in said] == ["etfopt.solution", "etfopt.frames.code"]
    assert "Procrustes took" in said[0][1]
    assert "searching for 7 vectors in 3 dimensions" in said[1][1]
    assert capsys.readouterr() == ("", "")
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("etfopt").handlers)
