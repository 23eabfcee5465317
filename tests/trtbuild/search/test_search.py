"""The search meets limits at least cost, on other images than the final verdict's, and can be resumed."""

from __future__ import annotations

import dataclasses
import re
import types
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.ray_here import ray_of_two
from tests.trtbuild.search.depthwise_network import Images, artifact
from tests.trtbuild.verification.small_network import calibrated
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.data import batches
from trtbuild.errors import OptionError
from trtbuild.jobs.ranges import recalibration
from trtbuild.options.compare import TaskOptions
from trtbuild.options.tune import TuneOptions
from trtbuild.plan import Group, GroupKind
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.recipes import EngineRecipe
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.bisect import affordable, fewest_in_order
from trtbuild.search.candidate import Candidate
from trtbuild.search.float_costs import cost_shares, share_costs
from trtbuild.search.recalibration import Recalibration
from trtbuild.search.score import expected_top1_drop, meets, score
from trtbuild.search.sensitivity import rank_groups
from trtbuild.search.stage import meet_budget
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.intervals import Estimate
from trtbuild.verification.tasks.choose import choose_task

if TYPE_CHECKING:
    from trtbuild.search.budget import Tuned

OPTIONS = CalibrateOptions(method="minmax")
AGAIN = Recalibration(Images(0), OPTIONS)


@pytest.fixture(scope="module")
def ready():
    plain = artifact(imbalance=1.5)
    return calibrate(plain, Images(0), watched_tensors(plain.model), OPTIONS)


def search(ready, gate: Gate, **options) -> Tuned:
    return meet_budget(Candidate(ready), AGAIN, gate, options=TuneOptions(**options))


def judged(ready, network, gate: Gate):
    """The comparison on images that the search has not seen."""
    comparison = compare(open_session(ready.source), open_session(network), batches(Images(1), 16))
    return judge(comparison, gate), comparison


def test_a_search_says_that_it_keeps_nothing_of_a_judge_that_is_an_object(
    ready, tmp_path, caplog
) -> None:
    class Own:
        def __call__(self, reference, candidate, labels, names):
            return [1.0] * len(names)

    task = choose_task(TaskOptions(judge=Own()), None)
    options = TuneOptions(directory=tmp_path / "kept")
    meet_budget(Candidate(ready), AGAIN, Gate(min_sqnr=-5.0), task=task, options=options)
    assert "--search-cache keeps nothing" in caplog.text
    assert not (tmp_path / "kept").exists()


def test_a_budget_that_the_plain_network_meets_changes_nothing(ready) -> None:
    tuned = search(ready, Gate(min_sqnr=-5.0))
    assert tuned.met
    assert [step.step for step in tuned.steps] == ["as calibrated"]
    assert tuned.float_layers == ()


def test_unequal_channels_are_met_without_any_float_layer(ready) -> None:
    gate = Gate(min_sqnr=22.0)
    plain, before = judged(ready, insert_qdq(ready).quantized, gate)
    assert not plain.passed
    tuned = search(ready, gate)
    verdict, after = judged(ready, tuned.artifact.quantized, gate)
    assert tuned.met
    assert verdict.passed
    assert tuned.float_layers == ()
    assert "channel scaling" in [step.step for step in tuned.steps if step.kept]
    gained = after.outputs[0].sqnr_db.value - before.outputs[0].sqnr_db.value
    assert gained > 8.0


def test_a_tighter_budget_takes_layers_to_float_and_says_so(ready) -> None:
    gate = Gate(min_sqnr=44.0)
    tuned = search(ready, gate, max_float_percent=95.0)
    assert tuned.met
    assert tuned.float_layers
    assert 0 < tuned.float_macs_percent <= 95.0
    # images that calibration has not seen are clipped more, so they fall short of 44 dB
    without = search(ready, Gate(min_sqnr=22.0))
    far, near = (
        judged(ready, found.artifact.quantized, gate)[1].outputs[0].sqnr_db.value
        for found in (without, tuned)
    )
    assert near > far + 3.0
    reasons = {d.node: d.reason for d in tuned.artifact.decisions if not d.int8}
    assert all("accuracy budget" in reasons[name] for name in tuned.float_layers)
    assert tuned.artifact.history[-1].details["float_layers"] == list(tuned.float_layers)


def test_a_budget_out_of_reach_is_not_met_and_the_best_is_kept(ready) -> None:
    tuned = search(ready, Gate(min_sqnr=90.0), max_float_percent=10.0)
    assert not tuned.met
    assert tuned.steps[-1].sqnr_db > tuned.steps[0].sqnr_db + 8.0
    said = re.search(
        r"not met with the \d+ most useful groups? in float \(([\d.]+) dB\)", tuned.steps[-1].what
    )
    assert said is not None
    # within its allowed share, float would help further, but not enough
    assert tuned.steps[-1].sqnr_db < float(said[1]) < 90.0


