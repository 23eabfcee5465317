"""A float network no better than chance on the labels is an error; one slightly better is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.trtbuild.verification.small_network import images, quantized
from tests.trtbuild.verification.small_network import run as run_network
from trtbuild.cli.main import run
from trtbuild.errors import DataError
from trtbuild.model import write_model
from trtbuild.verification.label_check import LabelCheck


def check(found, labels, num_classes, output=None):
    """A check of a network with the answers `found`, in two batches."""
    result = LabelCheck(output)
    for part in (slice(None, 3), slice(3, None)):
        scores = np.eye(num_classes, dtype=np.float32)[found[part]]
        result.add({"boxes": np.zeros((len(scores), 2, 4), np.float32), "y": scores}, labels[part])
    return result


def answers(num_samples, num_classes, share, seed=0):
    """Answers, and labels: the share `share` of them equal, the others random."""
    generator = np.random.default_rng(seed)
    found = generator.integers(0, num_classes, num_samples)
    labels = generator.integers(0, num_classes, num_samples)
    count = round(share * num_samples)
    labels[:count] = found[:count]
    return found, labels


@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_labels_of_other_samples(num_classes):
    found, labels = answers(256, num_classes, 0)
    with pytest.raises(DataError, match="no better than chance"):
        check(found, labels, num_classes).raise_at_chance()


@pytest.mark.parametrize(("num_classes", "share"), [(2, 0.5), (10, 0.25), (1000, 0.1), (10, 1)])
def test_networks_better_than_chance_are_accepted(num_classes, share):
    found, labels = answers(256, num_classes, share)
    check(found, labels, num_classes).raise_at_chance()


@pytest.mark.parametrize(("shift", "way"), [(1, "lower"), (-1, "higher")])
def test_labels_that_are_one_off(shift, way):
    found = np.random.default_rng(0).integers(1, 99, 200)
    with pytest.raises(DataError, match=f"every label one {way} .* 200: labels off by one"):
        check(found, found + shift, 100).raise_at_chance()


def test_few_samples_prove_nothing():
    check(np.zeros(8, np.int64), np.ones(8, np.int64), 10).raise_at_chance()
    LabelCheck().raise_at_chance()
    without = LabelCheck()
    without.add({"y": np.eye(4, dtype=np.float32)}, None)
    without.raise_at_chance()


def test_labels_beyond_the_classes():
    with pytest.raises(DataError, match=r"between 1 and 10, but output 'y' has 10 classes"):
        check(np.zeros(13, np.int64), np.array([0, 0, 0, *range(1, 11)]), 10)


def test_float_is_judged_on_all_samples_that_calibrate(tmp_path, capsys):
    artifact = quantized()
    write_model(artifact.source, tmp_path / "net.onnx")
    data = images(5, 60)
    answers = run_network(artifact.source, data)["logits"].argmax(1)
    labels = answers.copy()
    labels[::3] = (labels[::3] + 1) % 3
    np.savez(tmp_path / "data.npz", image=data)

    build = ["engine", str(tmp_path / "net.onnx"), "--int8", "--backend", "onnxruntime"]
    build += ["--no-latency", "--effort", "fast", "--data", str(tmp_path / "data.npz")]

    def stages(folder, *more):
        assert run([*build, "-o", str(tmp_path / folder), *more, "--json"]) == 0
        return {one["stage"]: one for one in json.loads(capsys.readouterr().out)["stages"]}

    np.savez(tmp_path / "labels.npz", y=labels)
    found = stages("with", "--labels", str(tmp_path / "labels.npz"))["float accuracy"]["details"]
    right = (answers == labels).mean()
    # all but the five percent that verify
    assert found["num_samples"] == 57
    assert found["top1_percent"]["value"] == pytest.approx(100 * right, abs=100 * 3 / 57)
    # the check reads the same run and changes no range
    assert "float accuracy" not in stages("without")
    first, second = (
        (tmp_path / name / "net.calibration.json").read_bytes() for name in ("with", "without")
    )
    assert first == second
