"""The figures at a report's head, and the parts shown only on a page."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import shlex
import sys

import onnx
import onnx_ir as ir
import pytest
from rich.console import Console

from tests.command import FAST
from tests.command import trtbuild as command
from tests.models import NETWORKS
from trtbuild.artifact import Artifact
from trtbuild.jobs.bench import BenchResult
from trtbuild.latency.conditions import Conditions, this_device
from trtbuild.latency.layer_times import LayerTimes
from trtbuild.latency.limits import speedup_finding
from trtbuild.latency.measure import MONOTONIC, Samples
from trtbuild.latency.regress import decide, taken_together
from trtbuild.plan import Decision, PortableChoice
from trtbuild.plots.data import Path
from trtbuild.report.cards import accuracy_cards, int8_share, speed_card
from trtbuild.report.html import to_html
from trtbuild.report.latency import bench_report, latency_section
from trtbuild.report.layer_bars import layer_bars
from trtbuild.report.model import Card, Outcome, Plots, Report, Section, Table, Tone, names
from trtbuild.report.search import search_section
from trtbuild.report.text import print_report
from trtbuild.search.budget import StepReport, Tuned
from trtbuild.search.effects import Effects
from trtbuild.toml_files import read_toml, toml_text
from trtbuild.verification.compare import Comparison
from trtbuild.verification.gate import Verdict
from trtbuild.verification.intervals import Estimate
from trtbuild.verification.layers import Effect
from trtbuild.verification.tasks.base import Figure, TaskScore

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


GRAPH = ir.Graph([], [], nodes=[], opset_imports={"": 17})


@pytest.mark.parametrize(
    ("count", "low", "high", "said"),
    [
        (1, -math.inf, math.inf, "1 sample, too few for an interval"),
        (1, 20.0, 31.5, "1 sample; 95 % sure: 20.0 dB to 31.5 dB"),
        (9, -math.inf, math.inf, "9 samples, not judged one by one, so no interval"),
        (9, 29.0, 31.5, "9 samples; 95 % sure: 29.0 dB to 31.5 dB"),
    ],
)
def test_a_card_says_how_sure_its_figure_is(count: int, low: float, high: float, said: str) -> None:
    main = Figure("PSNR", "dB", Estimate(30.0, low, high))
    comparison = Comparison("net", count, (), task=TaskScore("restore", "", count, main))
    (card,) = accuracy_cards(comparison, Verdict(True, ()))
    assert (card.title, card.value, card.detail) == ("PSNR", "30.0 dB", said)


@pytest.mark.parametrize("value", [0.02, 0.7, 0.99, 1.0, 1.004, 1.3, 40.0])
def test_no_speed_is_claimed_that_the_interval_denies(value: float) -> None:
    answers = set()
    for below, above, noise in itertools.product((1.0, 1.003, 1.1, 2.0, 90.0), repeat=3):
        found = Estimate(value, value / below, value * above)
        verdict = decide("float", "engine", found, math.log(min(noise, 1.5)), 2.0)
        card = speed_card(verdict)
        answers.add(card.value.partition(" ")[2] or card.value)
        assert ("faster" in card.value) == (verdict.answer.value == "faster")
        assert ("slower" in card.value) == (verdict.answer.value == "slower")
        assert "faster" not in card.value or verdict.ratio.high < 1
        assert "slower" not in card.value or verdict.ratio.low > 1
        if "same" in card.value:
            assert verdict.ratio.low >= 1 / 1.02
            assert verdict.ratio.high <= 1.02
    assert len(answers) > 1


def test_each_batch_size_has_its_own_card_and_checks() -> None:
    # limit: 1.5 times as fast; batch 1 meets it, batch 8 does not
    engine_ms = {1: 1.0, 8: 1.6}
    samples, verdicts, speed = [], [], []
    for size, median in engine_ms.items():
        base, engine = (
            Samples(name, size, MONOTONIC, 2, tuple(ms + 0.01 * (i % 5) for i in range(60)))
            for name, ms in (("base", 2.0), ("engine", median))
        )
        verdicts.append(taken_together(base, engine))
        samples += [base, engine]
        speed.append(speedup_finding(verdicts[-1], 1.5))
    result = BenchResult(
        tuple(samples), tuple(verdicts), tuple(speed), this_device(), Conditions(), "random"
    )
    report = bench_report("engine", result)
    assert {card.title: card.tone for card in report.cards} == {
        "Speed, batch 1": Tone.GOOD,
        "Speed, batch 8": Tone.BAD,
    }
    failed = {check.what: check.outcome is Outcome.FAILED for check in report.checks}
    assert failed == {
        "against base, batch 1": False,
        "against base, batch 8": False,
        "speed over base, batch 1": False,
        "speed over base, batch 8": True,
    }
    assert [one.batch_size for one in result.record.verdicts] == [1, 8]


def test_layers_are_named_as_in_the_network() -> None:
    # ONNX Runtime's layout pass numbers the nodes that it makes anew
    times = LayerTimes("a profiler", 1, {"/conv1/Conv_token_7": 2.0, "/pool": 1.0})
    result = BenchResult((), (), (), this_device(), Conditions(), "random", times)
    sections = bench_report("engine", result).filled_sections
    (table,) = next(one.blocks for one in sections if one.heading == "Layers")
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["/conv1/Conv", "/pool"]


@pytest.mark.parametrize(
    ("in_float", "told"),
    [
        ((), "2 of 2 layers with weights"),
        (("a",), "2 of 2 layers with weights, 1 of them in float in the portable engine"),
    ],
)
def test_the_share_of_int8_tells_what_the_portable_engine_computes_in_float(in_float, told) -> None:
    model = ir.Model(GRAPH, ir_version=9)
    decisions = tuple(Decision(name, "Conv", int8=True, reason="it may be") for name in "ab")
    choice = PortableChoice(in_float=frozenset(in_float))
    artifact = Artifact("net", model, model, quantized=model, decisions=decisions, portable=choice)
    (card,) = int8_share(artifact)
    assert f"{card.value} {card.detail}" == told


def test_cards_fit_a_terminal_of_80_columns() -> None:
    cards = (
        Card("Same class", "99.1 %", "a detail that is longer than what is left of the line " * 2),
        Card("Speed", "cannot tell", "from 1.1 x faster to 2.13 x slower than float; too noisy"),
    )
    out = io.StringIO()
    print_report(Report(title="t", cards=cards), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Same class  99.1 %       a detail")
    assert any(re.match(r"Speed +cannot tell +from", line) for line in lines)


def test_columns_without_anything_are_left_out() -> None:
    table = Table(names("a", "b", "c"), (("x", "", "y"), ("z", "", "")))
    out = io.StringIO()
    console = Console(file=out, width=80)
    print_report(Report(title="t", sections=(Section("h", (table,)),)), console)
    assert " b " not in out.getvalue()


def searched(*steps: StepReport) -> Tuned:
    artifact = Artifact("net", ir.Model(GRAPH, ir_version=9), ir.Model(GRAPH, ir_version=9))
    return Tuned(artifact, steps, met=True, float_layers=(), float_macs_percent=0.0, num_images=64)


def path_of(section: Section) -> Path:
    block = section.blocks[0]
    assert isinstance(block, Plots)
    (path,) = block.plots
    assert isinstance(path, Path)
    return path


def test_a_search_is_a_path_of_accuracy_over_the_work_in_int8() -> None:
    def step(name: str, figure: float, in_float: float = 0.0, *, kept: bool = True) -> StepReport:
        return StepReport(name, "", kept, 20.0, None, None, 3, figure, in_float)

    steps = (step("as calibrated", 71.0), step("bias", 71.0, kept=False), step("float", 97.0, 11.5))
    path = path_of(search_section(searched(*steps), {"min_agreement": 95.0}))
    assert [(stop.x, stop.y, stop.kept) for stop in path.stops] == [
        (100.0, 71.0, True),
        (100.0, 71.0, False),
        (88.5, 97.0, True),
    ]
    assert path.limit == 95.0
    steady = path_of(search_section(searched(*steps[:2]), {}))
    assert [stop.x for stop in steady.stops] == [0.0, 1.0]


def test_the_page_of_2000_layers_stays_small() -> None:
    names_ = [
        f"/model/encoder/layer.{i}/attention/self/query/MatMul_quantized" for i in range(2000)
    ]
    decisions = tuple(Decision(name, "MatMul", int8=True, reason="it may be") for name in names_)
    effects = Effects({name: Effect(10.0 + i % 60, 0.1) for i, name in enumerate(names_)}, {})
    model = ir.Model(GRAPH, ir_version=9)
    artifact = Artifact("net", model, model, decisions=decisions)
    page = to_html(
        Report(title="net", sections=(Section("Layers", layer_bars(artifact, effects)),))
    )
    assert len(page) < 1_000_000
    # a bar shared by several neighbours names the worst
    assert f"{names_[0]} (MatMul), INT8; alone in INT8 the outputs keep 10.0 dB" in page
    assert "2000 layers" in page


def test_tables_become_toml_and_back(tmp_path) -> None:
    table = {
        "a": 1,
        "none": None,
        "b c": [1.5, True, 'x"y\\z\x1b'],
        "group": {"d": "e", "inner": {"f": [["g"], []]}, "none": None},
    }
    text = toml_text(table)
    expected = {
        "a": 1,
        "b c": [1.5, True, 'x"y\\z\x1b'],
        "group": {"d": "e", "inner": {"f": [["g"], []]}},
    }
    assert tomllib.loads(text) == expected
    file = tmp_path / "t.toml"
    file.write_text(text, encoding="utf-8")
    assert read_toml(file, "recipe") == expected


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    model, data = NETWORKS["opset_13"].save(folder)
    return model, data, folder


def test_the_page_has_a_bar_for_every_layer_and_the_command(built, capsys) -> None:
    model, data, folder = built
    page = folder / "page.html"
    words = ("engine", model, "--int8", "--data", data, "-o", folder / "out", "--no-latency")
    done = command(capsys, *words, "--report", page)
    text = page.read_text(encoding="utf-8")
    manifest = json.loads((folder / "out" / "net.manifest.json").read_text())
    in_int8 = [
        one["node"] for one in manifest["layers"] if one["int8"] and one["op_type"] == "Conv"
    ]
    told = re.findall(r'class="slat[^>]*><title>([^<]*)</title>', text)
    assert in_int8
    for name in in_int8:
        assert any(one.startswith(f"{name} (Conv), INT8; alone in INT8") for one in told)
    assert "Work in INT8" in done.out
    again = shlex.split(manifest["command"])
    assert again[:3] == ["trtbuild", "engine", str(model)]
    assert command(capsys, *again[1:], "--dry-run").code == 0
    assert set(again) == {"trtbuild", *map(str, words)} - {"-o"} | {"--output"}


@pytest.mark.parametrize("columns", [None, "80"])
def test_names_stay_whole_where_no_terminal_folds_them(built, capsys, monkeypatch, columns) -> None:
    model, data, folder = built
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    out = folder / ("a_folder_of_a_long_name" * 6)
    done = command(
        capsys, "engine", model, "--int8", "--data", data, "-o", out, "--no-latency", *FAST
    )
    assert any(str(out / "net.manifest.json") in line for line in done.out.splitlines())


def test_a_recurrent_layer_in_float_is_work_in_float() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[20, 2, 16] x) => (float[20, 1, 2, 8] y)
        <float[16, 16] m, float[1, 32, 16] w, float[1, 32, 8] r> {
          a = MatMul(x, m)
          y = LSTM<hidden_size = 8>(a, w, r)
        }""")
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    for node, name in zip(model.graph, "ab"):
        node.name = name
    decisions = (
        Decision("a", "MatMul", int8=True, reason="it may be"),
        Decision("b", "LSTM", int8=False, reason="it has no form"),
    )
    artifact = Artifact("net", model, model, quantized=model, decisions=decisions)
    (card,) = int8_share(artifact)
    # of 2 samples in 20 steps: 16 x 16, and four gates of 8 that read 16 values and 8 of the state
    share = 100 * 16 * 16 / (16 * 16 + 4 * 8 * (16 + 8))
    told = f"{share:.0f} % of multiply-accumulates; 1 of 2 layers with weights"
    assert f"{card.value} {card.detail}" == told


@pytest.mark.parametrize(
    ("num_runs", "shown"),
    [(9, ()), (10, ("p90",)), (99, ("p90", "p95")), (100, ("p90", "p95", "p99"))],
)
def test_a_percentile_is_shown_where_a_run_lies_beyond_it(num_runs, shown) -> None:
    times = tuple(map(float, range(1, num_runs + 1)))
    section = latency_section([("engine", Samples("engine", 1, MONOTONIC, 1, times))])
    table = next(block for block in section.blocks if isinstance(block, Table))
    found = dict(zip([column.title for column in table.columns], table.rows[0]))
    assert tuple(name for name in ("p90", "p95", "p99") if found[name]) == shown
    assert found["runs"] == str(num_runs)
