"""The four verdicts, their exit codes, and the floor below which nothing is shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy.stats import binomtest

from calibrators.cache import CalibrationCache
from tests.command import FAST, trtbuild
from tests.fakes import FunctionSession, batches_of
from tests.trtbuild.verification.small_network import images, written
from trtbuild.cli.main import run
from trtbuild.errors import OptionError
from trtbuild.options.compare import ComparisonOptions, TaskOptions
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Finding, Gate, check_limits, judge
from trtbuild.verification.intervals import percent, samples_needed
from trtbuild.verification.ruling import floors, rule
from trtbuild.verification.tasks.choose import choose_task

IMAGES = np.random.default_rng(7).normal(size=(40, 6)).astype(np.float32)


def compared(num_wrong: int, kind: str = "classify", noise: float = 0.0):
    """An engine that gives the first images another class, and noise on all."""
    wrong = {row.tobytes() for row in IMAGES[:num_wrong]}

    def engine(x: np.ndarray) -> np.ndarray:
        rows = [-row if row.tobytes() in wrong else row for row in x]
        return np.stack(rows) * np.float32(1 + noise)

    options = ComparisonOptions(make_task=choose_task(TaskOptions(kind=kind), None))
    session = FunctionSession(lambda x: x)
    return compare(session, FunctionSession(engine), batches_of(IMAGES), options)


def ruled(comparison, **limits: float):
    verdict = judge(comparison, Gate(**limits))
    return rule([verdict], floors({"it": comparison}, [verdict]), compared=[comparison])


def test_the_interval_decides_between_the_four_verdicts() -> None:
    found = compared(2)  # 95 %; Wilson: 83.5 to 98.6
    assert ruled(found).word == "NOT JUDGED"
    assert "--min-agreement" in ruled(found).why
    assert ruled(found, min_agreement=80).word == "SHIP"
    assert ruled(found, min_agreement=98).word == "DO NOT SHIP"
    doubtful = ruled(found, min_agreement=90)
    assert doubtful.word == "CANNOT TELL"
    assert "same class" in doubtful.why
    assert [ruled(found, min_agreement=n).exit_code() for n in (80, 90, 98)] == [0, 0, 1]
    assert doubtful.exit_code(is_strict=True) == 5


def test_the_number_of_images_that_would_decide_is_near_the_true_one() -> None:
    (finding,) = [f for f in judge(compared(2), Gate(min_agreement=90)).findings if f.is_limit]
    # independent truth: the first number with the lower end of Wilson's 95 % interval above the limit
    shares = ((n, binomtest(round(0.95 * n), n)) for n in range(20, 1000, 20))
    least = next(n for n, one in shares if one.proportion_ci(method="wilson").low > 0.9)
    assert finding.num_needed == pytest.approx(least, abs=20)
    settled = [f for f in judge(compared(2), Gate(min_agreement=80)).findings if f.is_limit]
    assert settled[0].num_needed is None


def test_a_miss_by_one_answer_cannot_tell_and_by_two_does_not_ship() -> None:
    # 95 % of 40, each answer 2.5 points: a good engine of 97 % does worse in one of three such sets
    missed = ruled(compared(2), min_agreement=97)
    assert missed.word == "CANNOT TELL"
    assert "misses its limit by one answer" in missed.why
    assert [missed.exit_code(), missed.exit_code(is_strict=True)] == [0, 5]
    assert ruled(compared(2), min_agreement=97.6).word == "DO NOT SHIP"
    # surely too few, not by chance
    assert ruled(compared(20), min_agreement=97).word == "DO NOT SHIP"


@pytest.mark.parametrize(("wrong", "limit"), [(0, 98.0), (1, 94.0), (0, 80.0), (4, 70.0)])
def test_the_needed_samples_are_the_fewest_that_decide(wrong: int, limit: float) -> None:
    share, trials = 1 - wrong / 20, 20
    found = samples_needed(percent(20 - wrong, 20), limit, trials)
    if not percent(20 - wrong, 20).holds(limit):
        return
    assert found is not None

    def low(count: int) -> float:
        """Wilson's lower end for this share, also for fractional numbers of answers."""
        z = 1.959963984540054
        centre = share + z * z / (2 * count)
        half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
        return 100 * (centre - half) / (1 + z * z / count)

    assert low(found) >= limit > low(found - 3)


def test_no_number_of_samples_is_named_if_a_figure_lacks_an_interval() -> None:
    first = judge(compared(2), Gate(min_agreement=90))
    unknown = replace(first, findings=tuple(replace(f, num_needed=None) for f in first.findings))
    assert "about 140 samples would do" in rule([first]).why
    assert "at least 140 samples would do" in rule([first, unknown]).why