def test_a_search_names_a_larger_share_in_float_only_if_that_meets_the_budget(ready) -> None:
    gate = Gate(min_sqnr=47.0)
    near = search(ready, gate, max_float_percent=45.0)
    assert not near.met
    assert near.enough_float_percent == 68.0  # 1.5 times as much, in whole percent
    assert near.to_json()["enough_float_percent"] == 68.0
    again = search(ready, gate, max_float_percent=68.0)
    assert again.met
    assert 45.0 < again.float_macs_percent <= 68.0
    assert search(ready, Gate(min_sqnr=90.0), max_float_percent=80.0).enough_float_percent == 100.0
    too_far = search(ready, Gate(min_sqnr=50.0), max_float_percent=45.0)
    no_other_group_fits = search(ready, gate, max_float_percent=30.0)
    for found in (again, too_far, no_other_group_fits):
        assert found.enough_float_percent is None


def test_a_search_opens_the_float_network_once(ready, monkeypatch) -> None:
    opened = []

    def noted(model):
        opened.append(model)
        return open_session(model)

    monkeypatch.setattr("trtbuild.search.stage.open_session", noted)
    search(ready, Gate(min_sqnr=-5.0))
    assert opened == [ready.float_reference]


def test_a_search_goes_on_where_it_was_interrupted(ready, tmp_path) -> None:
    first = search(ready, Gate(min_sqnr=22.0), directory=tmp_path)
    again = search(ready, Gate(min_sqnr=22.0), directory=tmp_path)
    assert sum(step.num_evaluations for step in first.steps) > 3
    assert sum(step.num_evaluations for step in again.steps) == 0
    without_runs = [dataclasses.replace(step, num_evaluations=0) for step in first.steps]
    assert list(again.steps) == without_runs


def test_groups_that_the_user_names_stay_in_float_and_are_not_the_searchs(ready) -> None:
    gate = Gate(min_sqnr=-5.0)
    tuned = meet_budget(Candidate(ready).with_float({"d1"}), AGAIN, gate)
    assert tuned.float_layers == ()
    reasons = {d.node: d.reason for d in tuned.artifact.decisions if not d.int8}
    assert reasons["d1"] == "kept in float by its name"


def test_a_search_without_time_ends_with_the_network_as_it_was(ready) -> None:
    tuned = search(ready, Gate(min_sqnr=90.0), max_seconds=0.0)
    assert not tuned.met
    assert [step.step for step in tuned.steps] == ["as calibrated"]


def test_a_search_calibrates_in_batches_of_the_size_that_the_user_gave() -> None:
    rule = CalibrateOptions(method="entropy-tensorrt")
    recipe = EngineRecipe(Path("network.onnx"), calibrate=rule, batch_size=3)
    found = recalibration(Images(0), recipe)(artifact(imbalance=1.5))
    assert found.calibration is not None
    assert found.calibration.provenance["batch_size"] == "3"


def test_a_search_needs_a_budget(ready) -> None:
    with pytest.raises(OptionError, match="needs a budget"):
        search(ready, Gate())


def test_top1_lost_is_estimated_from_what_changes_where_there_are_no_labels(ready) -> None:
    _, comparison = judged(ready, insert_qdq(ready).quantized, Gate())
    output = dataclasses.replace(
        comparison.outputs[0], top1_agreement_percent=Estimate(92.0, 88.0, 95.0)
    )
    comparison = dataclasses.replace(comparison, outputs=(output,))
    assert expected_top1_drop(comparison) == pytest.approx(8.0 / 4)
    assert not meets(comparison, Gate(max_top1_drop=2.0))  # with room for other images
    assert meets(comparison, Gate(max_top1_drop=2.7))


def test_the_search_keeps_half_the_interval_as_a_margin(ready) -> None:
    _, comparison = judged(ready, insert_qdq(ready).quantized, Gate())
    output = dataclasses.replace(
        comparison.outputs[0],
        sqnr_db=Estimate(30.0, 28.0, 32.0),
        cosine=Estimate(0.98, 0.94, 1.0),
        relative_l2=Estimate(0.10, 0.06, 0.14),
    )
    comparison = dataclasses.replace(comparison, outputs=(output,))
    assert meets(comparison, Gate(min_sqnr=28.9))
    assert not meets(comparison, Gate(min_sqnr=29.1))
    assert meets(comparison, Gate(min_cosine=0.959))
    assert not meets(comparison, Gate(min_cosine=0.961))
    assert meets(comparison, Gate(max_relative_l2=0.121))
    assert not meets(comparison, Gate(max_relative_l2=0.119))


@pytest.mark.parametrize(
    ("gate", "better"),
    [
        (None, "by classes"),
        (Gate(max_top1_drop=1.0, min_sqnr=20.0), "by classes"),
        (Gate(min_sqnr=20.0), "by SQNR"),
    ],
)
def test_where_sqnr_alone_is_limited_candidates_are_ranked_by_it(gate, better) -> None:
    def comparison(divergence: float, decibels: float):
        output = types.SimpleNamespace(
            divergence_nats=types.SimpleNamespace(value=divergence), num_non_finite=0
        )
        return types.SimpleNamespace(outputs=[output], task=None, worst_sqnr_db=decibels)

    found = {"by classes": comparison(0.1, 27.0), "by SQNR": comparison(0.2, 29.0)}
    assert max(found, key=lambda name: score(found[name], gate)) == better


