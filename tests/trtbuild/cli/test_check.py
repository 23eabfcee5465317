"""``trtbuild check``: the answers of NVIDIA's own parser, of TensorRT for RTX, which needs no GPU."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from tests.json_documents import valid_output
from tests.trtbuild.verification.small_network import quantized
from trtbuild.backends.tensorrt.advice import advice_on, plain_reason
from trtbuild.backends.tensorrt.apart import find_refusals_apart, parser_ahead
from trtbuild.cli.main import run
from trtbuild.errors import ModelError
from trtbuild.jobs.check import form_check
from trtbuild.model import read_model, write_model
from trtbuild.quantization import portable_form

if TYPE_CHECKING:
    from pathlib import Path

SHAPE_ERROR = """Invalid Node - y
ITensor::getDimensions: Error Code 4: Shape Error (axis is no constant In axes at /_src/shape.cpp:3553)
[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime"""
PRODUCTS = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


def write(path: Path, text: str, **constants: np.ndarray) -> Path:
    model = onnx.parser.parse_model(text)
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model.graph.initializer.extend(tensors)
    onnx.save(model, path)
    return path


def good(folder: Path) -> Path:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w) }"""
    return write(folder / "good.onnx", text, w=np.ones((4, 4, 3, 3), np.float32))


def bad(folder: Path) -> Path:
    """A chain of two operators that the parser does not know, and two that it refuses."""
    text = """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
        g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4, 8, 8] z) {
            z = com.microsoft.QuickGelu(x)
            bits = BitShift <direction = "LEFT"> (u, u)
            h = ScatterND <reduction = "add"> (x, places, updates)
            k = Resize <mode = "nearest", antialias = 1> (h, , scales)
            y = Sigmoid(k)
        }"""
    return write(
        folder / "bad.onnx", text, u=np.ones(4, np.uint8), places=np.zeros((1, 1), np.int64),
        updates=np.zeros((1, 4, 8, 8), np.float32), scales=np.ones(4, np.float32),
    )  # fmt: skip


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX, with its parser in a process of its own, as outside of tests."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT for RTX, the extra 'rtx'")
    monkeypatch.setattr("trtbuild.jobs.check.find_refusals_apart", find_refusals_apart)
    monkeypatch.setattr("trtbuild.jobs.check.parser_ahead", parser_ahead)


def checked(capsys, *arguments: str) -> tuple[int, dict]:
    words = ["check", *arguments, "--backend", "tensorrt-rtx", "--json"]
    code = run(words)
    return code, valid_output(words, capsys.readouterr().out)


@pytest.mark.usefixtures("rtx")
def test_a_network_that_is_taken_and_built(tmp_path: Path, capsys) -> None:
    code, found = checked(capsys, str(good(tmp_path)), "--build")
    assert code == 0
    assert found["refused"] == []
    assert found["build"]["built"]
    assert found["ruling"]["word"] == "ACCEPTED"
    assert found["build"]["plan_bytes"] > 1000
    assert found["parser"].startswith("TensorRT for RTX 1.")


@pytest.mark.usefixtures("rtx")
def test_what_is_repaired_is_said_once(tmp_path: Path, capsys) -> None:
    path = write(
        tmp_path / "unsorted.onnx",
        """<ir_version: 10, opset_import: ["" : 21]>
            g (float[1, 4] x) => (float[1, 4] y) { y = Relu(a) a = Sigmoid(x) }""",
    )
    assert run(["check", str(path), "--backend", "tensorrt-rtx"]) == 0
    assert capsys.readouterr().err.count("were sorted") == 1


@pytest.mark.usefixtures("rtx")
def test_every_refused_node_is_listed_with_reason_and_advice(tmp_path: Path, capsys) -> None:
    code, found = checked(capsys, str(bad(tmp_path)), "--build")
    assert code == 1
    refused = {one["operator"]: one for one in found["refused"]}
    assert set(refused) == {"com.microsoft:QuickGelu", "BitShift", "ScatterND", "Resize"}
    assert "Antialiasing is not supported" in refused["Resize"]["reason"]
    assert "without antialias" in refused["Resize"]["advice"]
    assert "x * Sigmoid(1.702 x)" in refused["com.microsoft:QuickGelu"]["advice"]
    assert refused["BitShift"]["reason"] == "this parser has no importer for the operator"
    assert found["needs_plugin"] == ["com.microsoft:QuickGelu"]
    assert found["unseen_behind"] == ""
    assert found["build"] is None
    assert found["ruling"]["word"] == "REJECTED"


