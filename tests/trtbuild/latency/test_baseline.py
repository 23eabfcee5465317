"""Baselines: written and read unchanged, and refused where they do not belong."""

from __future__ import annotations

import dataclasses
import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbuild.errors import InputError
from trtbuild.latency.baseline import (
    Baseline,
    TimedInput,
    check_device,
    check_inputs,
    load_baseline,
    save_baseline,
)
from trtbuild.latency.conditions import Conditions, Device, Monitor, this_device
from trtbuild.latency.measure import MONOTONIC, Samples
from trtbuild.model.signature import TensorSpec

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
        inputs=(TimedInput("x", "float32", (None, 3, 8, 8)),),
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


F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.mark.parametrize(
    "specs",
    [
        [TensorSpec("image", F32, ("N", 3, 8, 8))],
        [TensorSpec("x", F16, ("N", 3, 8, 8))],
        [TensorSpec("x", F32, ("N", 3, 16, 16))],
        [TensorSpec("x", F32, ("N", 192))],
        [TensorSpec("x", F32, ("N", 3, 8, 8)), TensorSpec("mask", F32, ("N", 8))],
    ],
)
def test_a_baseline_of_a_network_with_other_inputs_is_refused(tmp_path: Path, specs: list) -> None:
    with pytest.raises(InputError, match=r"takes 'x' float32 \[\?, 3, 8, 8\]; 'new\.onnx' takes"):
        check_inputs(baseline(), specs, "new.onnx", tmp_path / "b.json")


@pytest.mark.parametrize("dims", [("N", 3, 8, 8), (1, 3, 8, 8), (None, 3, "h", "w")])
def test_dynamic_dims_fit_fixed_ones(tmp_path: Path, dims: tuple) -> None:
    check_inputs(baseline(), [TensorSpec("x", F32, dims)], "new.onnx", tmp_path / "b.json")


def test_a_baseline_of_before_inputs_were_kept_is_read_and_fits(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    older = baseline().to_json()
    del older["inputs"]
    path.write_text(json.dumps(older))
    found = load_baseline(path)
    assert found == dataclasses.replace(baseline(), inputs=None)
    check_inputs(found, [TensorSpec("other", F16, (1,))], "new.onnx", path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version"),
        ({"schema": "something.else"}, "something.else"),
        ({"device": 3}, "device should be an object"),
        ({"samples": {"name": "x"}}, "lacks the field"),
        ({"surprise": 1}, "surprise"),
        ({"engine": 5}, "engine should be of type str"),
        (
            {"inputs": [{"name": "x", "dtype": "float32", "dims": ["N"]}]},
            "dims should be of type int",
        ),
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


def test_own_work_is_not_other_load(monkeypatch: pytest.MonkeyPatch) -> None:
    # user, nice, system, idle, iowait, irq, softirq, steal: of 1,000 ticks 600 are busy, 400 of them our own
    ticks = iter(["cpu  0 0 0 0 0 0 0 0", "cpu  450 50 80 300 50 10 10 50"])
    seconds = iter([0.0, 400 / os.sysconf("SC_CLK_TCK")])
    monkeypatch.setattr(
        "trtbuild.latency.conditions._lines",
        lambda path: [next(ticks)] if path == "/proc/stat" else [],
    )
    monkeypatch.setattr(os, "times", lambda: SimpleNamespace(user=next(seconds), system=0.0))
    found = Monitor().conditions()
    assert found.other_load_percent == pytest.approx(20.0)
    assert found.stolen_percent == 5.0


def test_what_makes_a_measurement_doubtful_is_said() -> None:
    doubtful = Conditions(other_load_percent=40.0, stolen_percent=5.0, gpu_clocks_mhz=(1800, 1200))
    assert len(doubtful.remarks()) == 3
    assert Conditions(other_load_percent=1.0).remarks() == ()


def test_the_slug_is_safe_in_a_file_name() -> None:
    assert baseline().device.slug == "nvidia-l4-a-cpu-3-ghz-8cpu"
