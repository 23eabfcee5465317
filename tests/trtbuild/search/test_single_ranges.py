"""Which ranges of single tensors are worth a run, and which rule is worth a message."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from calibrators import Calibration, Collector
from tests.trtbuild.verification.small_network import batches, calibrated, float_network, images
from trtbuild.artifact import Artifact
from trtbuild.jobs.diagnosis import better_rule
from trtbuild.model.edits import tapped
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search import steps
from trtbuild.search.candidate import Candidate


@dataclass(frozen=True)
class Rules:
    """A calibration with the test's own ranges for each rule."""

    ranges: dict[str, Any]
    by_rule: dict[str, dict[str, Any]]
    histograms: Any = ()

    def chosen_with(self, method: str) -> Rules:
        return replace(self, ranges=self.by_rule[method])


def test_a_range_within_three_percent_of_one_tried_is_not_tried(monkeypatch) -> None:
    artifact = calibrated()
    assert artifact.calibration is not None
    some = next(iter(artifact.calibration.ranges.values()))
    amaxes = {"near": 1.029, "beyond": 1.031, "beside": 1.05, "below": 0.969}
    by_rule = {
        rule: {"t": replace(some, amax=amax), "always zero": replace(some, amax=0.0)}
        for rule, amax in {"own": 1.0, **amaxes}.items()
    }
    monkeypatch.setattr(steps, "METHODS", tuple((rule, {}) for rule in by_rule))
    rules: Any = Rules(by_rule["own"], by_rule)
    best = Candidate(replace(artifact, calibration=rules))
    found = steps.other_range_of_one_tensor(lambda: best, steps.Material((), lambda one: one))
    assert [what for what, _ in found] == ["beyond for 't'", "below for 't'"]


def sqnr_db(artifact: Artifact, feeds: dict[str, np.ndarray]) -> float:
    wanted, found = (
        open_session(model, Execution.REFERENCE).run(feeds)["logits"].astype(np.float64)
        for model in (artifact.source, insert_qdq(artifact).quantized)
        if model is not None
    )
    return float(10 * np.log10((wanted**2).sum() / ((found - wanted) ** 2).sum()))


@pytest.mark.parametrize(("outlier", "named"), [(2.2, False), (2.0, True)])
def test_another_rule_is_named_from_three_decibels_on(outlier: float, named: bool) -> None:
    model, few = float_network(), batches(1)[:2]
    tensors = watched_tensors(model)
    data = {"image": images(1) * np.where(np.arange(24) == 0, outlier, 1.0)[:, None, None, None]}
    data = {"image": data["image"].astype(np.float32)}
    seen = {**data, **open_session(tapped(model, tensors), Execution.REFERENCE).run(data)}
    collector = Collector(sorted(tensors))
    collector.observe({name: seen[name] for name in tensors}, batch=0)
    calibration = Calibration.from_histograms(collector.histograms, "minmax")
    artifact = insert_qdq(Artifact("small", model, model, calibration=calibration))
    feeds = {"image": np.concatenate([batch.feeds["image"] for batch in few])}
    entropy = replace(artifact, calibration=calibration.chosen_with("entropy"))
    gain = sqnr_db(entropy, feeds) - sqnr_db(artifact, feeds)
    assert 2.0 < gain < 4.0
    assert (gain > 3.0) == named
    found = better_rule(artifact, few)
    assert (found.option if found else None) == ("--calibrator entropy" if named else None)