@pytest.mark.usefixtures("rtx")
def test_of_the_form_for_onnxruntime_the_other_form_is_named(tmp_path: Path, capsys) -> None:
    artifact = quantized()
    write_model(portable_form(artifact), portable := tmp_path / "net.onnxruntime.onnx")
    assert checked(capsys, str(portable))[1]["instead"] == ""
    assert artifact.quantized is not None
    write_model(artifact.quantized, tmp_path / "net.int8.onnx")
    found = checked(capsys, str(portable))[1]
    assert found["instead"] == "net.int8.onnx"
    assert not any(one["node"] in one["reason"] for one in found["refused"])
    assert run(["check", str(portable), "--backend", "tensorrt-rtx"]) == 1
    assert "TensorRT gets 'net.int8.onnx'" in capsys.readouterr().out


@pytest.mark.usefixtures("rtx")
def test_a_node_in_a_body_is_named_though_it_has_no_name(tmp_path: Path, capsys) -> None:
    path = write(
        tmp_path / "loop.onnx",
        """<ir_version: 10, opset_import: ["" : 21]>
            g (float[1, 4, 4] x, int64 k, bool c) => (float[1, 4, 4] y) {
                y = Loop(k, c, x) <body = b (int64 i, bool d, float[1, 4, 4] s)
                    => (bool e, float[1, 4, 4] t) { e = Identity(d) u = Det(s) t = Mul(s, u) }>
            }""",
    )
    code, found = checked(capsys, str(path))
    assert code == 1
    assert [(one["node"], one["operator"]) for one in found["refused"]] == [("Det_u", "Det")]
    assert found["unseen_behind"] == ""


@pytest.mark.usefixtures("rtx")
def test_a_node_that_gives_what_a_body_gives_is_named(tmp_path: Path, capsys) -> None:
    path = write(
        tmp_path / "loop.onnx",
        """<ir_version: 10, opset_import: ["" : 21]>
            g (float[1, 4] x, int64 k) => (float[1, 4] y) {
                y = Loop(k, , x) <body = b (int64 i, bool d, float[1, 4] s)
                    => (bool e, float[1, 4] t) { e = Identity(d) t = Relu(s) }>
            }""",
    )
    code, found = checked(capsys, str(path))
    assert code == 1
    (refused,) = found["refused"]
    assert (refused["node"], refused["operator"]) == ("Identity_e", "Identity")
    assert "'d', the condition of the Loop 'Loop_y', which has none" in refused["reason"]
    assert "a constant true" in refused["advice"]
    model = onnx.load(path)
    model.graph.node[0].input[1] = "always"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    onnx.save(model, path)
    assert checked(capsys, str(path))[0] == 0


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", ["", "first"])
def test_an_absent_input_is_named_with_what_trtbuild_does_about_it(
    name: str, tmp_path: Path, capsys
) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) { u = Conv(x, w) y = Relu(u) }"""
    path = write(tmp_path / "absent.onnx", text, w=np.ones((4, 4, 1, 1), np.float32))
    model = onnx.load(path)
    model.graph.node[0].input.append("")
    model.graph.node[0].name = name
    onnx.save(model, path)
    code, found = checked(capsys, str(path))
    assert code == 1
    (refused,) = found["refused"]
    assert (refused["node"], refused["operator"]) == (name or "Conv_u", "Conv")
    assert "Invalid Node" in refused["reason"]
    assert "its last input is absent" in refused["reason"]
    assert "`trtbuild engine` drops" in refused["advice"]
    assert run(["optimize", str(path), str(tmp_path / "whole.onnx")]) == 0
    capsys.readouterr()
    assert checked(capsys, str(tmp_path / "whole.onnx"))[0] == 0


@pytest.mark.usefixtures("rtx")
def test_an_absent_input_does_not_hide_another_refusal(tmp_path: Path, capsys) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 4, 4] x) => (float[1] y) { u = MatMul(x, x) v = Trilu(u) y = Det(v) }"""
    path = write(tmp_path / "both.onnx", text)
    model = onnx.load(path)
    model.graph.node[1].input.append("")
    onnx.save(model, path)
    found = checked(capsys, str(path))[1]
    assert [one["operator"] for one in found["refused"]] == ["Trilu", "Det"]


@pytest.mark.usefixtures("rtx")
def test_a_form_is_refused_only_where_its_source_is_taken(tmp_path: Path, caplog) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            q = QuantizeLinear(x, scale, zero)
            y = DequantizeLinear(q, scale, zero)
        }"""
    numbers = {"scale": np.float32(0.1), "zero": np.int8(3)}
    shifted = write(tmp_path / "shifted.onnx", text, **numbers)
    wrong = pytest.raises(ModelError, match=r"but not its INT8 form: .*[Zz]ero point")
    with form_check(good(tmp_path)) as check, wrong:
        check(shifted)
    with form_check(bad(tmp_path)) as check, caplog.at_level(logging.WARNING, "trtbuild"):
        check(shifted)
    assert "and therefore not its INT8 form" in caplog.text


def test_without_a_parser_the_exit_code_says_so(tmp_path: Path, capsys, monkeypatch) -> None:
    for name in PRODUCTS:
        monkeypatch.setitem(sys.modules, name, None)
    assert run(["check", str(good(tmp_path))]) == 3
    assert "pip install 'trtbuild[rtx]'" in capsys.readouterr().err
    with form_check(good(tmp_path)) as check:
        check(good(tmp_path))  # without a parser, no answer


@pytest.mark.usefixtures("rtx")
def test_a_parser_whose_library_does_not_load_is_none(tmp_path: Path, monkeypatch) -> None:
    for name in PRODUCTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    broken = tmp_path / "places" / "tensorrt_rtx"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libtensorrt_rtx.so.1: no such file')")
    monkeypatch.syspath_prepend(broken.parent)
    with form_check(good(tmp_path)) as check:
        check(good(tmp_path))


@pytest.mark.usefixtures("rtx")
def test_a_form_is_shown_without_loading_the_library_here(tmp_path: Path) -> None:
    program = """
