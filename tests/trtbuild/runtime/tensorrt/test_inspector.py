"""Both forms of the inspector's JSON, matching with ONNX nodes, and the command that prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.cli.main import run
from trtbuild.errors import InputError
from trtbuild.jobs.inspect import match_nodes
from trtbuild.plan import Decision
from trtbuild.runtime.tensorrt.inspector import EngineLayers, read_layers

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World

# As TensorRT 8.6 to 10 write it: names, spellings and separators are those of published engine dumps.
FORM_10 = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1",
            "LayerType": "Reformat",
            "Inputs": [
                {
                    "Name": "x",
                    "Dimensions": [1, 3, 8, 8],
                    "Format/Datatype": "Row major linear FP32",
                }
            ],
            "Outputs": [
                {
                    "Name": "r",
                    "Format/Datatype": "Four wide channel vectorized row major Int8 format",
                }
            ],
            "TacticValue": "0x00000000000003ea",
            "Metadata": "",
        },
        {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {
                    "Name": "r",
                    "Format/Datatype": "Four wide channel vectorized row major Int8 format",
                }
            ],
            "Outputs": [
                {"Name": "a", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
            ],
            "Weights": {"Type": "Int8", "Count": 432},
            "TacticName": "sm80_xmma_fprop_int8",
            "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
        },
        {
            "Name": "__myl_MulAdd_myl0_1",
            "LayerType": "kgen",
            "Inputs": [{"Name": "a", "Dimensions": [1, 16], "Format/Datatype": "Half"}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Float"}],
            "TacticName": "__myl_MulAdd_0xabc",
            "Metadata": "[ONNX Layer: /block.0/[a]/Mul]\x1f[ONNX Layer: add]",
        },
    ],
    "Bindings": ["x", "y"],
}


def _as_11(document: dict[str, Any]) -> dict[str, Any]:
    """The same engine in the form of 11: format and type apart, inputs and outputs as objects."""
    kinds = {"FP32": "Float", "Int8": "Int8", "FP16": "Half", "Half": "Half", "Float": "Float"}

    def tensor(entry: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in entry.items() if key != "Format/Datatype"}
        joint = entry["Format/Datatype"]
        kind = next(kind for word, kind in kinds.items() if word in joint)
        return rest | {"Format": f"{joint} (kLINEAR)", "Datatype": kind}

    layers = [
        layer | {side: [tensor(t) for t in layer[side]] for side in ("Inputs", "Outputs")}
        for layer in document["Layers"]
    ]
    io = [{"Name": name, "IOMode": "Input", "DataType": "Float"} for name in document["Bindings"]]
    return {"Layers": layers, "I/O Tensors": io}


@pytest.mark.parametrize("document", [FORM_10, _as_11(FORM_10)], ids=["10", "11"])
def test_both_forms_say_the_same(document: dict[str, Any]) -> None:
    layers = read_layers(json.dumps(document))
    assert [layer.precision for layer in layers.layers] == ["FP32", "INT8", "FP16"]
    assert [layer.reformat for layer in layers.layers] == [True, False, False]
    assert layers.layers[1].nodes == ("conv1", "relu1")
    assert layers.layers[2].nodes == ("/block.0/[a]/Mul", "add")
    assert layers.layers[1].tactic == "sm80_xmma_fprop_int8"
    assert layers.layers[0].tactic == "0x00000000000003ea"
    assert [t.precision for t in layers.layers[1].outputs] == ["FP16"]
    assert layers.precision_counts() == {"FP16": 1, "INT8": 1}
    assert layers.num_reformats == 1
    assert layers.detailed
    assert EngineLayers.from_json(layers.to_json()).precision_counts() == {"FP16": 1, "INT8": 1}


def test_names_alone() -> None:
    text = json.dumps({"Layers": ["Reformatting CopyNode for Output Tensor 0 to c", "a + b", "c"]})
    layers = read_layers(text)
    assert not layers.detailed
    assert layers.num_reformats == 1
    assert layers.layer_of("b") is layers.layers[1]
    assert layers.precision_counts() == {}


@pytest.mark.parametrize(
    ("word", "precision"),
    [("BFloat16", "BF16"), ("UInt8", "UINT8"), ("Thirty-two wide Int8 format", "INT8"), ("FP8", "FP8"),
     ("Bool", "BOOL"), ("Unknown format", "")],
)  # fmt: skip
def test_words_that_hold_other_words(word: str, precision: str) -> None:
    layer = {"Name": "l", "LayerType": "x", "Inputs": [{"Name": "i", "Format/Datatype": word}]}
    assert read_layers(json.dumps({"Layers": [layer]})).layers[0].precision == precision


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"Layers": 3'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the layer information") as raised:
        read_layers(text)
    assert "indices" not in str(raised.value)  # of Python, and of no use to users


def test_nodes_are_matched_with_reasons() -> None:
    asked = [
        Decision("conv1", "Conv", int8=True, reason="data and weight through Q/DQ"),
        Decision("relu1", "Relu", int8=False, reason="follows the precision around it"),
        Decision("add", "Add", int8=True, reason="residual"),
        Decision("gone", "Identity", int8=False, reason="moves values"),
    ]
    rows = {row.node: row for row in match_nodes(read_layers(json.dumps(FORM_10)), asked)}
    assert (rows["conv1"].ran, rows["conv1"].as_asked) == ("INT8", True)
    assert rows["relu1"].why == "part of an INT8 layer"
    assert (rows["add"].ran, rows["add"].as_asked) == ("FP16", False)
    assert "TensorRT chose a float kernel" in rows["add"].why
    assert rows["gone"].why == "folded into another layer, or removed"


def test_a_dump_of_trtexec_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(FORM_10))
    assert run(["inspect", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["precisions"] == {"FP16": 1, "INT8": 1}
    assert shown["reformats"] == 1
    assert run(["inspect", str(path)]) == 0
    assert "3 layers: 1 in FP16, 1 in INT8" in capsys.readouterr().out


def inspects(world: World, with_manifest: bool, loses: bool = False) -> dict[str, Any]:
    """Build by the command line, then inspect; without a manifest, the engine itself is opened."""
    from tests.trtbuild.backends.tensorrt.test_one_command import engine

    if loses:
        world.loses.add("int8")
        built = TensorRTBackend().build(networks.request(networks.float_artifact()))
        return {"code": run(["inspect", str(built.path)])}
    engine(world)
    if not with_manifest:
        Path("out/net.manifest.json").unlink()
    world.calls.clear()
    code = run(["inspect", "out/net.plan", "--json"])
    return {"code": code, "opened": any(call[0] == "create.Runtime" for call in world.calls)}


def test_inspect_needs_no_gpu_beside_its_manifest(tensorrt: Server) -> None:
    assert tensorrt.value(inspects, with_manifest=True) == {"code": 0, "opened": False}


def test_inspect_opens_a_plan_without_a_manifest(tensorrt: Server) -> None:
    assert tensorrt.value(inspects, with_manifest=False) == {"code": 0, "opened": True}


def examines(world: World, broken: str = "") -> Any:
    import ctypes

    from trtbuild.jobs.doctor import abilities, examine

    if broken == "no gpu":
        ctypes.CDLL("libcuda.so.1").standin_set_devices(0)
    elif broken == "versions":
        library = ctypes.CDLL(f"libnvinfer.so.{world.major}")
        library.standin_set_library_version(world.number + 1)
    findings = examine()
    return [
        {f.part: (str(f.state), f.found, f.remedy) for f in findings},
        {a.what: a.works for a in abilities(findings)},
    ]


def test_doctor_with_tensorrt_and_a_gpu(tensorrt: Server) -> None:
    parts, can = tensorrt.value(examines)
    style = {10: "10.16.1.11: implicit and explicit INT8", 11: "11.4.0.106: explicit INT8"}
    assert parts["TensorRT"] == ["ok", style[tensorrt.major], ""]
    assert parts["TensorRT library"][0] == "ok"
    assert parts["GPU 0"][1] == "Stand-in GPU 0, compute capability 8.9, 8 GiB"
    assert can["building TensorRT engines"]
    assert can["running TensorRT engines"]


def test_doctor_finds_what_is_broken(tensorrt: Server) -> None:
    parts, can = tensorrt.value(examines, broken="no gpu")
    assert parts["CUDA driver"][:2] == ["broken", "the CUDA driver sees no GPU"]
    assert not can["building TensorRT engines"]
    parts, can = tensorrt.value(examines, broken="versions")
    assert parts["TensorRT library"][0] == "broken"
    assert "pip install --force-reinstall tensorrt-cu13==" in parts["TensorRT library"][2]
    assert not can["building TensorRT engines"]
