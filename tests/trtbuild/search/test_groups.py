"""Groups in float and in INT8, compared with the float network and with quantizing again."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.trtbuild.verification.small_network import (
    batches,
    images,
    quantized,
    run,
    spoil_weight_scale,
)
from trtbuild.errors import OptionError
from trtbuild.options.compare import ComparisonOptions, TaskOptions
from trtbuild.plan import PlacementRequest
from trtbuild.plugins import import_named
from trtbuild.quantization import insert_qdq, portable_form
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.bisect import find_culprits
from trtbuild.search.candidate import FileCandidate
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.groups import find_groups, with_float
from trtbuild.search.sensitivity import sensitivities
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.tasks.choose import choose_task

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.options.compare import Metric

WEIGHTED = ["Conv_s0", "Conv_a0", "Conv_a2", "Conv_left", "Conv_right", "Conv_last", "Gemm_logits"]


def names(model) -> list[str]:
    return [group.name for group in find_groups(model)]


def test_every_layer_with_weights_is_a_group_with_its_work() -> None:
    groups = {group.name: group for group in find_groups(quantized().quantized)}
    assert set(WEIGHTED) <= set(groups)
    assert "MaxPool_small" not in groups
    # 3x3 convolution of 3 into 8 channels over 12x12 pixels
    assert groups["Conv_s0"].macs == 12 * 12 * 8 * 3 * 3 * 3


@pytest.mark.parametrize("form", ["TensorRT's", "portable"])
def test_all_groups_in_float_are_the_float_network(form: str) -> None:
    artifact = quantized()
    model = artifact.quantized if form == "TensorRT's" else portable_form(artifact)
    restored = with_float(model, artifact.model, names(model))
    assert not any("Linear" in node.op_type for node in restored.graph)
    expected = run(artifact.model, images())["logits"]
    np.testing.assert_array_equal(run(restored, images())["logits"], expected)


@pytest.mark.parametrize(
    "chosen",
    [
        # pooling is INT8 only between INT8 layers, so it goes with either neighbour
        ["Conv_last", "GlobalAveragePool_mean"],
        ["Gemm_logits", "GlobalAveragePool_mean"],
        ["Conv_left", "Conv_right"],
        ["Conv_s0"],
    ],
)
def test_groups_in_float_equal_a_network_quantized_without_them(chosen: list[str]) -> None:
    artifact = quantized()
    found = run(with_float(artifact.quantized, artifact.model, chosen), images())["logits"]
    anew = run(insert_qdq(artifact, PlacementRequest(tuple(chosen))).quantized, images())["logits"]
    np.testing.assert_array_equal(found, anew)


def test_a_pair_read_by_two_layers_stays_for_the_other() -> None:
    artifact = quantized()
    model = with_float(artifact.quantized, artifact.model, ["Conv_left"])
    nodes = {node.name: node for node in model.graph}
    assert nodes["Conv_left"].inputs[0].name == "r1"
    assert nodes["Conv_right"].inputs[0].producer().op_type == "DequantizeLinear"


def test_a_name_that_is_no_group() -> None:
    artifact = quantized()
    with pytest.raises(OptionError, match="'MaxPool_small' is not a layer"):
        with_float(artifact.quantized, artifact.model, ["MaxPool_small"])


def evaluator(artifact, **options) -> Evaluator:
    return Evaluator(open_session(artifact.model, Execution.REFERENCE), batches(), **options)


def test_the_spoilt_layer_is_the_most_sensitive_and_gains_most_in_float() -> None:
    artifact = quantized()
    spoil_weight_scale(artifact.quantized, "Conv_right", 3.0)
    evaluate = evaluator(artifact)
    found = sensitivities(FileCandidate(artifact.quantized, artifact.model), evaluate)
    assert found[0].group == "Conv_right"
    assert max(found, key=lambda one: one.gained_db).group == "Conv_right"
    assert found[0].alone_sqnr_db < found[1].alone_sqnr_db - 10
    # alone in INT8 everything else is exact, so nothing can be worse than with all in INT8
    assert evaluate.num_evaluations == 2 * len(found) + 1


def test_two_planted_layers_are_found_and_nothing_else() -> None:
    artifact = quantized()
    planted = {"Conv_a0", "Conv_last"}
    for name in planted:
        spoil_weight_scale(artifact.quantized, name, 100.0)
    evaluate = evaluator(artifact)

    def passes(floats: frozenset[str]) -> bool:
        model = with_float(artifact.quantized, artifact.model, floats)
        return judge(evaluate(model), Gate(min_sqnr=15)).passed

    found = find_culprits(names(artifact.quantized), passes)
    assert set(found.groups) == planted
    assert found.num_evaluations <= 15


def test_results_on_disk_are_not_run_again(tmp_path) -> None:
    artifact = quantized()
    first = evaluator(artifact, directory=tmp_path)
    expected = first(artifact.quantized)
    again = evaluator(artifact, directory=tmp_path)
    assert again(artifact.quantized) == expected
    assert (first.num_evaluations, again.num_evaluations) == (1, 0)
    for path in tmp_path.iterdir():
        path.write_text("{ cut off")
    damaged = evaluator(artifact, directory=tmp_path)
    assert damaged(artifact.quantized) == expected
    assert damaged.num_evaluations == 1


def test_other_images_are_another_result(tmp_path) -> None:
    artifact = quantized()
    reference = open_session(artifact.model, Execution.REFERENCE)
    first = Evaluator(reference, batches(0), directory=tmp_path)
    other = Evaluator(reference, batches(5), directory=tmp_path)
    assert first(artifact.quantized) != other(artifact.quantized)
    assert other.num_evaluations == 1


JUDGE = """
def same(reference, candidate, labels, names):
    return [{} * (a.argmax() == b.argmax()) for a, b in zip(reference["logits"], candidate["logits"])]