import subprocess
import sys
from pathlib import Path
from trtbuild.jobs.check import form_check
with form_check(Path(sys.argv[1])) as check:
    check(Path(sys.argv[1]))
print([name for name in sys.modules if name.startswith("tensorrt_rtx")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, good(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("rtx")
def test_what_cannot_be_checked_is_an_error(tmp_path: Path, capsys) -> None:
    assert run(["check", str(tmp_path / "absent.onnx"), "--backend", "tensorrt-rtx"]) == 2
    assert "does not exist" in capsys.readouterr().err
    for content in (
        b"",
        b"\0garbage",
        b"a text, and no network",
    ):  # the parser accepts the first two
        (tmp_path / "no.onnx").write_bytes(content)
        assert run(["check", str(tmp_path / "no.onnx"), "--backend", "tensorrt-rtx"]) == 2
        assert "is not an ONNX file" in capsys.readouterr().err
    assert run(["check", str(good(tmp_path)), "--backend", "onnxruntime"]) == 2
    assert "has no NVIDIA parser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("operator", "reason", "advice"),
    [
        ("DequantizeLinear", "input has type Int32 but must have type Int8", "such biases float"),
        ("DequantizeLinear", "Found unsupported input type of UINT8", "zero points must be 0"),
        ("QuantizeLinear", "Scale coefficients must all be positive", "a scale above zero"),
        ("QLinearConv", "this parser has no importer for the operator", "engine --quantized"),
        ("Strange", "Plugin not found, are the plugin name correct?", "--plugin LIB"),
        ("Cast", "Unsupported data type for the Cast operator", "FP32, FP16, INT32 or INT64"),
        ("MatMul", "IMatrixMultiplyLayer must have same input types. `A` is Float", "with a Cast"),
        ("Strange", "something new", "with other operators"),
    ],
)
def test_what_can_be_done(operator: str, reason: str, advice: str) -> None:
    assert advice in advice_on(operator, reason)


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("false", "this parser has no importer for the operator"),
        ('(antialias == 0) && "Antialiasing is not supported."', "Antialiasing is not supported"),
        ('Assertion failed: mode == "none": ScatterND with reduction is not supported.',
         "ScatterND with reduction is not supported"),
        ("Assertion failed: status.is_success(): Found unsupported input type of UINT8",
         "Found unsupported input type of UINT8"),
        (SHAPE_ERROR, "axis is no constant"),
    ],
)  # fmt: skip
def test_the_parsers_words_are_made_plain(said: str, plain: str) -> None:
    assert plain_reason(said) == plain


@pytest.mark.usefixtures("rtx")
def test_absent_inputs_that_the_parser_refuses_are_dropped_when_a_file_is_read(
    tmp_path: Path, capsys
) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 4, 8, 8] x) => (
            float[1, 4, 6, 6] c, float[16, 16] f, float[1, 1, 8, 8] s, float[1, 2, 8, 8] p,
            float[1, 2, 8, 8] q, float[4, 8, 8] z, float[1, 4, 8, 8] t, float[1, 4, 8, 8] d,
            float[1, 4, 8, 8] b
        ) {
            c = Conv (x, w)
            r = Reshape (x, shape)
            f = Gemm (r, r)
            s = Slice (x, one, two, one)
            p, q = Split <axis = 1, num_outputs = 2> (x)
            z = Squeeze (x)
            t = Trilu (x)
            d = Dropout (x)
            a = QuantizeLinear <output_dtype = 3> (x, scale)
            b = DequantizeLinear (a, scale)
        }"""
    path = write(
        tmp_path / "net.onnx", text, w=np.ones((4, 4, 3, 3), np.float32), shape=np.array([16, 16]),
        one=np.array([1]), two=np.array([2]), scale=np.array(0.1, np.float32),
    )  # fmt: skip
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type != "Reshape":
            node.input.extend([""] * (2 if node.op_type == "Dropout" else 1))
    onnx.save(model, path)
    assert checked(capsys, str(path))[1]["refused"]  # the parser stops at the first
    written = tmp_path / "read.onnx"
    write_model(read_model(path), written)
    assert checked(capsys, str(written))[1]["refused"] == []
