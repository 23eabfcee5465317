"""The report of a build says the same on the terminal, on the page and in JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import trtbuild.jobs.build_checks
import trtbuild.jobs.engine
from tests.command import FAST
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
        *(*FAST, "--no-latency", "--report", page, *options),
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


def test_a_limit_of_time_that_ended_the_choice_of_ranges_is_told(
    monkeypatch, files, capsys
) -> None:
    said = "note: the choice of ranges reached the limit of time"
    for seconds, is_told in ((np.inf, False), (0.0, True)):
        monkeypatch.setattr("trtbuild.jobs.ranges.seconds_for", lambda *_, limit=seconds: limit)
        done, page = build(capsys, files)
        assert (said in " ".join(done.out.split())) == is_told
        assert (said.removeprefix("note: ") in page) == is_told


def test_the_verdict_and_every_limit_are_in_all_of_them(files, capsys) -> None:
    junit = files[2] / "junit.xml"
    done, page = build(capsys, files, "--min-sqnr", 90, "--junit", junit)
    assert done.code == 1
    (failed,) = {line for line in done.out.splitlines() if line.startswith("engine: SQNR")}
    assert "at least 90 dB, failed" in failed
    text = failed.removeprefix("engine: ").replace("'", "&#39;")
    assert f'<li class="bad">engine: {text}</li>' in page
    assert failed.removeprefix("engine: ") in junit.read_text(encoding="utf-8")
    words = re.search(r"DO NOT SHIP: (.*)", done.out)[1].strip().replace("'", "&#39;")
    assert words in page


def test_speed_is_judged_as_bench_judges_it(monkeypatch, files, capsys) -> None:
    # turns of three runs: the engine is faster than float in half of the turns and slower in the others
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
    done = command(capsys, *words, *FAST)
    text = page.read_text(encoding="utf-8")
    for one in (said, quick):
        assert one in " ".join(done.out.split())
        assert one.replace("'", "&#39;") in text
    assert re.search(r"Speed against FP16 +[\d.]+ x faster +than FP16, here", done.out)
    # ONNX Runtime builds no such engine, and the report says why
    assert "not compared with FP16: ONNX Runtime computes FP16 as FP32" in done.out
    manifest = json.loads((folder / "out" / "net.manifest.json").read_text())
    assert manifest["latency_verdicts"]["engine"]["answer"] == "cannot tell"
    assert manifest["latency_against_fp16"]["answer"] == "faster"
    assert manifest["without_fp16"].startswith("ONNX Runtime computes FP16 as FP32")


def timed(monkeypatch, engine_ms: float, spread: float = 0.01) -> None:
    """Let a build measure these latencies for its engine, 8 ms for float and 4 ms for FP16."""
    moves = 1 + spread * np.random.default_rng(0).random((3, 40, 3))
    medians = {"float": 8.0, "engine": engine_ms, "fp16": 4.0}
    taken = {
        name: Samples(name, 1, "host", 3, tuple((median * move).ravel().tolist()))
        for (name, median), move in zip(medians.items(), moves)
    }
    speed = Speed(taken, {"float": taken["float"], "fp16": taken["fp16"]})
    monkeypatch.setattr(trtbuild.jobs.engine, "take_times", lambda *given: speed)
    monkeypatch.setattr(trtbuild.jobs.build_checks, "why_no_fp16", lambda *given: "")


AT_THE_LIMIT = {"engine_ms": 8.0 / 1.5, "spread": 0.3}
EXIT = {"SHIP": 0, "DO NOT SHIP": 1, "CANNOT TELL": 5}


@pytest.mark.parametrize(
    ("latencies", "options", "word", "what", "step"),
    [
        ({"engine_ms": 4.0}, (), "SHIP", "speed over float", ""),
        ({"engine_ms": 6.0}, (), "DO NOT SHIP", "speed over float", "--layer-times"),
        (AT_THE_LIMIT, (), "CANNOT TELL", "speed over float", "--seconds 20"),
        ({"engine_ms": 5.0}, ("--max-latency", 4), "DO NOT SHIP", "median latency", ""),
        ({"engine_ms": 5.0}, ("--min-fp16-speedup", 1), "DO NOT SHIP", "speed over FP16", ""),
    ],
)
def test_limits_on_speed_are_judged_alike_everywhere(
    latencies, options, word, what, step, monkeypatch, files, capsys
) -> None:
    timed(monkeypatch, **latencies)
    model, data, folder = files
    page, junit, out = folder / "page.html", folder / "junit.xml", folder / "out"
    command_line = ("engine", model, "--int8", "--data", data, "-o", out, "--min-sqnr", 1, *FAST)
    written = ("--min-speedup", 1.5, *options, "--strict", "--report", page, "--junit", junit)
    done = command(capsys, *command_line, *written)
    assert done.code == EXIT[word], done.err
    shown = " ".join(done.out.split())
    assert f"{word}: " in shown
    manifest = json.loads((out / "net.manifest.json").read_text())
    assert manifest["ruling"]["word"] == word
    assert manifest["passed"] == (word != "DO NOT SHIP")
    (found,) = [one for one in manifest["speed"]["engine"] if what in one["what"]]
    assert found["passed"] == (word != "DO NOT SHIP")
    assert found["settled"] == (word != "CANNOT TELL")
    assert f"engine: {found['what']}: {found['found']:.4g}" in shown
    html = page.read_text(encoding="utf-8")
    assert word in html
    assert found["what"] in html
    case = re.search(
        rf'<testcase[^>]*name="{found["what"]}".*?</testcase>', junit.read_text(), re.DOTALL
    )
    ends = {"SHIP": "<system-out>", "DO NOT SHIP": "<failure", "CANNOT TELL": "<skipped"}
    assert ends[word] in case[0]
    assert step in (manifest["next_step"] or {"command": ""})["command"]


def test_speed_alone_ships_nothing(monkeypatch, files, capsys) -> None:
    timed(monkeypatch, 4.0)
    model, data, folder = files
    words = ("engine", model, "--int8", "--data", data, "-o", folder / "out", "--min-speedup", 1.5)
    done = command(capsys, *words, *FAST)
    assert done.code == 0
    assert "NOT JUDGED: all values are finite, and no limit on accuracy was set" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--max-latency", 5, "--no-latency"),
            "--max-latency is a limit on latency, but --no-latency",
        ),
        (
            ("--min-fp16-speedup", 1.2),
            "--min-fp16-speedup has nothing to compare with: ONNX Runtime",
        ),
        (
            ("--min-fp16-speedup", 1, "--no-fp16-baseline"),
            "--min-fp16-speedup compares INT8 with FP16",
        ),
        (("--min-speedup", 0), "--min-speedup must be a number above 0, not 0"),
    ],
)
def test_a_limit_on_speed_that_nothing_is_held_against_is_refused(
    files, capsys, options, said
) -> None:
    model, data, folder = files
    done = command(
        capsys, "engine", model, "--int8", "--data", data, "-o", folder / "out", *options
    )
    assert done.code == 2
    assert said in done.err


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
    done, _ = build(capsys, files, "--min-sqnr", 10, "--float", "Gemm", "--float", "Relu", "--json")
    found = done.json
    (floats,) = (stage["details"] for stage in found["stages"] if stage["stage"] == "float")
    assert list(floats["idle_patterns"]) == ["Relu"]
    assert "--float 'Relu' changes nothing" in done.err
    assert found["passed"] is True
    assert found["options"]["gate"] == {"min_sqnr": 10.0}
    ran = {layer["op_type"]: layer["int8"] for layer in found["layers"]}
    assert (ran["Conv"], ran["Gemm"]) == (True, False)
    assert found["engine"]["file"] in found["files"]
    assert set(found["verification"]) == {"tensorrt_form", "engine"}
    assert found["latency"] == {}
    assert found["data"]["calibration_digest"] != found["data"]["verification_digest"]
