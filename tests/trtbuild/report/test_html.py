"""The page, read as XML-like text and looked at in a real browser."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calibrators import Collector
from tests.trtbuild.verification.small_network import batches, images, quantized
from trtbuild.jobs.bench import BenchResult
from trtbuild.jobs.verify import Verification
from trtbuild.latency.conditions import Conditions, this_device
from trtbuild.latency.measure import MONOTONIC, Samples
from trtbuild.latency.regress import taken_together
from trtbuild.plots.calibration import histogram_plot
from trtbuild.report.accuracy import verification_report
from trtbuild.report.html import to_html
from trtbuild.report.junit import to_junit
from trtbuild.report.latency import bench_report
from trtbuild.report.model import Plots, Report, Section, Table, names
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.bisect import Culprits
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.layers import layer_errors

if TYPE_CHECKING:
    from pathlib import Path

LONG = "/a/very/long/name/of/a/node" * 6


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
    result = BenchResult((base, slow), (taken_together(base, slow),), device, quiet, "random")
    speed = bench_report("speed", result)
    coverage = Table(names("layer", "reason"), ((LONG, "its weight is <empty>"),))
    amaxes = {"entropy": 2.5, "seen": 4.1}
    plot = histogram_plot("image", collector.histograms["image"], amaxes)
    return replace(
        accuracy,
        title="<small> & co",
        checks=(*accuracy.checks, *speed.checks),
        sections=(
            accuracy.sections[0],
            *speed.sections,
            Section("INT8 coverage", (coverage,)),
            accuracy.sections[1],
            Section("Thresholds", (Plots((plot,)),)),
        ),
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
    loading = {"src", "href", "data", "action"}
    assert not any(loading & set(attributes) for _, attributes in elements.seen)
    assert "script" not in {tag for tag, _ in elements.seen}
    assert "url(" not in page
    assert "@import" not in page


def test_the_verdict_comes_first_and_every_part_is_there(report: Report) -> None:
    page = to_html(report)
    text = " ".join(parsed(page).text)
    order = ["<small> & co", "DO NOT SHIP", "SQNR of 'logits'", "Accuracy", "Latency", "INT8 coverage",
             "Layers", "Thresholds", "Record"]  # fmt: skip
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "slower" in text
    assert "its weight is <empty>" in text
    assert "Conv_left" in text
    assert page.count("<svg") >= 3


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


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROBE = """<script>addEventListener("load", () => {
  const plots = [...document.querySelectorAll("svg")].map(s => s.getBoundingClientRect());
  const seen = {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    plots: plots.length,
    smallest: Math.min(...plots.map(r => Math.min(r.width, r.height))),
    verdict: document.querySelector(".verdict").getBoundingClientRect().top,
    background: getComputedStyle(document.querySelector(".verdict")).backgroundColor,
  };
  document.body.innerHTML = "<pre id=probe>" + JSON.stringify(seen) + "</pre>";
});</script>"""


@pytest.fixture(scope="module")
def browser() -> list[str]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs a browser: chromium or chrome")
    return [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]


@pytest.mark.parametrize("width", [1400, 500])  # browsers make no window narrower than 500
def test_the_page_fits_wide_and_narrow_screens(
    browser: list[str], report: Report, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(report).replace("</head>", PROBE + "</head>"), encoding="utf-8")
    dumped = subprocess.run(
        [*browser, f"--window-size={width},1000", "--dump-dom", f"file://{path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    seen = json.loads(re.search(r"<pre id=\"probe\">(.*?)</pre>", dumped).group(1))
    assert seen["overflow"] <= 0
    assert seen["plots"] >= 3
    assert seen["smallest"] > 60
    assert seen["verdict"] < 150
    assert seen["background"] == "rgb(179, 38, 30)"


def test_the_page_prints(browser: list[str], report: Report, tmp_path: Path) -> None:
    path, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(to_html(report), encoding="utf-8")
    subprocess.run(
        [*browser, f"--print-to-pdf={pdf}", f"file://{path}"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 8
