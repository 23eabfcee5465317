"""A calibration has the same bytes for any order, shards, processes, or repetition."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibrators import Calibration, Collector
from tests.ray_here import ray_of_two
from tests.trtbuild.calibration.small_files import (
    calibrate,
    called,
    digit_images,
    digits,
    digits_with,
)
from trtbuild.calibration.histograms import Histograms
from trtbuild.data import DataDigest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], bytes]:
    """Arguments for network and data, and the file of a plain run."""
    folder = tmp_path_factory.mktemp("one_run")
    given = digits(folder)
    assert calibrate(*given, "-q", "-o", folder / "whole") == 0
    return given, (folder / "whole").read_bytes()


@pytest.mark.parametrize("seed", [1, 2])
def test_order_and_batch_size_do_not_matter(one_run, seed, tmp_path) -> None:
    images = digit_images()[:96]
    np.savez(tmp_path / "other.npz", image=np.random.default_rng(seed).permutation(images))
    given = digits_with(tmp_path / "other.npz")
    assert calibrate(*given, "-q", "-o", tmp_path / "f", "--batch-size", 1 + 30 * seed) == 0
    assert (tmp_path / "f").read_bytes() == one_run[1]


def test_shards_merge_in_any_order(one_run, tmp_path) -> None:
    given, whole = one_run
    parts = [tmp_path / f"part{number}" for number in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        assert calibrate(*given, "-q", "--shard", f"{number}/3", "-o", part) == 0
        assert part.read_bytes() != whole
    for order in itertools.permutations(parts):
        assert calibrate("merge", *order, "-q", "-o", tmp_path / "merged") == 0
        assert (tmp_path / "merged").read_bytes() == whole


def test_parts_of_parts_merge_too(one_run, tmp_path) -> None:
    given, whole = one_run
    for number in (1, 2, 3):
        calibrate(*given, "-q", "--shard", f"{number}/3", "-o", tmp_path / f"p{number}")
    two = ("merge", tmp_path / "p3", tmp_path / "p1", "--partial", "-q", "-o", tmp_path / "two")
    assert calibrate(*two) == 0
    assert calibrate("merge", tmp_path / "p2", tmp_path / "two", "-q", "-o", tmp_path / "all") == 0
    assert (tmp_path / "all").read_bytes() == whole


@pytest.fixture(scope="module")
def parts(one_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three parts of a calibration, and files that do not belong to them."""
    folder = tmp_path_factory.mktemp("parts")
    given, whole = one_run
    for number in (1, 2, 3):
        calibrate(*given, "-q", "--shard", f"{number}/3", "-o", folder / f"{number}")
    calibrate(*given, "-q", "--shard", "1/2", "-o", folder / "half")
    calibrate(*given, "-q", "--shard", "3/3", "--num-images", 40, "-o", folder / "fewer")
    (folder / "whole").write_bytes(whole)
    return folder


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("1 1 2 3", r"part 1 of 3 is given twice, in '.*1' and '.*1'"),
        ("1 3", "part 2 of 3 is missing"),
        ("2", "part 1,3 of 3 is missing"),
        ("1 2 fewer", "fewer' has other data than '.*1'"),
        ("half 2 3", "2' is one of 3 parts, and '.*half' one of 2"),
        ("whole 1", "whole' does not say which part"),
        ("1 2 3 whole", "whole' does not say which part"),
        ("whole", "whole' does not say which part"),
    ],
)
def test_parts_that_are_not_the_whole_are_refused(parts, tmp_path, capsys, names, said) -> None:
    files = [parts / name for name in names.split()]
    code, _, error = called(capsys, "merge", *files, "-o", tmp_path / "all")
    assert code == 2
    assert re.search(said, error)
    assert not (tmp_path / "all").exists()


def test_a_part_of_parts_is_not_counted_twice(parts, tmp_path, capsys) -> None:
    two = tmp_path / "two"
    assert calibrate("merge", parts / "1", parts / "3", "--partial", "-q", "-o", two) == 0
    code, _, error = called(capsys, "merge", two, parts / "3", parts / "2", "-o", tmp_path / "all")
    assert code == 2
    assert "part 3 of 3 is given twice" in error


