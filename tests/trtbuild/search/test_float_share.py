"""Layers in float without a limit: little of the work, and only if other images confirm the gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

import trtbuild
import trtbuild.jobs.ranges
from tests.trtbuild.search.depthwise_network import Images, artifact, images, network
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.quantization import watched_tensors
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.float_share import costly_groups, work_shares
from trtbuild.search.improve import FloatRoom, improve
from trtbuild.search.ranges.check_images import CalibrationImages, CheckImages
from trtbuild.search.ranges.work import FAR
from trtbuild.search.recalibration import Recalibration

AGAIN = Recalibration(Images(0), CalibrateOptions())

FEEDS = [one.load() for one in list(Images(0))[:8]]


@pytest.fixture(scope="module")
def plain() -> Candidate:
    found = artifact(imbalance=1.5)
    return Candidate(calibrate(found, Images(0), watched_tensors(found.model)))


@pytest.fixture(scope="module")
def with_share(plain) -> Candidate:
    return improve(plain, AGAIN, CalibrationImages(Images(0)), room=FloatRoom(30, when_near=True))


def noise(candidate: Candidate) -> float:
    """The noise on unseen images."""
    model, reference = candidate.network(), candidate.artifact.source
    found, wanted = (open_session(one, Execution.REFERENCE) for one in (model, reference))
    pairs = [(found.run(one.load()), wanted.run(one.load())) for one in Images(1)]
    return float(sum(((y["logits"] - x["logits"]) ** 2).sum() for y, x in pairs))


def moves(candidate: Candidate):
    return candidate.artifact.history[-1].details["tried"]


def test_shares_of_the_work_are_those_of_products_values_and_kernels(plain) -> None:
    groups = plain.groups()
    shares = work_shares(plain.artifact.model, groups)
    assert sum(shares.values()) == pytest.approx(1.0)
    # the first convolution: 8 of 3 channels of 3 by 3, on 10 by 10 pixels
    macs = {group.name: group.macs for group in groups}
    name = plain.artifact.model.graph.node(0).name
    assert macs[name] == 8 * 3 * 9 * 100
    rest = 3 * shares[name] - macs[name] / sum(macs.values()) - 1 / len(groups)
    # the values: it reads 300 and writes 800, the depthwise one behind it reads and writes 800
    other = plain.artifact.model.graph.node(2).name
    of_other = 3 * shares[other] - macs[other] / sum(macs.values()) - 1 / len(groups)
    assert rest / of_other == pytest.approx(1100 / 1600)


def test_the_layer_that_is_clipped_is_found_and_little_is_taken(plain) -> None:
    calibration = plain.artifact.calibration
    victim = next(group for group in plain.groups() if group.op_type == "Gemm")
    placement = plain.realized().placement
    [read] = [
        root
        for name, readers in placement.consumers.items()
        if victim.name in {reader.node for reader in readers}
        for root in placement.roots[name]
    ]
    clipped = replace(calibration.ranges[read], amax=calibration.ranges[read].amax / 50)
    ranges = {**calibration.ranges, read: clipped}
    artifact = replace(plain.artifact, calibration=replace(calibration, ranges=ranges))
    found = costly_groups(replace(plain, artifact=artifact), FEEDS, 30.0)
    assert found.groups[0] == victim.name
    assert 0 < found.percent <= 30.0
    # to first order; nearly all noise comes from this layer
    assert 50.0 < found.expected_percent <= 100.0
    assert costly_groups(plain, FEEDS, 0.0).groups == ()


def test_what_stays_in_float_brings_other_images_nearer_and_says_why(plain, with_share) -> None:
    whole = improve(plain, AGAIN, CalibrationImages(Images(0)))
    assert whole.float_groups == frozenset()
    assert with_share.float_groups
    assert noise(with_share) < noise(whole)
    reasons = {d.node: d.reason for d in with_share.realized().decisions if not d.int8}
    for name in with_share.float_groups:
        assert reasons[name].startswith("kept in float: ")
        assert "% of the work" in reasons[name]
    assert "float" in {one.move for one in moves(with_share)}


@pytest.mark.parametrize(
    ("better", "factor", "kept"),
    [
        (1.0, 0.75, True),
        (1.0, 0.85, False),  # a fifth less is asked for
        (0.75, 0.4, True),
        (0.5, 0.2, False),  # two fifths less, but on half of the images alone
    ],
)
def test_a_share_stays_in_float_where_the_error_falls_enough(
    plain, monkeypatch, better, factor, kept
) -> None:
    def factors(num_images: int) -> np.ndarray:
        return np.where(np.arange(num_images) < round(better * num_images), factor, 1.0)

    let_float_change_errors(monkeypatch, factors)
    found = improve(plain, AGAIN, CalibrationImages(Images(0)), room=FloatRoom(30, when_near=True))
    assert [one.kept for one in moves(found) if one.move == "float"] == [kept]
    assert bool(found.float_groups) == kept


def let_float_change_errors(monkeypatch, factors) -> None:
    """Give every network the same errors; with layers in float, times `factors` of the number of images."""
    network_of = Candidate.network

    def network(candidate: Candidate) -> ir.Model:
        model = network_of(candidate)
        model.meta["float"] = candidate.float_groups
        return model

    def errors(images: CheckImages, model: ir.Model) -> np.ndarray:
        num_images = len(images.feeds)
        found = np.full((num_images, 1), 0.1 * FAR / num_images)
        return found * factors(num_images)[:, None] if model.meta["float"] else found

    monkeypatch.setattr(Candidate, "network", network)
    monkeypatch.setattr(CheckImages, "errors", errors)


@pytest.mark.parametrize(
    ("checking", "unasked", "kept"),
    [
        (0.95, 0.5, True),  # together they are a decibel nearer
        (0.5, 1.5, False),
        (0.95, 0.7, False),
    ],
)
def test_images_not_used_before_also_decide(plain, monkeypatch, checking, unasked, kept) -> None:
    source = Images(0, 96)
    asked = CalibrationImages(source).draw(plain.artifact, for_moves=True)
    others = CalibrationImages(source).draw_unasked(plain.artifact)
    drawn = [feeds["image"].tobytes() for feeds in (*asked.choosing, *asked.checking, *others)]
    assert len(set(drawn)) == len(drawn) == len(asked.choosing) + 2 * len(asked.checking)

    def factors(num_images: int) -> np.ndarray:
        return np.where(np.arange(num_images) < len(asked.checking), checking, unasked)

    let_float_change_errors(monkeypatch, factors)
    found = improve(
        plain,
        Recalibration(source, CalibrateOptions()),
        CalibrationImages(source),
        room=FloatRoom(30, when_near=True),
    )
    assert [one.kept for one in moves(found) if one.move == "float"] == [kept]


def test_a_network_near_float_stays_in_int8_unless_few_values_decide() -> None:
    balanced = artifact()
    near = Candidate(calibrate(balanced, Images(0), watched_tensors(balanced.model)))
    found = {
        few: improve(near, AGAIN, CalibrationImages(Images(0)), room=FloatRoom(30, when_near=few))
        for few in (False, True)
    }
    assert found[False].artifact.history[-1].details["error_before"] < FAR
    assert found[False].float_groups == frozenset()
    tried = {few: {one.move for one in moves(found[few])} for few in found}
    assert tried == {False: tried[True] - {"float"}, True: tried[False] | {"float"}}


@pytest.mark.parametrize(
    ("asked", "may_be_float"),
    [
        ({"task": "embed", "max_float": 30}, True),
        ({"task": "embed", "max_float": 30, "min_agreement": 1}, False),
    ],
)
def test_builds_without_a_limit_alone_keep_a_share_in_float(tmp_path, asked, may_be_float) -> None:
    built = trtbuild.build(
        ir.to_proto(network(imbalance=1.5)), {"image": images(0)}, output=tmp_path, latency=False, **asked
    )  # fmt: skip
    reasons = {one.reason for one in built.result.artifact.decisions if not one.int8}
    assert any(reason.startswith("kept in float: ") for reason in reasons) == may_be_float


@pytest.mark.parametrize(
    ("asked", "percent", "when_near"),
    [
        ({}, 10.0, False),
        ({"task": "restore"}, 10.0, False),
        *[({"task": one}, 10.0, True) for one in ("ctc", "embed", "segment")],
        ({"box_layout": "yolov8"}, 10.0, True),
        ({"task": "classify"}, 0.0, False),
        ({"tune": False}, 0.0, False),
        ({"task": "embed", "max_float": 0}, 0.0, True),
        ({"max_float": 7}, 7.0, False),
    ],
)
def test_what_may_stay_in_float_goes_by_the_task(
    tmp_path, monkeypatch, asked, percent, when_near
) -> None:
    assert allowed(monkeypatch, tmp_path, {}, **asked) == (percent, when_near)


def test_labels_make_a_classifier(tmp_path, monkeypatch) -> None:
    session = open_session(network())
    labels = session.run({"image": images(0)})["logits"].argmax(1)
    assert allowed(monkeypatch, tmp_path, {"label": labels}) == (0.0, False)


def allowed(monkeypatch, output, more_data, **asked) -> tuple[float, bool]:
    """The percentage that a build may keep in float, and whether also when near float; ends the build."""

    def noted(*_: object, **given: object) -> None:
        room = given["room"]
        assert isinstance(room, FloatRoom)
        raise StopIteration(room.percent, room.when_near)

    monkeypatch.setattr(trtbuild.jobs.ranges, "improve", noted)
    # skip the check that the outputs fit the named task
    monkeypatch.setattr(trtbuild.jobs.engine, "check_float_outputs", lambda *_: None)
    data = {"image": images(0), **more_data}
    with pytest.raises(StopIteration) as told:
        trtbuild.build(ir.to_proto(network()), data, output=output, latency=False, **asked)
    return told.value.args
