"""The page, read as XML-like text and opened in a real browser."""

from __future__ import annotations

import base64
import html.parser
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibrators import Collector
from tests.trtbuild.verification.small_network import batches, images, quantized
from tools.browser import Browser, find_browser
from trtbuild.jobs.bench import BenchResult
from trtbuild.jobs.verify import Verification
from trtbuild.latency.conditions import Conditions, this_device
from trtbuild.latency.measure import MONOTONIC, Samples
from trtbuild.latency.regress import taken_together
from trtbuild.manifest import NextStep
from trtbuild.plots.calibration import histogram_plot
from trtbuild.plots.data import Level, Slat, Stop, Strip
from trtbuild.plots.data import Path as Path_
from trtbuild.report.html import to_html
from trtbuild.report.junit import to_junit
from trtbuild.report.latency import bench_report
from trtbuild.report.model import (
    Card,
    Gallery,
    Plots,
    Report,
    Section,
    Table,
    Tone,
    Verbatim,
    names,
)
from trtbuild.report.verify import verification_report
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.bisect import Culprits
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.layers import layer_errors
from trtbuild.verification.tasks.base import SampleScore
from trtbuild.verification.views import Answer, Box, View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "/a/very/long/name/of/a/node" * 6
WILD = "</title><script>alert(1)</script>&amp;'\""