@pytest.mark.parametrize(
    ("needed", "said"), [(7, "7"), (157, "160"), (160, "160"), (2411, "2,500"), (15701, "16,000")]
)
def test_the_number_of_samples_is_said_to_two_digits_and_rounded_up(needed: int, said: str) -> None:
    first = judge(compared(2), Gate(min_agreement=90))
    many = tuple(replace(f, num_needed=needed) for f in first.findings)
    assert f"about {said} samples would do" in rule([replace(first, findings=many)]).why


def test_a_doubt_names_its_network_and_a_miss_comes_first() -> None:
    sure, near, missed = (judge(compared(2), Gate(min_agreement=n)) for n in (80, 90, 97))
    names = ["the portable form", "the engine"]
    assert "same class of the engine could be" in rule([sure, near], names=names).why
    assert "same class of the portable form could be" in rule([near, sure], names=names).why
    assert rule([near, missed], names=names).why.startswith("same class of the engine misses")


def test_an_engine_that_answers_one_class_is_not_shipped() -> None:
    rows = IMAGES.copy()
    rows[:38, 0] = 9.0  # nearly always class 0; the engine always answers class 0
    constant = np.array([9, 0, 0, 0, 0, 0], np.float32)
    options = ComparisonOptions(make_task=choose_task(TaskOptions(kind="classify"), None))
    session = FunctionSession(lambda x: x)
    engine = FunctionSession(lambda x: np.repeat(constant[None], len(x), 0))
    for count, said in (
        (40, "one class on all 40 samples, and float"),
        (30, "do not follow float's"),
    ):
        found = compare(session, engine, batches_of(rows[:count]), options)
        assert found.task.main.estimate.value >= 95
        assert ruled(found, min_agreement=50).word == "NOT JUDGED"
        assert said in ruled(found, min_agreement=50).why
    assert (
        ruled(compare(session, session, batches_of(rows[:30]), options), min_agreement=50).word
        == "SHIP"
    )
    # nor on samples that are all equal but for a thousandth, which eight bits do not show
    steps = np.linspace(-1, 1, 30)[:, None] / np.linspace(-1, 1, 30).std(ddof=1)
    for deviation, word in ((0.9e-3, "NOT JUDGED"), (1.1e-3, "SHIP")):
        near = (rows[:1] * (1 + deviation * steps)).astype(np.float32)
        alike = ruled(compare(session, session, batches_of(near), options), min_agreement=50)
        assert alike.word == word
        is_said = "one class on all 30 samples, with nearly the same scores" in alike.why
        assert is_said == (word == "NOT JUDGED")


def test_a_figure_that_misses_its_limit_is_told_apart_from_it() -> None:
    near = Finding("cosine", "", 0.99999999, False, 0.999999987, False)
    assert str(near) == "cosine: 0.999999987, at least 0.99999999, failed"


def test_what_was_trained_on_may_compute_something_else_where_its_task_is_judged() -> None:
    options = ComparisonOptions(make_task=choose_task(TaskOptions(kind="classify"), None))
    engine = FunctionSession(lambda x: 2.5 * x)  # -3.5 dB, and every class as before
    found = compare(FunctionSession(lambda x: x), engine, batches_of(IMAGES), options)
    for limit, trained, is_below in ((50, False, True), (50, True, False), (None, True, True)):
        verdict = judge(found, Gate(min_agreement=limit))
        assert bool(floors({"it": found}, [verdict], was_trained=trained)) == is_below


def test_top1_that_is_surely_lost_is_not_shipped_unless_a_limit_takes_it() -> None:
    labels = IMAGES.argmax(1)
    wrong = {row.tobytes() for row in IMAGES[:10]}

    def engine(x: np.ndarray) -> np.ndarray:
        # now the second class wins; nothing else changes
        rows = x.copy()
        for row, one in zip(rows, x):
            if one.tobytes() in wrong:
                first, second = np.argsort(-one)[:2]
                row[[first, second]] = row[[second, first]]
        return rows

    session = FunctionSession(lambda x: x)
    found = compare(session, FunctionSession(engine), batches_of(IMAGES, labels))
    assert found.accuracy.drop_points.value == 25.0
    lost = ruled(found, min_sqnr=3)
    assert lost.word == "NOT JUDGED"
    assert "loses 25.0 points of top-1" in lost.why
    assert ruled(found, min_sqnr=3, max_top1_drop=50).word == "SHIP"


def test_a_limit_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(OptionError, match=r"'min_psnr'; there are .*min_sqnr"):
        check_limits(["min_psnr"])


@pytest.mark.parametrize(("noise", "word"), [(0.70, "SHIP"), (0.71, "NOT JUDGED")])
def test_half_of_the_signal_as_noise_is_no_answer(noise: float, word: str) -> None:
    """3.1 and 2.97 dB, with all classes equal."""
    assert ruled(compared(0, noise=noise), min_agreement=50).word == word


