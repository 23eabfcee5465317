"""Baselines: written and read unchanged, and refused where they do not belong."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from trtbuild.errors import InputError
from trtbuild.latency.baseline import Baseline, check_device, load_baseline, save_baseline
from trtbuild.latency.conditions import Conditions, Device, Monitor, this_device
from trtbuild.latency.measure import MONOTONIC, Samples

if TYPE_CHECKING:
    from pathlib import Path


def baseline() -> Baseline:
    return Baseline(
        engine="net.onnx",
        engine_digest="sha256:00",
        device=Device("A CPU @ 3 GHz", 8, ("NVIDIA L4",), "580.1", "Linux x86_64"),
        taken_at=Baseline.now(),
        samples=Samples("net", 1, MONOTONIC, 2, (1.0, 1.25, 1.5, 2.0)),
        conditions=Conditions(cpu_mhz=(3000.0, 2900.5), other_load_percent=1.5),
        versions={"onnxruntime": "1.31"},
    )


def test_a_baseline_comes_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "net.baseline.json"
    written = baseline()
    save_baseline(written, path)
    assert load_baseline(path) == written


def test_a_baseline_of_another_device_is_refused_with_both_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"A CPU @ 3 GHz \(8 CPUs\) \+ NVIDIA L4"):
        check_device(baseline(), this_device(), tmp_path / "b.json")


def test_another_driver_is_the_same_device(tmp_path: Path) -> None:
    newer = dataclasses.replace(baseline().device, driver="590.2")
    check_device(baseline(), newer, tmp_path / "b.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version"),
        ({"schema": "something.else"}, "something.else"),
        ({"device": 3}, "device should be an object"),
        ({"samples": {"name": "x"}}, "lacks the field"),
        ({"surprise": 1}, "surprise"),
        ({"engine": 5}, "engine should be of type str"),
    ],
)
def test_files_that_are_no_baseline(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps({**baseline().to_json(), **change}))
    with pytest.raises(InputError, match=message):
        load_baseline(path)


@pytest.mark.parametrize("content", ["", "[1, 2", "[]"])
def test_files_that_are_not_even_json_objects(tmp_path: Path, content: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"b\.json"):
        load_baseline(path)


def test_own_work_is_not_other_load() -> None:
    monitor = Monitor()
    total = 0
    for number in range(3_000_000):
        total += number
    found = monitor.conditions()
    assert found.other_load_percent is None or 0.0 <= found.other_load_percent <= 100.0


def test_what_makes_a_measurement_doubtful_is_said() -> None:
    doubtful = Conditions(other_load_percent=40.0, stolen_percent=5.0, gpu_clocks_mhz=(1800, 1200))
    assert len(doubtful.remarks()) == 3
    assert Conditions(other_load_percent=1.0).remarks() == ()


def test_the_slug_is_safe_in_a_file_name() -> None:
    assert baseline().device.slug == "nvidia-l4-a-cpu-3-ghz-8cpu"
