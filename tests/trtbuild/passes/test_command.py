"""``trtbuild optimize`` and the sample, as users call them."""

from __future__ import annotations

import runpy
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from tests.command import trtbuild
from tests.trtbuild.passes.networks import answers, network
from trtbuild.cli.main import run
from trtbuild.cli.optimize import command
from trtbuild.passes import OptimizeOptions, optimize
from trtbuild.plugins import PASS

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "custom_pass" / "hard_swish.py"
TEXT = (
    "t (float[n,3,8,8] x) => (float[n,4,8,8] y) "
    "{ c = Conv<pads=[1,1,1,1]>(x, w) d = Identity(c) e = Add(d, b) y = Relu(e) }"
)


@pytest.fixture
def source(tmp_path):
    model = network(TEXT, {"w": (4, 3, 3, 3), "b": (1, 4, 1, 1)})
    path = tmp_path / "in.onnx"
    ir.save(model, path)
    return path


def call(*arguments):
    return CliRunner().invoke(command, [str(item) for item in arguments], catch_exceptions=False)


def test_writes_the_optimised_network(source):
    target = source.with_name("out.onnx")
    done = call(source, target, "--explain")
    assert done.exit_code == 0
    assert "Identity" in done.output
    assert "fold_bias_add: 1 changed" in done.output
    assert "compared on" in done.output
    assert [node.op_type for node in onnx.load(target).graph.node] == ["Conv", "Relu"]


def test_json_is_all_of_standard_output(source, capsys):
    content = trtbuild(capsys, "optimize", source, source.with_name("out.onnx"), "--json").json
    assert (content["before"]["num_nodes"], content["after"]["num_nodes"]) == (4, 2)
    assert content["after"]["op_types"] == {"Conv": 1, "Relu": 1}
    assert content["files"] == [str(source.with_name("out.onnx"))]
    assert content["before"]["num_bytes"] == source.stat().st_size
    assert content["after"]["num_bytes"] == source.with_name("out.onnx").stat().st_size
    assert content["passes"]["fold_bias_add"]["changes"][0]["op_type"] == "Add"


def test_list_shows_every_pass(capsys):
    listed = trtbuild(capsys, "optimize", "--list", "--json").json["passes"]
    passes = {one["name"]: one for one in listed}
    assert not passes["fold_bias_add"]["opt_in"]
    assert any(one["opt_in"] for one in listed)
    assert len(passes) == len(listed) >= 61


@pytest.mark.parametrize(
    "arguments", [["missing.onnx", "out.onnx"], [], ["--enable", "no_such_pass"]]
)
def test_mistakes_of_the_user_end_in_two(arguments, source, capsys):
    given = [*arguments]
    if given and given[0] == "--enable":
        given = [str(source), str(source.with_name("out.onnx")), *given]
    assert run(["optimize", *given]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_overridable_weights_are_left_unless_fixed(tmp_path):
    model = network(TEXT, {"w": (4, 3, 3, 3), "b": (1, 4, 1, 1)})
    model.graph.inputs.append(model.graph.initializers["b"])
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    ir.save(model, source)
    call(source, target)
    assert "Add" in [node.op_type for node in onnx.load(target).graph.node]
    call(source, target, "--fixed-weights")
    assert "Add" not in [node.op_type for node in onnx.load(target).graph.node]


def test_weights_in_a_file_beside_stay_readable(tmp_path):
    model = network(TEXT, {"w": (4, 3, 3, 3), "b": (1, 4, 1, 1)})
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    ir.save(model, source, external_data="in.data", size_threshold_bytes=0)
    assert call(source, target).exit_code == 0
    np.testing.assert_allclose(answers(ir.load(target))[0], answers(model)[0], atol=1e-5)


def test_sample_pass_works_and_can_be_an_entry_point(monkeypatch, capsys):
    made = runpy.run_path(str(SAMPLE), run_name="__main__")
    assert "{'HardSwish': 1}" in capsys.readouterr().out
    point = EntryPoint("hard_swish", "x:y", PASS.group)
    monkeypatch.setattr(EntryPoint, "load", lambda _self: made["FuseHardSwish"])
    monkeypatch.setattr("trtbuild.plugins.entry_points", lambda group: [point])
    result = optimize(ir.from_onnx_text(made["NETWORK"]), OptimizeOptions(check=False))
    assert dict(result.after.nodes) == {"HardSwish": 1}
    result = optimize(
        ir.from_onnx_text(made["NETWORK"]), OptimizeOptions(disable=["fuse_hard_swish"])
    )
    assert "HardSwish" not in result.after.nodes