class Own:
    def __call__(self, reference, candidate, labels, names):
        return same(reference, candidate, labels, names)
"""


def judged_by(script: Path, directory: Path, judge: str | Metric) -> Evaluator:
    """An evaluator as a new process makes it, with a judge from a script or an object."""
    for name in [one for one in sys.modules if one.startswith("script ")]:
        del sys.modules[name]
    make_task = choose_task(TaskOptions(judge=judge), None)
    return evaluator(
        quantized(), options=ComparisonOptions(make_task=make_task), directory=directory
    )


def test_results_of_a_judge_are_found_again_until_its_script_changes(tmp_path) -> None:
    script, network = tmp_path / "judge.py", quantized().quantized
    for factor, num_runs in ((1, 1), (1, 0), (100, 1), (100, 0)):
        script.write_text(JUDGE.format(factor))
        evaluate = judged_by(script, tmp_path / "kept", f"{script}:same")
        assert evaluate(network).task.main.estimate.value <= factor
        assert evaluate.num_evaluations == num_runs


def test_results_of_a_judge_that_is_an_object_are_not_kept(tmp_path) -> None:
    script, network = tmp_path / "judge.py", quantized().quantized
    script.write_text(JUDGE.format(1))
    for _ in range(2):
        evaluate = judged_by(
            script, tmp_path / "kept", import_named(f"{script}:Own", OptionError)()
        )
        evaluate(network)
        assert evaluate.num_evaluations == 1
    assert not (tmp_path / "kept").exists()


def like(names, reference, candidate, labels, inputs):
    return [float(len(names)) for _ in reference["logits"]]


def test_results_of_a_judge_with_an_array_of_objects_are_not_kept(tmp_path) -> None:
    network, judge = quantized().quantized, partial(like, np.array(["cat", "dog"], object))
    for _ in range(2):
        evaluate = judged_by(tmp_path / "none.py", tmp_path / "kept", judge)
        evaluate(network)
        assert evaluate.num_evaluations == 1
    assert not (tmp_path / "kept").exists()


def test_results_of_a_judge_with_another_set_are_others(tmp_path) -> None:
    network = quantized().quantized
    for names, num_runs in (({"cat"}, 1), ({"cat", "dog"}, 1), ({"dog", "cat"}, 0)):
        evaluate = judged_by(tmp_path / "none.py", tmp_path / "kept", partial(like, names))
        assert evaluate(network).task.main.estimate.value == len(names)
        assert evaluate.num_evaluations == num_runs