def test_parts_made_differently_are_refused(one_run, tmp_path, capsys) -> None:
    given, _ = one_run
    calibrate(*given, "-q", "--shard", "1/2", "-o", tmp_path / "a")
    calibrate(*given, "-q", "--shard", "2/2", "-o", tmp_path / "b", "--scale", 0.5)
    code, _, error = called(
        capsys, "merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "both"
    )
    assert code == 2
    assert "b' has another preprocess than" in error
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_parts_of_a_cpu_and_of_a_gpu_are_refused(one_run, tmp_path, capsys, order) -> None:
    given, _ = one_run
    for number, name in enumerate("ab", 1):
        calibrate(*given, "-q", "--shard", f"{number}/2", "-o", tmp_path / name)
    part = Calibration.from_bytes((tmp_path / "b").read_bytes())
    made_on_gpu = replace(part, provenance={**part.provenance, "device": "cuda"})
    (tmp_path / "b").write_bytes(made_on_gpu.to_bytes(histograms=True))
    parts = [tmp_path / name for name in order]
    code, _, error = called(capsys, "merge", *parts, "-o", tmp_path / "both")
    assert code == 2
    assert "has another device than" in error
    assert not (tmp_path / "both").exists()


def test_ranges_alone_cannot_be_merged(one_run, tmp_path, capsys) -> None:
    from calibrators import Calibration

    ranges = Calibration.from_bytes(one_run[1]).to_bytes(histograms=False)
    (tmp_path / "ranges").write_bytes(ranges)
    code, _, error = called(capsys, "merge", tmp_path / "ranges", "-o", tmp_path / "both")
    assert code == 2
    assert "holds ranges only" in error


def test_several_processes_give_the_same(one_run, tmp_path) -> None:
    given, whole = one_run
    assert calibrate(*given, "-q", "--workers", 2, "-o", tmp_path / "f") == 0
    assert (tmp_path / "f").read_bytes() == whole


def test_a_ray_cluster_of_two_workers_gives_the_same(one_run, tmp_path) -> None:
    given, whole = one_run
    with ray_of_two():
        import ray

        assert calibrate(*given, "-q", "--ray", "--output", tmp_path / "f") == 0
        assert ray.is_initialized(), "a cluster that was there before is left alone"
    assert (tmp_path / "f").read_bytes() == whole


# The first process of a pool that reads a sample is killed, as if memory ran out.
DEADLY = """
import multiprocessing, os, pathlib, signal
import numpy as np

def samples():
    images = np.load({data!r})["image"][:24]
    for image in images:
        if multiprocessing.parent_process() is not None and not os.path.exists({marker!r}):
            pathlib.Path({marker!r}).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield {{"image": image[np.newaxis, np.newaxis].astype(np.float32) / 16}}
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that kill")
def test_a_killed_process_changes_no_byte(tmp_path, monkeypatch) -> None:
    data, marker = tmp_path / "images.npz", tmp_path / "died"
    np.savez(data, image=digit_images()[:24])
    (tmp_path / "deadly_data.py").write_text(DEADLY.format(data=str(data), marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    network, *_ = digits_with(data)
    given = (network, "--data", "deadly_data:samples", "-q")
    assert calibrate(*given, "--workers", 2, "-o", tmp_path / "spread") == 0
    assert marker.exists(), "no process died, so nothing was tested"
    assert calibrate(*given, "-o", tmp_path / "alone") == 0
    assert (tmp_path / "spread").read_bytes() == (tmp_path / "alone").read_bytes()


def test_statistics_merge_like_sets() -> None:
    rng = np.random.default_rng(7)
    parts = []
    for number in range(3):
        halves = (Collector(["a", "b"]), Collector(["a", "b"]))
        arrays = {"a": rng.standard_normal(50), "b": rng.random(9)}
        halves[number % 2].observe(arrays, batch=number)
        parts.append(Histograms(*halves, DataDigest().plus(bytes([number]))))
    a, b, c = parts
    left, right = a.merge(b).merge(c), c.merge(b.merge(a))
    assert dict(left.together.histograms) == dict(right.together.histograms)
    assert dict(left.first.histograms) == dict(right.first.histograms)
    assert left.data == right.data
    assert left.num_samples == 3
