"""The cost of a group in float is the measured time of its layers, which may differ from their work."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.trtbuild.search.depthwise_network import Images, artifact
from tests.trtbuild.verification.small_network import batches, calibrated, images
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.errors import ExecutionError
from trtbuild.jobs.layer_timing import timing_of
from trtbuild.options.compare import ComparisonOptions
from trtbuild.options.tensorrt import OpenOptions
from trtbuild.options.tune import TuneOptions
from trtbuild.quantization import watched_tensors
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.float_costs import LayerTiming, cost_shares, float_costs, share_costs
from trtbuild.search.recalibration import Recalibration
from trtbuild.search.sensitivity import rank_groups
from trtbuild.search.stage import meet_budget
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World
    from trtbuild.artifact import Artifact
    from trtbuild.runtime.session import Feeds

OPTIONS = CalibrateOptions(method="minmax")
FEEDS = [{"image": images(0)[:4]}]


@dataclasses.dataclass
class Machine:
    """A machine whose other work grows from run to run."""

    load_of_a_run: float = 0.0
    runs: int = 0

    def slower(self) -> float:
        self.runs += 1
        return 1.0 + self.load_of_a_run * self.runs


class Told:
    """A profiler with the test's own times: node -> milliseconds, slower on a machine with other work."""

    def __init__(self, layers: dict[str, float], machine: Machine) -> None:
        self.layers, self.machine = layers, machine
        self.found: list[dict[str, float]] = []

    def run_profiled(self, feeds: Feeds, runs: int) -> None:
        del feeds
        for _ in range(runs):
            slower = self.machine.slower()
            self.found.append({node: ms * slower for node, ms in self.layers.items()})

    def layer_runs_ms(self) -> list[dict[str, float]]:
        return self.found

    def close(self) -> None:
        """Do nothing."""


def quantized_form(artifact: Artifact) -> ir.Model:
    assert artifact.quantized is not None
    return artifact.quantized


def telling(
    int8: dict[str, float], floats: dict[str, float], load_of_a_run: float = 0.0
) -> LayerTiming:
    machine = Machine(load_of_a_run)

    def opened(model: ir.Model, example: Feeds) -> Told:
        del example
        has_pairs = any(node.op_type == "QuantizeLinear" for node in model.graph)
        return Told(int8 if has_pairs else floats, machine)

    return LayerTiming("the test", quantized_form, opened)


def test_a_group_costs_what_its_layer_takes_longer_in_float() -> None:
    candidate = Candidate(calibrated())
    int8 = {"Conv_a0": 1.0, "Conv_a2_token_7": 2.0, "image_quantized_QuantizeLinear": 0.25}
    floats = {"Conv_a0": 4.0, "Conv_a2 + Relu_r1": 1.0, "Gemm_logits": 0.5}
    costs = float_costs(candidate, telling(int8, floats), FEEDS)
    assert costs.each["Conv_a0"] == pytest.approx(3.0)
    assert costs.each["Conv_a2"] == 0.0, "what INT8 makes slower costs nothing in float"
    assert costs.each["Gemm_logits"] == pytest.approx(0.5)
    assert costs.of("Conv_a2") == pytest.approx(0.25), "a Q by itself is what a change takes"
    assert "the test" in costs.basis


@pytest.mark.parametrize("int8", [1.0, 1.5])
def test_other_work_of_the_machine_slows_both_networks_alike(int8: float) -> None:
    candidate = Candidate(calibrated())
    names = [group.name for group in candidate.groups()]
    timing = telling(dict.fromkeys(names, int8), dict.fromkeys(names, 1.25), load_of_a_run=0.02)
    costs = float_costs(candidate, timing, FEEDS)
    # The last run takes about three times as long as the first; the mean of those that count, some twice.
    for cost in costs.each.values():
        assert cost == (pytest.approx(0.5, rel=0.3) if int8 < 1.25 else 0.0)


def evaluator(count: int = 8) -> Evaluator:
    artifact = calibrated()
    return Evaluator(
        open_session(artifact.source), batches(1, count), ComparisonOptions(num_worst=0)
    )


def test_groups_are_ranked_by_gain_per_millisecond() -> None:
    candidate, evaluate = Candidate(calibrated()), evaluator()
    names = [group.name for group in candidate.groups()]
    dear = rank_groups(candidate, evaluate, share_costs(candidate.groups(), "").of)[0]
    floats = dict.fromkeys(names, 0.001) | {dear: 1000.0}
    timing = telling({}, floats)
    costs = float_costs(candidate, timing, FEEDS)
    assert rank_groups(candidate, evaluate, costs.of)[0] != dear


def test_a_search_says_what_groups_cost() -> None:
    plain = artifact(imbalance=1.5)
    ready = calibrate(plain, Images(0), watched_tensors(plain.model), OPTIONS)
    timing = telling({}, dict.fromkeys((group.name for group in Candidate(ready).groups()), 1.0))
    few = TuneOptions(max_float_percent=10.0)
    again = Recalibration(Images(0), OPTIONS)
    found = meet_budget(Candidate(ready), again, Gate(min_sqnr=90.0), options=few, timing=timing)
    assert found.ranked_by.startswith("milliseconds a run, by the test")
    assert found.to_json()["ranked_by"] == found.ranked_by


def test_what_cannot_be_timed_is_ranked_by_its_work_and_said(caplog) -> None:
    candidate = Candidate(calibrated())

    def refused(model: ir.Model, example: Feeds) -> Told:
        raise ExecutionError("the compiler refuses it.")

    nothing = LayerTiming(why_not="a plan for RTX runs on its GPU alone")
    for timing, why in (
        (LayerTiming("x", quantized_form, refused), "the compiler refuses it"),
        (nothing, "its GPU alone"),
    ):
        costs = float_costs(candidate, timing, FEEDS)
        assert why in costs.basis
        assert "multiply-accumulates" in costs.basis
        assert costs.each == cost_shares(candidate.groups())
    assert "the compiler refuses it" in caplog.text


def test_the_portable_engine_is_timed_node_by_node() -> None:
    timing = timing_of("onnxruntime", OpenOptions())
    costs = float_costs(Candidate(calibrated()), timing, FEEDS)
    assert re.search(r"ONNX Runtime [\d.]+'s profiler \([\d.e-]+ ms in INT8", costs.basis)
    assert "a batch of --batch-size" in costs.basis  # not comparable with latencies of one sample
    assert all(cost >= 0 for cost in costs.each.values())
    assert np.isfinite(costs.change)
    assert costs.change > 0


def of_a_plan(world: World) -> dict[str, float]:
    timing = timing_of("tensorrt", OpenOptions())
    costs = float_costs(Candidate(calibrated()), timing, FEEDS)
    return {**costs.each, costs.basis: costs.change}


def test_tensorrt_is_asked_by_its_profiler(tensorrt: Server) -> None:
    found = tensorrt.value(of_a_plan)
    (basis,) = (name for name in found if "profiler" in name)
    assert basis.startswith("milliseconds a run, by TensorRT's profiler")
    assert "Conv_a0" in found
