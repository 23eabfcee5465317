"""Moves that change the network are kept if other images confirm the gain, and keep its function."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from tests.trtbuild.search.depthwise_network import Images, artifact
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.options.effort import Effort
from trtbuild.quantization import watched_tensors
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.deadline import NEVER, Deadline
from trtbuild.search.improve import improve, were_tried
from trtbuild.search.measured import is_less
from trtbuild.search.ranges.check_images import CalibrationImages, CheckImages
from trtbuild.search.ranges.choose import choose_ranges
from trtbuild.search.ranges.work import FAR, far_work_for, may_move, work_for
from trtbuild.search.recalibration import Recalibration
from trtbuild.search.steps import Material, correct_biases, widen_ranges

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact

AGAIN = Recalibration(Images(0), CalibrateOptions())


@pytest.fixture(scope="module")
def start() -> Candidate:
    plain = artifact(imbalance=1.5)
    ready = calibrate(plain, Images(0), watched_tensors(plain.model))
    return Candidate(choose_ranges(ready, CalibrationImages(Images(0))))


@pytest.fixture(scope="module")
def better(start) -> Candidate:
    return improve(start, AGAIN, CalibrationImages(Images(0)))


def outputs(model) -> np.ndarray:
    """The outputs for unseen images."""
    session = open_session(model, Execution.REFERENCE)
    return np.stack([session.run(one.load())["logits"] for one in Images(1)]).astype(np.float64)


def noise(candidate: Candidate) -> float:
    reference = outputs(candidate.artifact.source)
    return float(((outputs(candidate.network()) - reference) ** 2).sum())


def test_channels_of_unlike_size_are_mended(start, better) -> None:
    # 6 dB are one of eight bits
    assert noise(better) < noise(start) / 4
    record = better.artifact.history[-1]
    assert record.stage == "moves"
    assert "channel scaling" in record.summary
    assert record.details["error"] < record.details["error_before"]


def test_the_float_network_still_computes_the_same(better) -> None:
    wanted, found = outputs(better.artifact.source), outputs(better.artifact.model)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_nothing_is_tried_where_the_time_is_over_or_little_is_asked_for(start) -> None:
    late = improve(start, AGAIN, CalibrationImages(Images(0)), deadline=Deadline.after(0.0))
    assert late.artifact.calibration == start.artifact.calibration
    assert improve(start, AGAIN, CalibrationImages(Images(0), Effort.FAST)) is start


@pytest.mark.parametrize(
    ("factors", "kept"),
    [
        ((0.96, 0.96), True),
        ((0.98, 0.98), False),  # less than three percent may be luck
        ((0.5, 1.09), True),
        ((0.5, 1.11), False),  # no part may lose more than a tenth for another
    ],
)
def test_a_move_is_kept_where_the_error_falls_enough_and_no_part_pays(
    start, monkeypatch, factors: tuple[float, float], kept: bool
) -> None:
    given = iter([(1.0, 1.0)])  # before all moves

    def errors(images: CheckImages, _: ir.Model) -> np.ndarray:
        one_image = np.full((len(images.feeds), 2), 0.1 / len(images.feeds))
        return one_image * next(given, factors)

    monkeypatch.setattr(CheckImages, "errors", errors)
    found = improve(start, AGAIN, CalibrationImages(Images(0)), deadline=Deadline.after(0.0))
    first = found.artifact.history[-1].details["tried"][0]
    assert (first.move, first.kept) == ("bias correction", kept)


def test_less_error_is_less_in_sum_and_on_most_images() -> None:
    before = np.array([1.0, 1.0, 1.0, 4.0])
    assert is_less(before * 0.9, before, gain=0.03)
    assert not is_less(before * 0.9, before, gain=0.2)
    assert not is_less(before, before)
    # the sum falls by the worst image, while the others get worse
    assert not is_less(np.array([1.5, 1.5, 1.5, 2.4]), before)
    # most get better, and the sum grows
    assert not is_less(np.array([0.5, 0.5, 0.5, 6.0]), before)
    assert not is_less(np.array([0.5, 0.5, 0.5, np.inf]), before)
    assert is_less(before, np.array([0.5, 0.5, 0.5, np.inf]))


def test_images_without_error_are_ignored() -> None:
    # a saturated Softmax: its probabilities differ in the twelfth digit, but sevenfold
    sure = np.full(28, 1e-12)
    before = np.concatenate([[4.0, 3.0, 2.0, 1.0], sure])
    after = np.concatenate([[2.0, 1.5, 1.2, 0.5], 7 * sure])
    assert is_less(after, before, gain=0.03)
    assert not is_less(before, after, gain=0.03)


@pytest.mark.parametrize("image_seconds", [1e-3, 0.05, 0.25, 10.0])
def test_a_network_far_from_float_has_images_enough_to_judge_by(image_seconds) -> None:
    usual, far = (work(Effort.NORMAL, image_seconds, 40) for work in (work_for, far_work_for))
    assert far.num_checking >= max(8, usual.num_checking)
    assert far.num_choosing >= max(8, usual.num_choosing)


def test_a_network_of_hundreds_of_millions_of_weights_is_not_changed_for_a_small_gain(
    start,
) -> None:
    assert may_move(Effort.NORMAL, start.artifact, 24)

    def unread() -> ir.Tensor:
        raise AssertionError

    # a proposal writes all weights, however few images calibrate
    def holding(millions: int) -> Artifact:
        size = ir.Shape([millions, 1000, 1000])
        weight = ir.Value(name="w", const_value=ir.LazyTensor(unread, ir.DataType.FLOAT, size))
        large = start.artifact.model.clone()
        large.graph.register_initializer(weight)
        return replace(start.artifact, model=large)

    for effort, most in ((Effort.NORMAL, 240), (Effort.HIGH, 2000)):  # as the pages say
        assert may_move(effort, holding(most), 1)
        assert not may_move(effort, holding(most + most // 20), 1)


def test_a_changed_network_is_calibrated_without_a_digest_of_its_weights_anew(start) -> None:
    known = replace(
        start.artifact.calibration, provenance={"model_graph": "g", "model_weights": "w"}
    )
    anew = AGAIN(replace(start.artifact, calibration=known)).calibration
    assert (anew.provenance["model_graph"], anew.provenance["model_weights"]) == ("g", "w")


def test_ranges_that_there_are_are_one_of_the_rules_when_they_are_chosen_anew(start) -> None:
    anew = choose_ranges(start.artifact, CalibrationImages(Images(0)))
    errors = anew.history[-1].details["errors"]
    assert "as before" in errors
    assert anew.history[-1].details["time_was_over"] is False
    assert errors[anew.history[-1].details["chosen"]] <= errors["as before"]


def test_wider_ranges_cut_off_less_and_biases_follow(start) -> None:
    calibration = start.artifact.calibration
    ranges = {n: replace(one, amax=one.amax * 0.4) for n, one in calibration.ranges.items()}
    narrow = replace(calibration, ranges=ranges)
    cut = replace(start, artifact=replace(start.artifact, calibration=narrow))
    material = Material([one.load() for one in Images(0)][:8], calibrate=lambda changed: changed)
    _, cut = next(correct_biases(lambda: cut, material))
    found = [candidate for _, candidate in widen_ranges(lambda: cut, material)]
    for factor, wider in zip((1.1, 1.2), found, strict=True):
        amaxes = wider.artifact.calibration.amaxes
        assert amaxes == pytest.approx({n: factor * one.amax for n, one in ranges.items()})
        assert wider.shifts.keys() == cut.shifts.keys()
        # less is cut off, so less is left to correct
        assert sum(np.abs(s).sum() for s in wider.shifts.values()) < sum(
            np.abs(s).sum() for s in cut.shifts.values()
        )
    assert noise(found[1]) < noise(found[0]) < noise(cut)


@pytest.mark.parametrize(
    ("factors", "amax"), [((0.9, 0.95), 1.1), ((0.9, 0.8), 1.2), ((1.1, 0.98), 1.0)]
)
def test_ranges_get_wider_at_the_end_where_other_images_agree(
    start, monkeypatch, factors: tuple[float, float], amax: float
) -> None:
    proposed: list[float] = []

    def noted(*given):
        for factor, (what, candidate) in zip(factors, widen_ranges(*given), strict=True):
            proposed.append(factor)
            yield what, candidate

    def errors(images: CheckImages, _: ir.Model) -> np.ndarray:
        return np.full((len(images.feeds), 1), 0.1 * FAR * (proposed or [1.0])[-1])

    monkeypatch.setattr("trtbuild.search.improve.widen_ranges", noted)
    monkeypatch.setattr(CheckImages, "errors", errors)
    found = improve(start, AGAIN, CalibrationImages(Images(0)))
    tried = found.artifact.history[-1].details["tried"]
    assert [one.move for one in tried[-2:]] == ["wider ranges", "wider ranges"]
    before = start.artifact.calibration.amaxes
    wanted = {name: amax * before[name] for name in before}
    assert found.artifact.calibration.amaxes == pytest.approx(wanted)


def test_a_third_of_the_time_is_left_for_the_last_moves(start, monkeypatch) -> None:
    seconds, asked = [0.0, 61.0], []  # before the first move has been tried, and then
    deadline = Deadline.after(90.0, now=lambda: seconds[0])

    def errors(images: CheckImages, _: ir.Model) -> np.ndarray:
        if not asked:
            del seconds[0]
        asked.append(images)
        return np.full((len(images.feeds), 1), 0.1)

    monkeypatch.setattr(CheckImages, "errors", errors)
    found = improve(start, AGAIN, CalibrationImages(Images(0)), deadline=deadline)
    tried = {one.move for one in found.artifact.history[-1].details["tried"]}
    assert tried == {"bias correction", "wider ranges"}
    assert NEVER.sooner(0.5) is NEVER


@pytest.mark.parametrize(("error", "moves"), [(0.5 * FAR, False), (2.0 * FAR, True)])
def test_what_was_seen_when_ranges_were_chosen_says_whether_moves_are_needed(
    start, monkeypatch, error: float, moves: bool
) -> None:
    monkeypatch.setattr("trtbuild.search.improve.may_move", lambda *_: False)
    record = start.artifact.history[-1]
    seen = replace(record, details={"chosen": "minmax", "errors": {"minmax": error}})
    changed = replace(start.artifact, history=(*start.artifact.history[:-1], seen))
    found = improve(
        Candidate(changed), AGAIN, CalibrationImages(Images(0)), deadline=Deadline.after(0.0)
    )
    assert were_tried(found.artifact) == moves