@pytest.fixture(scope="module")
def report() -> Report:
    artifact = quantized()
    data = batches()
    comparison = compare(open_session(artifact.model), open_session(artifact.quantized), data)
    base = Samples("base", 1, MONOTONIC, 2, tuple(1.0 + 0.01 * (i % 7) for i in range(60)))
    slow = Samples("engine", 1, MONOTONIC, 2, tuple(1.5 + 0.01 * (i % 5) for i in range(60)))
    collector = Collector(["image"])
    collector.observe({"image": images()}, batch=0)
    layers = layer_errors(artifact.model, artifact.quantized, data)
    accuracy = verification_report(
        Verification(
            reference="float",
            engine="engine",
            data="24 images <b>",
            comparison=comparison,
            limits={},
            verdict=judge(comparison, Gate(min_sqnr=80.0, min_cosine=0.9)),
            layers=layers,
            culprits=Culprits(
                ("Conv_left",), passes_quantized=False, passes_float=True, num_evaluations=7
            ),
        )
    )
    device, quiet = this_device(), Conditions()
    result = BenchResult((base, slow), (taken_together(base, slow),), (), device, quiet, "random")
    speed = bench_report("speed", result)
    coverage = Table(names("layer", "reason"), ((LONG, "its weight is <empty>"),))
    amaxes = {"entropy": 2.5, "seen": 4.1}
    plot = histogram_plot("image", collector.histograms["image"], amaxes)
    slats = [Slat(0.1 * i, list(Level)[i % 4], f"{WILD} (Conv)") for i in range(9)]
    strip = Strip("layers", slats, {level: level.value for level in Level}, ("input", "output"))
    stops = [Stop(i, 10 + i * (-1) ** i, WILD, i % 2 == 0) for i in range(6)]
    path = Path_("the search", stops, "step", "SQNR, dB", limit=14.0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    boxes = (Box((0.1, 0.2, 0.5, 0.9), f"{WILD} 0.9", shared=False),)
    samples = (
        SampleScore(WILD, 50.0, View(pixels, Answer("1 box", boxes), Answer("0 boxes"))),
        SampleScore(
            LONG, 60.0, View(pixels, Answer(LONG, picture=pixels), Answer("", picture=pixels))
        ),
        SampleScore("text alone", 70.0, View(None, Answer("a\x1b[31m"), Answer("b"))),
        SampleScore("nothing to see", 80.0),
    )
    return replace(
        accuracy,
        title="<small> & co",
        checks=(*accuracy.checks, *speed.checks),
        sections=(
            accuracy.sections[1],
            *speed.sections,
            Section("INT8 coverage", (coverage,)),
            accuracy.sections[2],
            Section("Thresholds", (Plots((plot,)), Plots((strip, path), is_wide=True))),
            Section("Worst samples", (Gallery(samples, "F1 of boxes", "engine"),)),
            Section(
                "How it was made", (Verbatim(f"trtbuild engine '{WILD}'"), Verbatim(WILD, "recipe"))
            ),
        ),
        cards=(Card(WILD, "99.9 %", LONG, Tone.GOOD), Card("Speed", "cannot tell", "", Tone.NOTE)),
        next_step=NextStep("do this", f"trtbuild {LONG}"),
        data={"schema": "trtbuild.manifest", "text": "</script><b>"},
    )


class Elements(html.parser.HTMLParser):
    """Counts elements and checks that they are closed in order."""

    void = frozenset({"meta", "link", "img", "br", "rect", "line", "polyline", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    return elements


def test_the_page_is_well_formed_and_loads_nothing(report: Report) -> None:
    page = to_html(report)
    elements = parsed(page)
    for _, attributes in elements.seen:
        assert not {"href", "data", "action", "srcset"} & set(attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
    assert "url(" not in page
    assert "@import" not in page
    script = page[page.index("<script>") : page.index("</script>")]
    assert not re.search(r"https?:|fetch|XMLHttp|import|innerHTML", script)


def test_the_verdict_comes_first_and_every_part_is_there(report: Report) -> None:
    page = to_html(report)
    text = " ".join(parsed(page).text)
    order = ["<small> & co", "DO NOT SHIP", "SQNR of 'logits'", "Accuracy", "Latency", "INT8 coverage",
             "Layers", "Thresholds", "Record"]  # fmt: skip
    assert [word for word in order if word not in text] == []
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "slower" in text
    assert "its weight is <empty>" in text
    assert "Conv_left" in text
    assert page.count("<svg") >= 3


def test_samples_show_what_both_networks_answer(report: Report) -> None:
    elements = parsed(to_html(report))
    shown = " ".join(" ".join(elements.text).split())
    assert "a\\x1b[31m" in shown
    assert "F1 of boxes 50" in shown
    assert "nothing to see" not in shown
    drawn = [given for tag, given in elements.seen if tag == "rect" and "only" in given["class"]]
    assert [(one["x"], one["y"], one["width"], one["height"]) for one in drawn] == [
        ("0.1000", "0.2000", "0.4000", "0.7000")
    ]
    pictures = [given for tag, given in elements.seen if tag == "img"]
    assert len(pictures) == 4
    assert all(one["alt"] for one in pictures)


def test_names_are_texts_and_no_markup(report: Report) -> None:
    page = to_html(report)
    elements = parsed(page)
    assert [tag for tag, _ in elements.seen].count("script") == 1
    assert "alert(1)</script>" not in page
    assert WILD in elements.text
    assert page.count("\x1b") == 0


def test_every_table_has_headings_and_every_plot_a_title(report: Report) -> None:
    elements = parsed(to_html(report))
    of = {
        tag: [given for seen, given in elements.seen if seen == tag]
        for tag in ("th", "svg", "table")
    }
    assert {given["scope"] for given in of["th"]} == {"col", "row"}
    assert all(given["aria-label"] for given in of["svg"])
    regions = [given for _, given in elements.seen if given.get("role") == "region"]
    assert len(regions) == len(of["table"])


def test_the_page_of_a_very_large_network_stays_small() -> None:
    many = 20_000
    name = "/model/layers.{}/attention/self/query/MatMul_with_a_long_name".format
    rows = tuple((name(i), "Conv", "1.0") for i in range(many))
    table = Table(names("layer", "op", "figure"), rows, num_shown=10)
    data = {"layers": {name(i): i for i in range(many)}}
    page = to_html(Report(title="x" * 100_000, sections=(Section("Layers", (table,)),), data=data))
    assert len(page) < 400_000
    assert "19490 more stand in the JSON record" in page
    assert "too long for a page" in page


def test_what_is_empty_is_left_out() -> None:
    page = to_html(Report(title="nothing"))
    assert "<h2>" not in page
    assert "PASSED" not in page


def test_junit_has_a_case_for_every_limit_and_counts_failures(report: Report) -> None:
    from xml.etree import ElementTree as ET

    root = ET.fromstring(to_junit(report))  # noqa: S314 - our own text
    accuracy, latency = root
    assert accuracy.get("failures") == "1"
    failure = accuracy.find("testcase/failure")
    assert "at least 80 dB" in failure.get("message")
    assert latency.find("testcase/failure") is not None
    assert int(accuracy.get("tests")) == len(accuracy.findall("testcase"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("needs a browser: chromium or chrome")
    with Browser(program) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_fits_wide_and_narrow_screens(
    browser: Browser, report: Report, tmp_path: Path, width: int, dark: bool
) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(report), encoding="utf-8")
    browser.open(path, width, dark=dark)
    seen = browser.value(LOOK)
    assert seen["width"] <= width
    assert seen["plots"] >= 4
    assert seen["smallest"] > 60
    assert seen["verdict"] < 150
    assert seen["background"] == "rgb(179, 38, 30)"
    assert seen["faint"] == []
    assert browser.complaints == []


LOOK = """(() => {
  const light = (color) => {
    const parts = color.match(/[0-9.]+/g).slice(0, 3).map((one) => one / 255)
      .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (node) => {
    const color = node.closest("svg") ? getComputedStyle(node).fill : getComputedStyle(node).color;
    const both = [light(color), light(behind(node))].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  };
  const texts = [...document.querySelectorAll(
    "p, li, dt, dd, th, td, em, strong, span, summary, figcaption, text")];
  const plots = [...document.querySelectorAll("svg.plot")].map((one) => one.getBoundingClientRect());
  return {
    width: document.documentElement.scrollWidth,
    plots: plots.length,
    smallest: Math.min(...plots.map((one) => Math.min(one.width, one.height))),
    verdict: document.querySelector(".verdict").getBoundingClientRect().top,
    background: getComputedStyle(document.querySelector(".verdict")).backgroundColor,
    faint: texts.filter((one) => one.textContent.trim() && contrast(one) < 4.5)
      .map((one) => `${one.tagName} ${one.textContent.slice(0, 40)} ${contrast(one).toFixed(2)}`),
  };
})()"""


def test_a_bar_tells_what_it_is_when_it_is_pointed_at(
    browser: Browser, report: Report, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(report), encoding="utf-8")
    browser.open(path, 1200)
    bar = "document.querySelector('rect.slat:not([width=\"11\"])')"
    browser.value(f"{bar}.scrollIntoView()")
    x, y = (browser.value(f"{bar}.getBoundingClientRect().{side}") for side in ("x", "y"))
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 2, y=y + 2)
    assert browser.value("document.getElementById('tip').textContent") == f"{WILD} (Conv)"
    assert browser.complaints == []


def test_the_page_prints(browser: Browser, report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(report), encoding="utf-8")
    browser.open(path, 1200)
    content = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert content.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12


def test_lines_do_not_end_inside_the_name_of_an_option() -> None:
    page = to_html(
        Report(
            title="t",
            ruling="NOT JUDGED",
            verdict="set --min-sqnr <now>, or --labels; a--b is none",
        )
    )
    flags = re.findall(r'<span class="flag">([^<]*)</span>', page)
    assert flags == ["--min-sqnr", "--labels"]
    assert "</span> &lt;now&gt;, or" in page
    assert ".flag { white-space: nowrap; }" in page
