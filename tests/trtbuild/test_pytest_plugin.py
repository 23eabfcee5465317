"""The plugin as used in a deployment repository: a test file of five lines, run by pytest."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import numpy as np
import pytest

# what pytester's runs are the first to import is forgotten after them, and half of it found again
import trtbuild.jobs.bench
import trtbuild.jobs.verify  # noqa: F401
from tests.trtbuild.verification.small_network import images, quantized
from trtbuild.model import write_model

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["pytester"]

# An installed package brings the plugin by its entry point; a checkout has to name it.
INSTALLED = any(point.name == "trtbuild" for point in entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", "trtbuild.pytest_plugin")

TESTS = """
def test_accuracy(assert_accuracy):
    assert_accuracy("float.onnx", "int8.onnx", data="images.npz", min_sqnr={sqnr})

def test_latency(assert_not_slower):
    assert_not_slower("int8.onnx", against="{against}", within={within}, seconds=0.2)
"""


@pytest.fixture
def deployment(pytester: pytest.Pytester) -> pytest.Pytester:
    artifact = quantized()
    write_model(artifact.source, pytester.path / "float.onnx")
    write_model(artifact.quantized, pytester.path / "int8.onnx")
    np.savez(pytester.path / "images.npz", image=images(3, 16))
    return pytester


def ran(deployment: pytest.Pytester, *arguments: str, **texts: object) -> dict[str, int]:
    deployment.makepyfile(TESTS.format(**texts))
    result = deployment.runpytest_inprocess(*LOADED, *arguments)
    return result.parseoutcomes()


def test_both_assertions_pass_against_the_float_network(deployment) -> None:
    # 0.2 s are too short to be sure on a busy machine; then the test is skipped, never failed
    found = ran(deployment, sqnr=10, against="float.onnx", within=100_000)
    assert found.get("failed", 0) == 0
    assert found["passed"] >= 1


def test_preprocessing_is_named_by_its_file(deployment) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), np.uint8)
    np.savez(deployment.path / "pixels.npz", image=pixels)
    (deployment.path / "pixels.toml").write_text("scale = 0.01")
    given = 'data="pixels.npz", preprocess="pixels.toml"'
    deployment.makepyfile(
        f'def test_it(assert_accuracy):\n    assert_accuracy("float.onnx", "int8.onnx", {given}, min_sqnr=1)'
    )
    deployment.runpytest_inprocess(*LOADED).assert_outcomes(passed=1)


def test_a_limit_that_fails_fails_the_test_with_the_numbers(deployment) -> None:
    deployment.makepyfile(TESTS.format(sqnr=95, against="float.onnx", within=100_000))
    result = deployment.runpytest_inprocess(*LOADED, "-k", "accuracy")
    result.assert_outcomes(failed=1)
    said = "*AssertionError: DO NOT SHIP: SQNR of 'logits': * dB, at least 95 dB, failed (1 of * failed)"
    result.stdout.fnmatch_lines([said])  # not printed a second time


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("max_latency=1e-6", "*TOO SLOW: *; median latency, batch 1: * at most 1e-06 ms, failed*"),
        (
            "against='float.onnx', min_speedup=1000",
            "*speed over float.onnx, batch 1: * at least 1000 x, failed*",
        ),
        ("min_speedup=2", "*needs against=, or a limit by max_latency=.*"),
        ("max_latency=None", "*needs against=, or a limit by max_latency=.*"),
        ("max_latncy=2", "*no limit 'max_latncy'; there are max_latency, min_speedup.*"),
        ("max_latency='5'", "*max_latency= must be a number above 0, not '5'.*"),
    ],
)
def test_limits_on_speed(deployment, arguments, said) -> None:
    call = f'assert_not_slower("int8.onnx", within=100_000, seconds=0.2, {arguments})'
    deployment.makepyfile(f"def test_it(assert_not_slower):\n    {call}\n")
    result = deployment.runpytest_inprocess(*LOADED)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([said])


@pytest.mark.parametrize("folder", ["baselines", "baselines/v1.2"])
def test_baselines_are_made_on_request_and_then_compared_with(deployment, folder) -> None:
    first = ran(deployment, "-k", "latency", sqnr=10, against=folder, within=100_000)
    assert first == {"skipped": 1, "deselected": 1}
    saved = ran(
        deployment, "-k", "latency", "--trtbuild-save-baselines",
        sqnr=10, against=folder, within=100_000,
    )  # fmt: skip
    assert saved["passed"] == 1
    files: list[Path] = list((deployment.path / folder).iterdir())
    assert len(files) == 1
    assert files[0].name.startswith("int8.")
    again = ran(deployment, "-k", "latency", sqnr=10, against=folder, within=100_000)
    assert again.get("failed", 0) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('against="baselines"', "*no baseline of this device*"),
        # no measurement of 0.2 s settles the sixth digit of a ratio
        ('against="int8.onnx", within=1e-6', "*CANNOT TELL*"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_cannot_be_told_is_skipped_or_fails(deployment, arguments, said, strict) -> None:
    call = f'assert_not_slower("int8.onnx", {arguments}, seconds=0.2, strict={strict})'
    deployment.makepyfile(f"def test_it(assert_not_slower):\n    {call}\n")
    result = deployment.runpytest_inprocess(*LOADED, "-rs")
    result.assert_outcomes(**({"failed": 1} if strict else {"skipped": 1}))
    result.stdout.fnmatch_lines([said])


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [("min_speedup=0.9", {"passed": 1}), ("max_latency=1e-6", {"failed": 1})],
)
def test_limits_while_a_baseline_is_saved(deployment, limits, outcome) -> None:
    # there is no baseline to be faster than yet; a limit in milliseconds counts
    call = f'assert_not_slower("int8.onnx", against="baselines", seconds=0.2, {limits})'
    deployment.makepyfile(f"def test_it(assert_not_slower):\n    {call}\n")
    result = deployment.runpytest_inprocess(*LOADED, "--trtbuild-save-baselines")
    result.assert_outcomes(**outcome)
    assert len(list((deployment.path / "baselines").iterdir())) == 1


ACCURACY = "assert_accuracy('float.onnx', 'int8.onnx', data='images.npz', {})"
LATENCY = "assert_not_slower('int8.onnx', against='float.onnx', {})"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "assert_accuracy('gone.onnx', 'int8.onnx', data='images.npz')",
            "*gone.onnx*does not exist*",
        ),
        (ACCURACY.format("min_sqrn=10"), "*no limit 'min_sqrn'*"),
        (ACCURACY.format("min_sqnr='25'"), "*the limit min_sqnr is '25'; give a number*"),
        (ACCURACY.format("max_top1_drop=1"), "*needs labels; give them with labels=.*"),
        (ACCURACY.format("batch_size=0"), "*batch_size must be a whole number above 0, not 0.*"),
        (ACCURACY.format("num_images=1.5"), "*num_images must be a whole number *, not 1.5.*"),
        (LATENCY.format("seconds='3'"), "*seconds must be a number above 0, not '3'.*"),
        (LATENCY.format("within='3'"), "*within must be a number above 0, not '3'.*"),
        (LATENCY.format("within=float('nan')"), "*within must be a number above 0, not nan.*"),
        (LATENCY.format("batch_size=True"), "*batch_size must be a whole number *, not True.*"),
    ],
)
def test_what_is_given_wrongly_is_said_without_a_traceback(deployment, call, said) -> None:
    fixture = call.partition("(")[0]
    deployment.makepyfile(f"def test_it({fixture}):\n    {call}\n")
    result = deployment.runpytest_inprocess(*LOADED)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([said])
    shown = result.stdout.str()
    assert "Traceback" not in shown
    assert "pytest_plugin.py" not in shown
    assert "--labels" not in shown


def test_the_plugin_costs_nothing_until_it_is_used() -> None:
    import subprocess

    code = "import trtbuild.pytest_plugin, sys; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
