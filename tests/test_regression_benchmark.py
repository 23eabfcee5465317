"""The verdicts of benchmarks/regression.py, for known costs."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trtbuild.latency.regress import Answer

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def regression():
    sys.path.insert(0, str(FOLDER))  # as for a script
    try:
        spec = importlib.util.spec_from_file_location("regression", FOLDER / "regression.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def judged(regression, factor, noise, rounds=15):
    """Verdicts for a candidate with `factor` times the base's cost; speed drifts from round to round."""
    random = np.random.default_rng(0)
    shared = np.exp(random.normal(0, 0.3, rounds))

    def turns(times):
        seconds = times * shared * np.exp(random.normal(0, noise, rounds))
        return [regression.Cost(one, 2 * one, 100.0 * times) for one in seconds]

    names = (regression.BASE, regression.CANDIDATE, regression.CONTROL)
    return regression.judge("a command", dict(zip(names, map(turns, (1.0, factor, 1.0)))))


@pytest.mark.parametrize(
    ("factor", "noise", "answer"),
    [
        (1.5, 0.02, Answer.SLOWER),
        (0.6, 0.02, Answer.FASTER),
        (1.0, 0.002, Answer.SAME),
        (1.1, 0.3, Answer.CANNOT_TELL),
    ],
)
def test_paired_turns_decide_despite_drift_of_the_machine(regression, factor, noise, answer):
    found = judged(regression, factor, noise)
    assert (found.wall.answer, found.cpu.answer) == (answer, answer)
    assert regression.is_slower(found) == (answer is Answer.SLOWER)
    assert f"{answer}: " in regression.line(found)
    assert found.peak_mib[regression.CANDIDATE] == pytest.approx(100 * factor)


def test_eight_rounds_are_too_few_for_a_verdict(regression):
    few = judged(regression, 1.5, 0.02, rounds=regression.FEWEST_ROUNDS - 1)
    enough = judged(regression, 1.5, 0.02, rounds=regression.FEWEST_ROUNDS)
    assert (few.wall.answer, enough.wall.answer) == (Answer.CANNOT_TELL, Answer.SLOWER)


def test_what_is_no_version_is_refused(regression, tmp_path):
    (tmp_path / "text").write_text("no interpreter")
    for place in (tmp_path, tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(SystemExit, match="is neither a checkout nor an interpreter"):
            regression.version_of(str(place))
    _, environment = regression.version_of(str(FOLDER.parent))
    assert environment["PYTHONPATH"] == str(FOLDER.parent)
    assert regression.version_of(sys.executable)[0] == [sys.executable, "-m", "trtbuild"]


def test_each_version_runs_first_second_and_third_equally_often(regression):
    orders = [regression.order_of(number) for number in range(6)]
    for place in range(3):
        assert set(Counter(order[place] for order in orders).values()) == {2}


def test_networks_are_valid_and_what_passes_shorten(regression, tmp_path):
    import onnx
    import onnx_ir as ir

    from trtbuild.passes import OptimizeOptions, optimize

    for model in (regression.chain(20), regression.small()):
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    shorter = optimize(regression.chain(20), OptimizeOptions(check=False)).model
    assert len(shorter.graph) < 20


def test_a_place_that_is_no_version_is_named(regression):
    with pytest.raises(SystemExit, match="neither a checkout nor an interpreter"):
        regression.version_of("nowhere")


def test_memory_is_that_of_the_command_and_not_of_what_starts_it(regression, tmp_path):
    mib = 400
    held = np.ones(
        mib * 2**20, np.uint8
    )  # held in memory while the command runs, which prints its version
    cost = regression.cost_of(str(FOLDER.parent), ["--version"], tmp_path)
    assert cost.cpu_s > 0
    assert cost.wall_s > 0
    assert 0 < cost.peak_mib < held.nbytes / 2**20
