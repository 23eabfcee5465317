"""What the report of a build says: the same on the terminal, on the page and in JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import trtbuild.jobs.engine
from tests.command import trtbuild as command
from tests.models import NETWORKS
from trtbuild.jobs.speed import Speed
from trtbuild.latency.measure import Samples
from trtbuild.latency.regress import taken_together


@pytest.fixture
def files(tmp_path):
    return (*NETWORKS["opset_13"].save(tmp_path), tmp_path)


def build(capsys, files, *options):
    model, data, folder = files
    page = folder / "page.html"
    done = command(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", folder / "out"),
        *("--no-latency", "--report", page, *options),
    )
    assert done.code in (0, 1), done.err
    return done, page.read_text(encoding="utf-8")


def test_images_that_calibration_has_not_seen(files, capsys) -> None:
    done, page = build(capsys, files)
    assert "samples: 3, not seen by calibration" in done.out
    assert "<dt>samples</dt><dd>3, not seen by calibration</dd>" in page


def test_images_that_an_earlier_calibration_may_have_seen(files, capsys) -> None:
    model, data, folder = files
    ranges = folder / "ranges.json"
    assert command(capsys, "calibrate", model, "--data", data, "-o", ranges).code == 0
    done, page = build(capsys, files, "--calibration", ranges)
    found = re.search(r"<dd>(\d+), which calibration may have seen</dd>", page)
    assert f"samples: {found[1]}, which calibration may have seen" in done.out
    assert "not seen" not in page + done.out


def test_the_verdict_and_every_limit_are_in_all_of_them(files, capsys) -> None:
    junit = files[2] / "junit.xml"
    done, page = build(capsys, files, "--min-sqnr", 90, "--junit", junit)
    assert done.code == 1
    (failed,) = {line for line in done.out.splitlines() if line.startswith("engine: SQNR")}
    assert "at least 90 dB, failed" in failed
    text = failed.removeprefix("engine: ").replace("'", "&#39;")
    assert f'<li class="bad">engine: {text}</li>' in page
    assert failed.removeprefix("engine: ") in junit.read_text(encoding="utf-8")
    words = re.search(r"DO NOT SHIP: (.*)", done.out)[1].strip()
    assert words in page


def test_speed_is_judged_as_bench_judges_it(monkeypatch, files, capsys) -> None:
    # turns of three runs: the engine is faster than float in half of them and slower in the others
    moves = np.random.default_rng(0).random((3, 15, 3))
    base, other = 7.0 + moves[0], np.where(np.arange(15) % 2, 10.5, 3.0)[:, None] + moves[1]
    half = 30.0 + moves[2]
    taken = {
        name: Samples(name, 1, "host", 3, tuple(values.ravel().tolist()))
        for name, values in (
            ("float", base),
            ("engine", other),
            ("fp16", half),
            ("again", 1.1 * half),
        )
    }
    again = taken.pop("again")
    speed = Speed(taken, {"float": taken["float"], "fp16": again})
    monkeypatch.setattr(trtbuild.jobs.engine, "take_times", lambda *given: speed)
    said = str(taken_together(taken["float"], taken["engine"], taken["float"]))
    assert "cannot tell" in said
    named = replace(taken["fp16"], name="FP16")
    quick = str(taken_together(named, taken["engine"], again))
    assert "faster" in quick
    model, data, folder = files
    page = folder / "page.html"
    words = ("engine", model, "--int8", "--data", data, "-o", folder / "out", "--report", page)
    done = command(capsys, *words)
    text = page.read_text(encoding="utf-8")
    for one in (said, quick):
        assert one in " ".join(done.out.split())
        assert one.replace("'", "&#39;") in text
    assert re.search(r"Speed against FP16 +[\d.]+ x faster +than FP16, here", done.out)
    # ONNX Runtime builds no such engine, and it is said why
    assert "not compared with FP16: ONNX Runtime on a CPU computes FP16 as FP32" in done.out
    manifest = json.loads((folder / "out" / "net.manifest.json").read_text())
    assert manifest["latency_verdicts"]["engine"]["answer"] == "cannot tell"
    assert manifest["latency_against_fp16"]["answer"] == "faster"
    assert manifest["without_fp16"].startswith("ONNX Runtime on a CPU computes FP16 as FP32")


def test_the_record_on_the_page_is_the_manifest(files, capsys) -> None:
    _, page = build(capsys, files)
    record = re.search(r"<pre>(.*)</pre>", page, re.DOTALL)[1]
    for escaped, char in (
        ("&#34;", '"'),
        ("&#39;", "'"),
        ("&gt;", ">"),
        ("&lt;", "<"),
        ("&amp;", "&"),
    ):
        record = record.replace(escaped, char)
    assert json.loads(record) == json.loads((files[2] / "out" / "net.manifest.json").read_text())


def test_what_the_manifest_says_is_what_was_done(files, capsys) -> None:
    done, _ = build(capsys, files, "--min-sqnr", 10, "--float", "Gemm", "--json")
    found = done.json
    assert found["passed"] is True
    assert found["options"]["gate"] == {"min_sqnr": 10.0}
    ran = {layer["op_type"]: layer["int8"] for layer in found["layers"]}
    assert (ran["Conv"], ran["Gemm"]) == (True, False)
    assert found["engine"]["file"] in found["files"]
    assert set(found["verification"]) == {"tensorrt_form", "engine"}
    assert found["latency"] == {}
    assert found["data"]["calibration_digest"] != found["data"]["verification_digest"]
