"""The main job on trained networks, called as by users: figures, forms and kernels."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.command import trtbuild
from tests.trtbuild.quantization.tensorrt_rules import int8_layers, violations

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
INTEGER_KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger")


def preprocessing(shared, name):
    """The options of a network, from the list of its numbers."""
    given = json.loads((shared / "data" / "models.json").read_text())[name]
    options = ["--layout", given["layout"], "--color", given["color"], "--scale", given["scale"]]
    for key in ("mean", "std"):
        options += [f"--{key}", ",".join(str(number) for number in given[key])]
    height, width = given["input"][1:]
    return given["file"], options, (height, width)


def photographs(shared, folder, count):
    """Some of the photographs as a tar of their own."""
    with (
        tarfile.open(shared / "data" / "imagenet" / "images_200.tar") as every,
        tarfile.open(folder / "images.tar", "w") as some,
    ):
        for member in [m for m in every if m.isfile()][:: 200 // count]:
            some.addfile(member, every.extractfile(member))
    return folder / "images.tar"


def check_forms(out, stem):
    """TensorRT's form breaks no rule and has no layer in float; ONNX Runtime's runs in integer kernels."""
    written = onnx.load(out / f"{stem}.int8.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert violations(written) == []
    layers = [node for node in written.graph.node if node.op_type in WEIGHTED]
    assert len(int8_layers(written)) == len(layers)
    kernels = optimized_operators(out / f"{stem}.onnxruntime.onnx", out)
    assert not set(WEIGHTED) & set(kernels)
    assert sum(kernels.count(kernel) for kernel in INTEGER_KERNELS) == len(layers)


def optimized_operators(model, folder):
    """Operators of the graph that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimized.onnx").graph.node
    (folder / "optimized.onnx").unlink()
    return [node.op_type.removeprefix("Fused") for node in nodes]


def top1_losses(manifest):
    """Points of top-1 lost, by form."""
    found = {}
    for form, comparison in manifest["verification"].items():
        accuracy = comparison["accuracy"]
        found[form] = (
            accuracy["reference_percent"]["value"] - accuracy["candidate_percent"]["value"]
        )
    return found


def run(capsys, shared, name, *options):
    file, settings, _ = preprocessing(shared, name)
    done = trtbuild(
        *(capsys, "engine", shared / "data" / file, "--int8", *settings, "--no-latency", "--json"),
        *options,
    )
    assert done.code == 0, done.err
    return done.json


def test_resnet20_loses_no_more_than_minmax_did(shared, tmp_path, capsys):
    data = shared / "data" / "cifar10"
    exact, jpeg = (np.load(data / f) for f in ("test_exact_300.npz", "test_jpeg_2000.npz"))
    test = {key: np.concatenate([exact[key], jpeg[key]]) for key in ("x", "y")}
    np.savez(tmp_path / "test.npz", **test)
    manifest = run(
        *(capsys, shared, "resnet20", "--data", data / "calib_exact_1024.npz", "--array", "x"),
        *("--num-images", 200, "--verify-data", tmp_path / "test.npz"),
        *("--labels", tmp_path / "test.npz", "--batch-size", 50, "-o", tmp_path / "out"),
    )
    assert {v["num_images"] for v in manifest["verification"].values()} == {2300}
    assert max(top1_losses(manifest).values()) <= 0.3
    check_forms(tmp_path / "out", "resnet20")


@pytest.mark.parametrize("effort", ["fast", pytest.param("normal", marks=pytest.mark.nightly)])
def test_squeezenet(shared, tmp_path, capsys, effort):
    images = shared / "data" / "imagenet" / "images_200.tar"
    manifest = run(
        *(capsys, shared, "squeezenet11", "--data", photographs(shared, tmp_path, 50)),
        *("--crop", 224, "-o", tmp_path / "out", "--effort", effort),
    )
    check_forms(tmp_path / "out", "squeezenet11")
    for comparison in manifest["verification"].values():
        assert comparison["outputs"][0]["sqnr_db"]["value"] >= 20
    labels = tmp_path / "labels.csv"
    rows = (shared / "data" / "imagenet" / "labels_200.csv").read_text().splitlines()
    labels.write_text("\n".join(rows))
    again = run(
        *(
            capsys,
            shared,
            "squeezenet11",
            "--calibration",
            tmp_path / "out/squeezenet11.calibration.json",
        ),
        *("--data", images, "--labels", labels, "--crop", 224, "-o", tmp_path / "again"),
        *("--effort", effort),
    )
    assert {v["num_images"] for v in again["verification"].values()} == {200}
    assert max(top1_losses(again).values()) <= 1.0


def test_mnist(shared, tmp_path, capsys):
    data = shared / "data" / "mnist"
    manifest = run(
        *(capsys, shared, "mnist_cntk", "--data", data / "calib_512.npz", "-o", tmp_path / "out"),
        *("--verify-data", data / "test_1488.npz", "--labels", data / "test_1488.npz"),
    )
    assert max(top1_losses(manifest).values()) <= 0.3
    check_forms(tmp_path / "out", "mnist_cntk")


# the largest takes longer than all others together
@pytest.mark.parametrize(
    ("name", "effort"),
    [
        ("ultraface_rfb320", "normal"),
        ("ppocr_cls", "fast"),
        pytest.param("ppocr_cls", "normal", marks=pytest.mark.nightly),
        pytest.param("yolox_nano", "fast", marks=pytest.mark.nightly),
    ],
)
def test_detectors_and_text(shared, tmp_path, capsys, name, effort):
    _, _, (height, width) = preprocessing(shared, name)
    manifest = run(
        *(capsys, shared, name, "--data", photographs(shared, tmp_path, 20)),
        *("--resize", f"{height}x{width}", "--effort", effort, "-o", tmp_path / "out"),
    )
    written = onnx.load(tmp_path / "out" / f"{name}.int8.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert violations(written) == []
    assert len(int8_layers(written)) >= 45  # a tenth of the work may stay in float
    for layer in manifest["layers"]:
        assert layer["int8"] or layer["reason"]
    worst = min(
        output["sqnr_db"]["value"]
        for comparison in manifest["verification"].values()
        for output in comparison["outputs"]
    )
    # near float, or the report names the layers at fault
    assert worst >= 20 or manifest["layers_at_fault"]["layers"]
    assert name != "ultraface_rfb320" or worst >= 20
