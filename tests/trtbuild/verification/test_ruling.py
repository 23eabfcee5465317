"""The four verdicts, their exit codes, and the floor below which nothing is shipped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.fakes import FunctionSession, batches_of
from tests.trtbuild.verification.small_network import images, quantized
from trtbuild.cli.main import run
from trtbuild.errors import OptionError
from trtbuild.model import write_model
from trtbuild.options.compare import ComparisonOptions, TaskOptions
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Gate, check_limits, judge
from trtbuild.verification.ruling import floors, rule
from trtbuild.verification.tasks.choose import choose_task

if TYPE_CHECKING:
    from pathlib import Path

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
    return rule([verdict], floors({"it": comparison}, [verdict]))


def test_the_four_answers() -> None:
    found = compared(2)  # 95 %; Wilson: 83.5 to 98.6
    assert ruled(found).word == "NOT JUDGED"
    assert "--min-agreement" in ruled(found).why
    assert ruled(found, min_agreement=80).word == "SHIP"
    assert ruled(found, min_agreement=96).word == "DO NOT SHIP"
    doubtful = ruled(found, min_agreement=90)
    assert doubtful.word == "CANNOT TELL"
    assert "same class" in doubtful.why
    assert [ruled(found, min_agreement=n).exit_code() for n in (80, 90, 96)] == [0, 0, 1]
    assert doubtful.exit_code(is_strict=True) == 5


def test_so_many_images_would_do() -> None:
    (finding,) = [f for f in judge(compared(2), Gate(min_agreement=90)).findings if f.is_limit]
    # the interval reaches 11.5 points down, the limit is 5 away
    assert finding.num_needed == pytest.approx(40 * (11.5 / 5) ** 2, rel=0.02)
    settled = [f for f in judge(compared(2), Gate(min_agreement=80)).findings if f.is_limit]
    assert settled[0].num_needed is None


def test_a_limit_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(OptionError, match=r"'min_psnr'; there are .*min_sqnr"):
        check_limits(["min_psnr"])


def test_a_limit_of_nothing_is_a_limit() -> None:
    assert ruled(compared(0), max_error=0.0).word == "SHIP"


def test_what_lies_below_the_floor_is_never_shipped() -> None:
    poor = compared(12)  # 70 %
    assert "same class of it is 70.0 %" in ruled(poor).why
    assert ruled(poor, max_error=1e6).word == "NOT JUDGED"
    assert ruled(poor, min_agreement=40).word == "SHIP"
    # without a task: 6 dB
    far = compared(0, "none", noise=0.5)
    assert "6.0 dB" in ruled(far).why
    assert ruled(far, min_sqnr=5).word == "SHIP"
    assert ruled(compared(0, "none", noise=0.01)).why.startswith("all values are finite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ruled")
    artifact = quantized()
    write_model(artifact.source, folder / "float.onnx")
    write_model(artifact.quantized, folder / "int8.onnx")
    np.savez(folder / "images.npz", image=images(3, 8))
    return folder


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
    limits = ["--min-sqnr", "-100", "--no-tune", "--no-latency", "--task", "none"]
    assert run([*command, *limits, "-o", str(tmp_path / "out")]) == 0
    assert (
        "NOT JUDGED: every limit holds, but the input 'image' hardly varies"
        in capsys.readouterr().out
    )
    manifest = json.loads((tmp_path / "out" / "float.manifest.json").read_text(encoding="utf-8"))
    assert manifest["ruling"]["word"] == "NOT JUDGED"
    assert any("hardly varies" in text for text in manifest["below_floor"])