def test_groups_are_ranked_by_gain_per_cost() -> None:
    gains = {"cheap": 2.0, "dear": 3.0, "free": 1.2, "useless": 0.0}
    macs = {"cheap": 10, "dear": 80, "free": 0, "useless": 10}
    kinds = dict.fromkeys(gains, GroupKind.LAYER) | {"free": GroupKind.SKIP_BRANCH}

    @dataclasses.dataclass(frozen=True)
    class Given:
        floats: frozenset[str] = frozenset()

        def groups(self):
            return tuple(
                Group(n, "Conv", kinds[n], frozenset(), int8=True, reason="", macs=macs[n])
                for n in gains
                if n not in self.floats
            )

        def with_float(self, names):
            return Given(self.floats | set(names))

        def network(self):
            return self.floats

    def evaluate(floats):
        divergence = 10.0 - sum(gains[name] for name in floats)
        output = types.SimpleNamespace(
            divergence_nats=types.SimpleNamespace(value=divergence), sqnr_db=None
        )
        return types.SimpleNamespace(outputs=[output], task=None)

    # a layer costs its share and one third, that of an average layer: 2 / 0.433, 3 / 1.133, 1.2 / 0.333
    cost = share_costs(Given().groups(), "the test says so").of
    assert rank_groups(Given(), evaluate, cost) == ["cheap", "free", "dear", "useless"]
    assert cost_shares(Given().groups()) == {"cheap": 0.1, "dear": 0.8, "free": 0.0, "useless": 0.1}


def test_an_outlier_on_a_skip_branch_takes_its_add_to_float_and_no_layer() -> None:
    artifact = calibrated()
    plain = Candidate(artifact)
    assert "Add_sum" in {group.name for group in plain.groups()}
    without = plain.with_float({"Add_sum"})
    assert {g.name for g in plain.groups()} - {g.name for g in without.groups()} == {"Add_sum"}
    realized = without.realized()
    assert realized.placement is not None
    assert plain.realized().placement.weights == realized.placement.weights


def test_a_name_that_is_an_operator_is_not_read_as_a_pattern() -> None:
    artifact = calibrated()
    artifact.model.graph[0].name = "Conv"
    plain = Candidate(artifact)
    names = [group.name for group in plain.groups()]
    left = plain.with_float({"Conv"})
    assert [group.name for group in left.groups()] == [name for name in names if name != "Conv"]


def fewest(ranked: str, needed: str, costs=None) -> tuple[set[str] | None, int]:
    runs = []

    def passes(names) -> bool:
        runs.append(names)
        return set(needed) <= set(names)

    found = fewest_in_order(list(ranked), passes, costs or dict.fromkeys(ranked, 1.0))
    return None if found is None else set(found), len(runs)


def test_only_the_layers_that_are_needed_stay_in_float() -> None:
    assert fewest("abcdefgh", "a")[0] == {"a"}
    assert fewest("abcdefgh", "cf")[0] == {"c", "f"}
    assert fewest("abcdefgh", "h")[0] == {"h"}
    assert fewest("abcd", "x")[0] is None


def test_a_good_ranking_needs_few_runs() -> None:
    assert fewest("abcdefghijklmnopqrstuvwxyz", "ab") == ({"a", "b"}, 3)


def test_dear_layers_are_passed_over_where_the_share_is_spent() -> None:
    costs = {"a": 0.3, "b": 0.6, "c": 0.1}
    assert affordable(["a", "b", "c"], costs, 0.5) == ["a", "c"]


def test_a_larger_share_in_float_never_gains_less() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        costs = dict(zip("abcdefghij", random.exponential(size=10)))
        gains = {name: cost * random.exponential() for name, cost in costs.items()}
        ranked = sorted(costs, key=lambda name: -gains[name] / costs[name])
        shares = np.linspace(0.0, sum(costs.values()), 40)
        found = [sum(map(gains.__getitem__, affordable(ranked, costs, s))) for s in shares]
        assert found == sorted(found)


def test_the_dearest_layer_that_is_not_needed_goes_first() -> None:
    costs = {"a": 1.0, "b": 5.0, "c": 1.0}

    def passes(names) -> bool:
        return "c" in names and ("a" in names or "b" in names)

    assert fewest_in_order(["b", "a", "c"], passes, costs) == ["a", "c"]


def test_candidates_are_judged_on_ray_to_the_same_figures(ready) -> None:
    gate = Gate(min_sqnr=44.0)
    alone = search(ready, gate, max_float_percent=95.0)
    with ray_of_two():
        shared = Recalibration(Images(0), dataclasses.replace(OPTIONS, ray=""))
        few = TuneOptions(max_float_percent=95.0)
        together = meet_budget(Candidate(ready), shared, gate, options=few)
    assert together.float_layers == alone.float_layers
    assert together.met == alone.met
    assert [step.sqnr_db for step in together.steps] == [step.sqnr_db for step in alone.steps]
