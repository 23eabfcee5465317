"""Ranges are chosen by their effect on the outputs: better than any rule, never worse than the best."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibrators.output_error import error_products
from trtbuild.artifact import Artifact
from trtbuild.calibration import calibrate
from trtbuild.data import Sample, Source
from trtbuild.data.samples import array_key
from trtbuild.options.effort import Effort
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.search import together
from trtbuild.search.deadline import Deadline
from trtbuild.search.ranges.check_images import CalibrationImages
from trtbuild.search.ranges.choose import BY_EFFECT, choose_ranges
from trtbuild.search.ranges.first_order import Gradients
from trtbuild.search.ranges.shared_scales import RULES

# Rare values of `whole` determine the output; rare values of `cut` are clipped after the layer.
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[N, 4, 8, 8] whole, float[N, 4, 8, 8] cut) => (float[N, 4, 8, 8] a, float[N, 4, 8, 8] b) {
  a = Conv (whole, w)
  c = Conv (cut, w)
  b = Clip (c, low, high)
}
"""


@functools.cache
def artifact() -> Artifact:
    proto = onnx.parser.parse_model(TEXT)
    weight = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    constants = {"w": weight, "low": np.float32(-1), "high": np.float32(1)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in model.graph:
        node.name = node.outputs[0].name
    return Artifact("two", model, model)


class Images(Source):
    """Normal values, and a few that are much larger; backwards: the same in another order."""

    def __init__(self, seed: int, count: int = 16, *, backwards: bool = False) -> None:
        rng = np.random.default_rng(seed)
        shape = (count, 2, 4, 8, 8)
        rare = rng.random(shape) < 0.01
        images = rng.normal(size=shape) * np.where(rare, 20.0, 0.5)
        self.images = images.astype(np.float32)[:: -1 if backwards else 1]

    @property
    def description(self):
        return "images"

    def __iter__(self):
        for number, (whole, cut) in enumerate(self.images):
            feeds = {"whole": whole[None], "cut": cut[None]}
            yield Sample(str(number), array_key([whole, cut]), lambda feeds=feeds: dict(feeds))


def calibrated(source: Source) -> Artifact:
    plain = artifact()
    return calibrate(plain, source, watched_tensors(plain.model))


def error(ready: Artifact, seed: int = 9) -> float:
    """Noise over signal, summed over the outputs, of the written Q/DQ network on new images."""
    found = 0.0
    quantized = open_session(insert_qdq(ready).quantized, Execution.REFERENCE)
    reference = open_session(ready.source, Execution.REFERENCE)
    samples = [sample.load() for sample in Images(seed)]
    expected, given = ([s.run(feeds) for feeds in samples] for s in (reference, quantized))
    for name in ("a", "b"):
        x, y = (
            np.stack([one[name] for one in all_]).astype(np.float64) for all_ in (expected, given)
        )
        found += float(((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum())
    return found


def by_rule(ready: Artifact, rule: str) -> Artifact:
    method, options = RULES[rule]
    return Artifact(
        "two",
        ready.source,
        ready.model,
        calibration=ready.calibration.chosen_with(method, **options),
    )


def test_chosen_ranges_beat_every_single_rule_on_other_images() -> None:
    ready = calibrated(Images(0))
    chosen = choose_ranges(ready, CalibrationImages(Images(0)))
    rules = {rule: error(by_rule(ready, rule)) for rule in RULES}
    assert error(chosen) < 0.5 * min(rules.values())
    ranges = chosen.calibration.ranges
    assert ranges["whole"].amax > 5 * ranges["cut"].amax
    assert chosen.calibration.method == BY_EFFECT


def test_the_record_tells_what_was_tried_and_what_moved() -> None:
    details = choose_ranges(calibrated(Images(0)), CalibrationImages(Images(0))).history[-1].details
    assert set(RULES) < set(details["errors"])
    assert details["chosen"] == min(details["errors"], key=details["errors"].get)
    assert {one["tensor"] for one in details["furthest"]} == {"whole", "cut"}


def test_the_same_images_in_any_order_give_the_same_bytes() -> None:
    first, second = (
        choose_ranges(calibrated(source), CalibrationImages(source))
        for source in (Images(0), Images(0, backwards=True))
    )
    assert first.calibration.to_bytes() == second.calibration.to_bytes()
    assert first.history[-1].details == second.history[-1].details


def test_images_that_are_run_together_choose_as_they_do_alone(monkeypatch) -> None:
    ready, runs = calibrated(Images(0)), []
    alone = choose_ranges(ready, CalibrationImages(Images(0)))
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    run = Gradients.run

    def counted(self, draws, measure):
        runs.append(len(draws))
        return run(self, draws, measure)

    monkeypatch.setattr(Gradients, "run", counted)
    chosen = choose_ranges(ready, CalibrationImages(Images(0)))
    # all values are copied or multiplied by 1, which is exact
    assert len(runs) == 1
    assert runs[0] > 1
    assert chosen.calibration.to_bytes() == alone.calibration.to_bytes()
    assert chosen.history[-1].details == alone.history[-1].details


@pytest.mark.parametrize(("limit", "runs"), [(0, 1), (10**9, 16)])
def test_the_float_network_is_run_once_for_images_that_choose_and_that_check(
    limit, runs, monkeypatch
) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", limit)
    ready, images, counted = calibrated(Images(0)), CalibrationImages(Images(0)), []
    names = {value.name for value in ready.model.graph.inputs}
    run = OnnxRuntimeSession.run

    def noted(self, feeds):
        counted.append(feeds.keys() == names)  # no scales, and no seeds of gradients
        return run(self, feeds)

    monkeypatch.setattr(OnnxRuntimeSession, "run", noted)
    choose_ranges(ready, images)
    drawn = images.draw(ready)
    again = images.outputs(ready.model, images.measured(ready.model), drawn.checking)
    assert sum(counted) == runs
    for feeds, outputs in zip(drawn.checking, again, strict=True):
        np.testing.assert_array_equal(outputs["a"], feeds["whole"])


class Misleading(Images):
    """Some images have rare values in both inputs, in the others `whole` has none.

    The samples' keys decide which images choose and which check.
    """

    def __iter__(self):
        # the check images are the first half in the order of the keys
        for number, sample in enumerate(sorted(super().__iter__(), key=lambda one: one.key)):
            feeds = sample.load()
            if number >= len(self.images) // 2:
                feeds["whole"] = feeds["whole"].clip(-1.0, 1.0)
            yield Sample(sample.name, sample.key, lambda feeds=feeds: dict(feeds))


def test_what_check_images_do_not_confirm_is_undone() -> None:
    source = Misleading(0)
    details = choose_ranges(calibrated(source), CalibrationImages(source)).history[-1].details
    of_rules = {rule: details["errors"][rule] for rule in RULES}
    assert details["errors"][details["chosen"]] <= min(of_rules.values())
    # ranges chosen on images without large values of `whole` would clip these values
    everything = next(e for name, e in details["errors"].items() if "2 of 2 scales" in name)
    assert everything > min(of_rules.values())


def test_little_effort_takes_the_best_single_rule() -> None:
    details = (
        choose_ranges(calibrated(Images(0)), CalibrationImages(Images(0), Effort.FAST))
        .history[-1]
        .details
    )
    assert set(details["errors"]) == set(RULES)


def test_no_step_begins_when_the_time_is_over() -> None:
    ready, ticks = calibrated(Images(0)), itertools.count()
    deadline = Deadline.after(3, lambda: float(next(ticks)))
    chosen = choose_ranges(ready, CalibrationImages(Images(0)), deadline=deadline)
    tried = list(chosen.history[-1].details["errors"])
    assert 1 <= len(tried) < len(RULES)
    assert tried == list(RULES)[: len(tried)]
    assert insert_qdq(chosen).quantized is not None


def test_a_single_image_leaves_the_ranges_as_they_are() -> None:
    ready = calibrated(Images(0, 1))
    chosen = choose_ranges(ready, CalibrationImages(Images(0, 1)))
    assert chosen.calibration == ready.calibration
    assert "no second sample" in chosen.history[-1].summary


@pytest.mark.parametrize("size", [1, 5000])
def test_products_of_errors_are_those_of_float64(size: int) -> None:
    rng = np.random.default_rng(size)
    x, g = (rng.normal(size=size).astype(np.float32) for _ in range(2))
    amaxes = np.array([0.5, 2.0], np.float32)
    products, squares = error_products(x, g, amaxes)
    for amax, product, square in zip(amaxes, products, squares):
        scale = np.float32(amax / np.float32(127))
        codes = np.rint(x * (np.float32(1) / scale)).clip(-128, 127)
        terms = g.astype(np.float64) * (codes * np.float64(scale) - x)
        # float32 sums over blocks of 2048: each adds at most 2048 half units in the last place
        bound = 2048 * 2.0**-24 * np.abs(terms).sum()
        assert product == pytest.approx(terms.sum(), abs=bound)
        assert square == pytest.approx((terms**2).sum(), rel=2048 * 2.0**-23)
