"""Known issues: every fact has a source, and is reported only where it applies."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import onnx
import onnx_ir as ir
import pytest

from tests.command import trtbuild
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.known_issues import (
    Effect,
    KnownIssue,
    Situation,
    issues_of,
    known_issues,
    situation_of,
)
from trtbuild.options.fields import options_of
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.runtime.tensorrt.versions import TENSORRT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World
    from trtbuild.runtime.tensorrt.versions import TensorRT


def test_every_fact_is_whole_and_has_a_public_source() -> None:
    found = known_issues()
    assert 10 <= len(found) <= 30
    assert len({one.id for one in found}) == len(found)
    fields = {one.name for one in options_of(TensorRTOptions)}
    for one in found:
        assert one.product in ("tensorrt", "tensorrt-rtx")
        assert one.source.startswith("https://")
        assert one.text.endswith(".")
        assert one.advice.endswith(".")
        assert one.quantization in ("", "explicit", "implicit")
        assert one.options <= fields
        for bound in (*one.versions, *one.capabilities):
            assert re.fullmatch(r"(\d+(\.\d+)*)?", bound)


def issue(**changes: object) -> KnownIssue:
    values: dict = {
        "id": "x", "product": "tensorrt", "effect": Effect.SLOW, "text": "It is slow.",
        "advice": "Wait.", "source": "https://example.org", "versions": ("", ""),
        "capabilities": ("", ""), "operators": frozenset(), "quantization": "",
        "options": frozenset(), **changes,
    }  # fmt: skip
    return KnownIssue(**values)


HERE = Situation(
    "tensorrt", "10.9.0.34", ("8.9",), frozenset({"Conv"}), "explicit", frozenset({"refit"})
)


@pytest.mark.parametrize(
    ("changes", "applies"),
    [
        ({}, True),
        ({"product": "tensorrt-rtx"}, False),
        ({"versions": ("10.9", "")}, True),
        ({"versions": ("", "10.9")}, False),
        ({"versions": ("10.10", "")}, False),  # ten is more than nine
        ({"versions": ("10.8", "10.10")}, True),
        ({"capabilities": ("8.9", "9.0")}, True),
        ({"capabilities": ("10.0", "")}, False),
        ({"operators": frozenset({"Conv", "Gemm"})}, True),
        ({"operators": frozenset({"GridSample"})}, False),
        ({"quantization": "implicit"}, False),
        ({"options": frozenset({"refit"})}, True),
        ({"options": frozenset({"hardware_compatibility"})}, False),
    ],
)
def test_an_issue_applies_where_all_its_conditions_hold(changes: dict, applies: bool) -> None:
    assert bool(issues_of(HERE, [issue(**changes)])) == applies


def test_nothing_is_said_of_a_gpu_that_is_not_known() -> None:
    blind = Situation("tensorrt", "10.5.0")
    assert issues_of(blind, [issue(capabilities=("7.5", "8.0"))]) == ()
    assert issues_of(blind, [issue()])
    assert issues_of(blind, []) == ()


def test_published_facts_meet_the_case_they_are_of() -> None:
    volta = Situation("tensorrt", "10.5.0.18", ("7.0",), frozenset({"Conv"}), "explicit")
    assert "volta-removed" in {one.id for one in issues_of(volta)}
    v100 = Situation("tensorrt", "10.4.0.26", ("7.0",), frozenset({"Conv"}), "explicit")
    assert issues_of(v100) == ()
    ada = Situation("tensorrt", "10.16.1.11", ("8.9",), frozenset({"Conv"}), "explicit")
    assert issues_of(ada) == ()
    grid = Situation("tensorrt", "10.2.0.19", ("8.9",), frozenset({"GridSample"}))
    assert [one.id for one in issues_of(grid)] == ["grid-sample-slow"]


def issues_at(body: str, version: str, quantization: str) -> list[str]:
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 8, H, W] x, float s, float[K] ss, int8 z, int8[K] zz) => (float[N, M, J, L] y)
    {{ {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    library = cast("TensorRT", SimpleNamespace(product=TENSORRT, version=version))
    here = situation_of(library, TensorRTOptions(), model, quantization, ("8.9",))
    return [one.id for one in issues_of(here)]


def convolution(operator: str, dims: str, group: int, *, quantized: bool) -> str:
    """A convolution with a constant weight; also quantized, as trtbuild writes it."""
    count = math.prod(map(int, dims.split(",")))
    zeros = ", ".join(["0"] * count)
    if not quantized:
        w = f"w = Constant <value = float[{dims}] {{ {zeros} }}> ()"
        return f"{w} y = {operator} <group = {group}> (x, w)"
    return f"""
    i = Constant <value = int8[{dims}] {{ {zeros} }}> ()
    w = DequantizeLinear <axis = 0> (i, ss, zz)
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    y = {operator} <group = {group}> (d, w)
    """


@pytest.mark.parametrize(
    ("dims", "group", "quantized", "told"),
    [
        ("8,2,3,3", 1, True, []),
        ("8,2,3,3", 2, True, ["grouped-conv-transpose"]),
        ("8,4,3,3", 2, True, []),  # of the report are groups of fewer than four channels
        ("8,2,3,3", 2, False, []),  # trtbuild leaves it in float
        ("8,2,3,3,3", 1, True, ["conv-transpose-3d-in-float"]),
        ("8,2,3,3,3", 1, False, []),
    ],
)
def test_what_is_known_of_some_convolutions_is_not_said_of_all(
    dims: str, group: int, quantized: bool, told: list[str]
) -> None:
    body = convolution("ConvTranspose", dims, group, quantized=quantized)
    assert issues_at(body, "10.8.0.43", "explicit") == told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("y = Softmax (x)", []),  # the end of a classifier
        ("k = MatMul (x, x) p = Softmax (k) y = MatMul (p, x)", ["implicit-attention-not-fused"]),
        ("y = Attention (x, x, x)", ["implicit-attention-not-fused"]),
        ("k = MatMul (x, x) y = Softmax (k)", []),
    ],
)
def test_a_softmax_alone_is_no_attention(body: str, told: list[str]) -> None:
    assert issues_at(body, "10.16.1.11", "implicit") == told


def test_check_tells_them(rtx: TensorRT, tmp_path: Path, capsys, monkeypatch) -> None:
    from trtbuild.jobs import check
    from trtbuild.model import write_model

    write_model(networks.float_artifact().model, tmp_path / "net.onnx")
    monkeypatch.setattr(check, "issues_of", lambda situation: [issue(product=situation.product)])
    told = trtbuild(capsys, "check", tmp_path / "net.onnx", "--json")
    assert told.json["known_issues"] == [
        "known issue, slow: It is slow. Wait. (https://example.org)"
    ]


def builds_for_other_gpus(world: World) -> list[str]:
    import logging

    heard: list[str] = []

    class Hearing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logging.getLogger("trtbuild").addHandler(Hearing())
    options = {"quantization": "explicit", "hardware_compatibility": "ampere_plus"}
    request = networks.request(networks.calibrated(), None, **options)
    TensorRTBackend().build(request)
    return heard


def test_a_build_warns_of_them(tensorrt: Server) -> None:
    heard = tensorrt.value(builds_for_other_gpus)
    assert any("known issue, slow: A plan for other GPUs too" in text for text in heard)