def test_a_limit_of_zero_is_a_limit() -> None:
    assert ruled(compared(0), max_error=0.0).word == "SHIP"


def test_an_engine_below_the_floor_is_never_shipped() -> None:
    poor = compared(12)  # 70 %
    assert "same class of it is 70.0 %" in ruled(poor).why
    assert ruled(poor, max_error=1e6).word == "NOT JUDGED"
    # 12 of 40 rows are turned round: -0.8 dB, and no figure of a task makes up for that
    assert "-0.8 dB" in ruled(poor, min_agreement=40).why
    assert ruled(poor, min_agreement=40).word == "NOT JUDGED"
    # limits that even an engine of zeros meets judge nothing
    silent = compare(
        FunctionSession(lambda x: x), FunctionSession(np.zeros_like), batches_of(IMAGES)
    )
    for limits in (
        {"max_error": 1e6},
        {"min_sqnr": -5},
        {"min_cosine": -1},
        {"max_relative_l2": 9},
    ):
        assert ruled(silent, **limits).word == "NOT JUDGED"
    # without a task: 6 dB
    far = compared(0, "none", noise=0.5)
    assert "6.0 dB" in ruled(far).why
    assert ruled(far, min_sqnr=5).word == "SHIP"
    assert ruled(compared(0, "none", noise=0.01)).why.startswith("all values are finite")


def lists_compared(num_short: int, **task):
    """An engine that finds one box of three less in the first images."""
    short = {row.tobytes() for row in IMAGES[:num_short]}
    boxes = np.array([[0, 9 * i, 0, 9 * i + 8, 8, 0.9, 1] for i in range(3)], np.float32)
    options = ComparisonOptions(make_task=choose_task(TaskOptions(**task), None))
    engine = FunctionSession(lambda x: boxes[: 2 if x.tobytes() in short else 3])
    float_network = FunctionSession(lambda x: boxes)
    return compare(float_network, engine, batches_of(IMAGES, batch_size=1), options)


def has_same_boxes(reference, candidate, labels, names):
    return [float(np.array_equal(reference["y"], candidate["y"]))]


def test_lists_of_another_length_are_judged_as_boxes_or_by_a_judge() -> None:
    found = lists_compared(4, kind="detect", box_layout="nms")
    assert found.output("y").num_incomparable == 4
    assert found.task.main.estimate.value == pytest.approx(200 * 116 / 236)
    assert ruled(found, min_agreement=90).word == "SHIP"
    assert ruled(found).why.startswith("all values are finite")
    judged_by_us = lists_compared(4, judge=has_same_boxes)
    assert judged_by_us.task.main.estimate.value == pytest.approx(0.9)
    assert ruled(judged_by_us, min_agreement=0.5).word == "SHIP"
    # a limit on values cannot be met by samples that have no value to compare
    for limits in ({"min_sqnr": 1}, {"max_error": 1e6}):
        assert ruled(found, min_agreement=90, **limits).word == "DO NOT SHIP"


@pytest.mark.parametrize("num_short", [4, 40])
def test_lists_of_another_length_that_nothing_judges_are_not_shipped(num_short: int) -> None:
    found = lists_compared(num_short, kind="none")
    without = ruled(found)
    assert without.word == "NOT JUDGED"
    assert f"'y' of it has another shape than in float for {num_short} of 40 samples" in without.why
    assert "--judge" in without.why
    assert ruled(lists_compared(0, kind="none")).why.startswith("all values are finite")
    assert floors({"it": found}, (), is_evaluated=True) == ()


def test_an_evaluation_of_ones_own_judges_as_a_task_does() -> None:
    far = compared(0, "none", noise=0.5)  # 6 dB
    poor = compared(12)  # 70 % and -0.8 dB
    assert floors({"it": far}, ())
    assert floors({"it": far}, (), is_evaluated=True) == ()
    assert "same class" in floors({"it": poor}, ())[0]
    (left,) = floors({"it": poor}, (), is_evaluated=True)
    assert "-0.8 dB" in left


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("ruled"), 8)


def test_the_words_are_the_same_everywhere(folder: Path, tmp_path: Path, capsys) -> None:
    command = ["verify", *(str(folder / name) for name in ("float.onnx", "int8.onnx"))]
    command += ["--data", str(folder / "images.npz"), "--task", "classify"]
    page, suites = tmp_path / "page.html", tmp_path / "junit.xml"
    files = ["--report", str(page), "--junit", str(suites)]
    for limits, word, codes in (
        ([], "NOT JUDGED", (0, 0)),
        (["--min-top1-agreement", "1"], "SHIP", (0, 0)),
        (["--min-top1-agreement", "75"], "CANNOT TELL", (0, 5)),
        (["--min-sqnr", "90"], "DO NOT SHIP", (1, 1)),
    ):
        assert run([*command, *limits, *files]) == codes[0]
        assert f"{word}: " in capsys.readouterr().out
        assert word in page.read_text(encoding="utf-8")
        found = ET.fromstring(suites.read_bytes()).find(  # noqa: S314 - our own file
            "testsuite/properties/property[@name='verdict']"
        )
        assert found.get("value") == word
        assert run([*command, *limits, "--strict", "--json"]) == codes[1]
        assert json.loads(capsys.readouterr().out)["ruling"]["word"] == word


