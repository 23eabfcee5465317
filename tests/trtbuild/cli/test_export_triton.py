"""``trtbuild export-triton``: the configuration is checked against Triton's own schema and rules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.command import trtbuild
from tests.manifests import MODEL, manifest
from trtbuild.files import file_digest
from trtbuild.json_codec import dumps


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's generated ``model_config_pb2``, without its package, which would import grpc."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs tritonclient, which has Triton's model_config.proto")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _network(text: str, path: str = "net.onnx") -> Path:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    onnx.save(proto, path)
    return Path(path)


def _plan(
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    profiles: list[dict[str, list[list[int]]]] | None = None,
    name: str = "net.plan",
    word: str = "SHIP",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
    values: dict[str, Any] | None = None,
) -> Path:
    """A fake plan, and the manifest of its build."""
    plan = Path(name)
    plan.write_bytes(b"a plan")
    kinds = ("min", "opt", "max")
    ranges = [
        {one: dict(zip(kinds, sizes)) for one, sizes in profile.items()}
        for profile in profiles or []
    ]

    def specs(tensors: dict[str, list[Any]]) -> list[dict[str, Any]]:
        return [{"name": one, "dtype": dtype, "dims": dims} for one, dims in tensors.items()]

    record = manifest(
        {
            "file": name,
            "details": {
                "machine": {"tensorrt": "10.16.1.11", "gpu": "NVIDIA L4"},
                "profiles": ranges,
                "profile_values": [values] if values else [],
            },
        },
        model={**MODEL, "inputs": specs(inputs), "outputs": specs(outputs)},
        recipe={"data": {"batch_axes": {}}, "tensorrt": options or {}},
        ruling={"word": word, "why": "top-1 lost: 3 points"},
        files={name: {"what": "", "digest": file_digest(plan), "bytes": 6}},
    )
    Path("net.manifest.json").write_text(dumps(record))
    return plan


def _read(schema: Any, name: str = "net") -> Any:
    from google.protobuf import text_format

    text = Path(f"repository/{name}/config.pbtxt").read_text()
    return text_format.Parse(text, schema.ModelConfig())


def _export(capsys: Any, *arguments: object) -> Any:
    done = trtbuild(capsys, "export-triton", *arguments, "-o", "repository", "--json")
    assert done.code == 0, done.err
    return done.json


def test_a_plan_with_an_open_batch(schema: Any, capsys: pytest.CaptureFixture[str]) -> None:
    open_ = {"ids": ["batch", "length"], "mask": ["batch", "length"]}
    profile = {name: [[1, 16], [8, 64], [32, 128]] for name in open_}
    plan = _plan(open_, {"scores": ["batch", 3], "one": ["batch"]}, [profile])
    said = _export(capsys, plan)
    config = _read(schema)
    assert (config.name, config.platform, config.backend) == ("net", "tensorrt_plan", "tensorrt")
    assert config.max_batch_size == 32
    assert [(one.name, list(one.dims)) for one in config.input] == [("ids", [-1]), ("mask", [-1])]
    assert {one.data_type for one in config.input} == {schema.TYPE_FP32}
    scores, one = config.output
    assert list(scores.dims) == [3]
    assert not scores.HasField("reshape")
    # one number per sample: Triton requires an axis, and the engine has none
    assert list(one.dims) == [1]
    assert one.HasField("reshape")
    assert list(one.reshape.shape) == []
    assert config.HasField("dynamic_batching")
    (group,) = config.instance_group
    assert group.kind == schema.ModelInstanceGroup.KIND_GPU
    assert list(group.profile) == []
    assert Path("repository/net/1/model.plan").read_bytes() == b"a plan"
    assert any("10.16.1.11" in note for note in said["notes"])


def test_a_fixed_batch_belongs_to_the_dims(schema: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = _export(capsys, _plan({"x": [4, 3, 8, 8]}, {"y": [4, 10]}))
    config = _read(schema)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [4, 3, 8, 8]
    assert list(config.output[0].dims) == [4, 10]
    assert not config.HasField("dynamic_batching")
    assert any("fixed to 4" in note for note in said["notes"])


def test_each_profile_is_open_to_the_instances(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = [{"x": [[1, 8], [1, 8], [4, 8]]}, {"x": [[5, 8], [16, 8], [64, 8]]}]
    plan = _plan({"x": ["N", 8]}, {"y": ["N", 2]}, profiles, options={"dla": 1})
    _export(capsys, plan, "--instances", 2, "--name", 'a "b"')
    config = _read(schema, 'a "b"')
    (group,) = config.instance_group
    assert (config.name, config.max_batch_size, group.count) == ('a "b"', 64, 2)
    assert list(group.profile) == ["0", "1"]
    assert group.secondary_devices[0].kind == group.SecondaryDevice.KIND_NVDLA
    assert group.secondary_devices[0].device_id == 1


def test_an_input_that_holds_a_shape(schema: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _plan(
        {"x": ["N", 3], "size": [4]}, {"y": ["N", "h"]},
        [{"x": [[1, 3], [1, 3], [8, 3]]}], values={"size": {"min": [1, 8, 8, 8]}},
    )  # fmt: skip
    _export(capsys, plan)
    config = _read(schema)
    assert config.max_batch_size == 0
    assert [one.is_shape_tensor for one in config.input] == [False, True]
    assert list(config.input[0].dims) == [-1, 3]


def test_the_portable_engine(schema: Any, capsys: pytest.CaptureFixture[str]) -> None:
    engine = _network(
        'a (float[N, 3] "x:0", int64[N, L] ids) => (float[N, 3] y, float z, int64[N, L] i) '
        '{ y = Relu("x:0") z = ReduceSum<keepdims=0>(y) i = Identity(ids) }'.replace('"x:0"', "x_0"),
        "net.onnxruntime.onnx",
    )  # fmt: skip
    _export(capsys, engine)
    config = _read(schema)
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 0  # a scalar has no batch
    assert list(config.output[1].dims) == [1]
    assert config.input[1].data_type == schema.TYPE_INT64
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU
    assert Path("repository/net/1/model.onnx").is_file()


def test_eight_samples_are_joined_where_nothing_says_how_many(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _export(capsys, _network("a (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"))
    assert _read(schema).max_batch_size == 8


def test_weights_beside_a_network_go_along(capsys: pytest.CaptureFixture[str]) -> None:
    path = _network("a (float[N, 3] x) => (float[N, 3] y) { y = Add(x, w) }")
    proto = onnx.load(path)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w"))
    onnx.save(proto, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    _export(capsys, path)
    onnx.checker.check_model("repository/net/1/model.onnx")
    assert Path("repository/net/1/net.weights").stat().st_size == 12


def test_a_first_axis_of_another_name_is_no_batch(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = _network("a (float[N, 3] x) => (int64[2, found] y) { y = NonZero(x) }", "one.onnx")
    _export(capsys, engine)
    assert _read(schema, "one").max_batch_size == 0
    engine = _network("a (float[N, 3] x) => (float[M, 3] y) { y = Relu(x) }")
    said = _export(capsys, engine)
    assert "--max-batch-size" in said["notes"][0]
    _export(capsys, engine, "--max-batch-size", 16, "--force")
    assert _read(schema).max_batch_size == 16
    refused = trtbuild(capsys, "export-triton", "one.onnx", "-o", "r", "--max-batch-size", 4)
    assert "the batch of 'y' is fixed to 2" in refused.sentence


def test_the_batch_axis_that_a_network_was_given_counts(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _network("a (float[T, N, 3] x) => (float[T, N, 3] y) { y = Relu(x) }")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"trtbuild.batch_axes": '{"x": 1, "y": 1}'})
    onnx.save(proto, path)
    said = _export(capsys, path)
    assert _read(schema).max_batch_size == 0
    assert "the batch axis of 'x' is 1" in said["notes"][0]


def test_what_triton_cannot_serve_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(engine: object, *more: object) -> str:
        return trtbuild(capsys, "export-triton", engine, "-o", "r", *more).sentence

    assert "Triton has no backend" in refusal(_plan({"x": [1]}, {"y": [1]}, name="net.rtx.plan"))
    assert "--strip-plan" in refusal(_plan({"x": [1]}, {"y": [1]}, options={"strip_plan": True}))
    assert "'y' is a scalar" in refusal(_plan({"x": [1]}, {"y": []}))
    assert "'x' is float64" in refusal(_plan({"x": [1]}, {"y": [1]}, dtype="float64"))
    assert "0 long" in refusal(_plan({"x": [1, 0]}, {"y": [1]}))
    profile = [{"x": [[1], [2], [4]]}]
    large = _plan({"x": ["N"]}, {"y": ["N"]}, profile)
    assert "batches of 4 at most" in refusal(large, "--max-batch-size", 5)
    for name in ("a/b", "a\nb", "n" * 256):
        assert "cannot be the name" in refusal(large, "--name", name)
    Path("net.plan").write_bytes(b"another plan")
    assert "belongs to another file" in refusal("net.plan")
    assert "does not exist" in refusal("gone.plan")
    Path("net.manifest.json").touch()
    assert "is a record, not an engine" in refusal("net.manifest.json")
    Path("empty").mkdir()
    assert "and has none" in refusal("empty")
    for name in ("a", "b"):
        Path("empty", f"{name}.manifest.json").touch()
    assert "and has a.manifest.json, b.manifest.json" in refusal("empty")
    assert not Path("r").exists()


def test_an_engine_that_is_not_to_be_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _plan({"x": [1]}, {"y": [1]}, word="DO NOT SHIP")
    done = trtbuild(capsys, "export-triton", plan, "-o", "repository")
    assert done.code == 1
    assert "top-1 lost: 3 points" in done.err
    assert not Path("repository").exists()
    assert trtbuild(capsys, "export-triton", plan, "-o", "repository", "--force").code == 0


def test_another_model_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    _export(capsys, _plan({"x": [2]}, {"y": [1]}))
    _export(capsys, "net.plan")  # exporting the same again changes nothing
    Path("net.plan").write_bytes(b"newer")
    record = Path("net.manifest.json")
    record.write_text(
        record.read_text().replace(
            file_digest(Path("repository/net/1/model.plan")), file_digest(Path("net.plan"))
        )
    )
    arguments = ("export-triton", "net.plan", "-o", "repository")
    assert "another engine" in trtbuild(capsys, *arguments).sentence
    _export(capsys, "net.plan", "--model-version", 2)
    assert Path("repository/net/1/model.plan").read_bytes() == b"a plan"
    assert Path("repository/net/2/model.plan").read_bytes() == b"newer"
    other = _plan({"x": [3]}, {"y": [1]})
    assert (
        "differs from what this engine"
        in trtbuild(capsys, "export-triton", other, "-o", "repository").sentence
    )
    Path("repository/net/config.pbtxt").write_bytes(b"\xff\xfe")
    assert (
        "differs from what this engine"
        in trtbuild(
            capsys, "export-triton", "net.plan", "-o", "repository", "--model-version", 3
        ).sentence
    )