def test_an_engine_that_was_calibrated_on_one_value_is_not_shipped(
    folder: Path, tmp_path: Path, capsys
) -> None:
    np.savez(tmp_path / "same.npz", image=np.ones_like(images(3, 16)))
    command = ["engine", str(folder / "float.onnx"), "--int8", "--data", str(tmp_path / "same.npz")]
    command += ["--verify-data", str(folder / "images.npz")]
    limits = ["--min-sqnr", "-100", "--no-tune", "--no-latency", *FAST, "--task", "none"]
    assert run([*command, *limits, "-o", str(tmp_path / "out")]) == 0
    assert (
        "NOT JUDGED: every limit holds, but the input 'image' hardly varies"
        in capsys.readouterr().out
    )
    manifest = json.loads((tmp_path / "out" / "float.manifest.json").read_text(encoding="utf-8"))
    assert manifest["ruling"]["word"] == "NOT JUDGED"
    assert any("hardly varies" in text for text in manifest["below_floor"])


def test_a_cache_that_the_engine_was_not_built_with_is_not_shipped(
    folder: Path, tmp_path: Path, capsys
) -> None:
    cache = tmp_path / "other.cache"
    cache.write_bytes(
        CalibrationCache("TRT-101601-EntropyCalibration2", {"q": np.float32(0.1)}).to_bytes()
    )
    command = ["engine", str(folder / "float.onnx"), "--int8", "--data", str(folder / "images.npz")]
    command += ["--backend", "onnxruntime"]
    limits = ["--min-sqnr", "3", "--no-tune", "--no-latency", *FAST, "--task", "none"]
    more = ["--cache", str(cache), "--json", "-o", str(tmp_path / "out")]
    assert run([*command, *limits, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ruling"]["word"] == "NOT JUDGED"
    assert "the calibration cache had no effect" in found["ruling"]["why"]
    stages = {record["stage"]: record["summary"] for record in found["stages"]}
    assert "scales for 0 of" in stages["cache"]


RAISES = """
def judge(float_outputs, engine_outputs, labels, names):
    return float_outputs["absent"]
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "ctc"), "--task ctc needs an output"),
        (("--task", "segment"), "--task segment needs an output"),
        (("--task", "detect", "--box-layout", "ssd"), "--box-layout ssd needs outputs"),
        (("--task", "classify", "--min-agreement", "200"), "'same class' is 0 to 100 %"),
        (("--task", "classify", "--min-agreement", "-1"), "'same class' is 0 to 100 %"),
        (("--judge", "judge.py:judge"), "raised KeyError"),
    ],
)
def test_what_the_outputs_do_not_fit_is_refused_before_calibration(
    folder: Path, tmp_path: Path, capsys, monkeypatch, options, said
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge.py").write_text(RAISES)
    data = folder / "images.npz"
    done = trtbuild(
        capsys, "engine", folder / "float.onnx", "--int8", "--data", data, "-o", "out", *options
    )
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "calibrate" not in done.err
    assert not Path("out").exists()


def test_a_limit_that_no_share_reaches_is_refused(folder: Path, capsys) -> None:
    named = (folder / "float.onnx", folder / "int8.onnx", "--data", folder / "images.npz")
    limits = ("--task", "classify", "--min-agreement", "101")
    assert (
        "'same class' is 0 to 100 %" in trtbuild(capsys, "verify", *named, *limits, "-q").sentence
    )


@pytest.mark.parametrize(("task", "is_named"), [("none", False), ("classify", True)])
def test_a_limit_is_advised_that_can_be_judged(folder: Path, capsys, task, is_named) -> None:
    named = (folder / "float.onnx", folder / "int8.onnx", "--data", folder / "images.npz")
    why = trtbuild(capsys, "verify", *named, "--task", task, "--json").json["ruling"]["why"]
    assert "--min-sqnr" in why
    assert ("--min-agreement" in why) is is_named


def test_one_sample_is_said_in_the_singular(folder: Path, tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "one.npz", image=images(3, 1))
    done = trtbuild(
        *(capsys, "verify", folder / "float.onnx", folder / "int8.onnx"),
        *("--data", tmp_path / "one.npz"),
    )
    assert "on 1 sample" in done.out
    assert "1 samples" not in done.out + done.err
