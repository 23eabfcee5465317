"""Bad input ends in one sentence, exit code 2, no traceback, no file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.command import FAST, trtbuild
from tests.models import NETWORKS
from tests.networks.network import from_text

CNN = NETWORKS["opset_13"]


class Bench:
    """A model and data on disk, and the main job on them."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        self.model, self.data = CNN.save(folder, count=24)
        self.out = folder / "out"

    def give_model(self, content):
        """Write bytes or a network as the model."""
        self.model.write_bytes(
            content if isinstance(content, bytes) else content.SerializeToString()
        )

    def give_data(self, **arrays):
        np.savez(self.data, **arrays)

    def run(self, *options, data=True):
        named = ("--data", self.data) if data else ()
        return trtbuild(
            *(self.capsys, "engine", self.model, "--int8", *named, "-o", self.out),
            *("--no-latency", "--quiet", *FAST, *options),
        )

    def refuses(self, *options, data=True):
        """Return the error message; nothing may be left in the output folder."""
        sentence = self.run(*options, data=data).sentence
        assert not self.out.is_dir() or not list(self.out.iterdir())
        return sentence


@pytest.fixture
def bench(tmp_path, capsys):
    return Bench(tmp_path, capsys)


def images(count=24):
    return CNN.arrays(count)["x"]


# The model


def test_missing_model(bench):
    bench.model.unlink()
    assert f"'{bench.model}' does not exist" in bench.refuses()


def test_model_is_a_folder(bench):
    bench.model.unlink()
    bench.model.mkdir()
    assert "is a folder" in bench.refuses()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"this is no network at all", b"\x08\x08"], ids=repr
)
def test_not_onnx(bench, content):
    bench.give_model(content)
    assert "is not an ONNX file" in bench.refuses()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated_model(bench, share):
    whole = CNN.proto.SerializeToString()
    bench.give_model(whole[: int(len(whole) * share)])
    assert str(bench.model) in bench.refuses()


@pytest.mark.parametrize("seed", range(8))
def test_corrupted_model_never_ends_in_a_traceback(bench, seed):
    random = np.random.default_rng(seed)
    content = bytearray(CNN.proto.SerializeToString())
    for place in random.integers(0, 300, 12):  # the graph; weights follow it
        content[place] = random.integers(0, 256)
    bench.give_model(bytes(content))
    done = bench.run()
    assert done.code in (0, 2), done.err
    if done.code == 2:
        assert done.sentence


@pytest.mark.parametrize("opset", [0, 6, 99])
def test_unsupported_opset(bench, opset):
    proto = onnx.ModelProto.FromString(CNN.proto.SerializeToString())
    proto.opset_import[0].version = opset
    bench.give_model(proto)
    assert "opsets 7 to" in bench.refuses()


def test_missing_and_truncated_external_data(bench):
    proto = onnx.ModelProto.FromString(CNN.proto.SerializeToString())
    onnx.save(proto, bench.model, save_as_external_data=True, location="w.bin", size_threshold=0)
    weights = bench.folder / "w.bin"
    content = weights.read_bytes()
    assert bench.run().code == 0
    for file in bench.out.iterdir():
        file.unlink()
    weights.write_bytes(content[:100])
    assert "'w0'" in bench.refuses() or "is cut off" in bench.refuses()
    weights.unlink()
    assert "w.bin', which does not exist" in bench.refuses()


def test_invalid_graph(bench):
    bench.give_model(from_text("g (float[N] x) => (float[N] y) { y = Relu (nothing) }"))
    assert "is not a valid ONNX graph" in bench.refuses()


def test_a_network_without_nodes(bench):
    bench.give_model(from_text("g (float[N] x) => (float[N] x) { }"))
    assert "holds no node: its outputs are inputs or constants" in bench.refuses()


def test_a_network_without_outputs(bench):
    model = onnx.load(bench.model)
    del model.graph.output[:]
    bench.give_model(model)
    assert "has no output" in bench.refuses()


def test_an_empty_folder_of_data(bench):
    (bench.folder / "nothing").mkdir()
    said = bench.refuses("--data", bench.folder / "nothing", data=False)
    assert "is empty" in said


def test_unknown_operator_is_named(bench):
    text = """<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
    g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { a = com.example.Wave (x) y = Conv (a, w) }"""
    proto = onnx.parser.parse_model(text)
    weight = np.ones((4, 3, 3, 3), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    bench.give_model(proto)
    assert "com.example:Wave" in bench.refuses()


@pytest.mark.parametrize("kind", ["string[N]", "seq(float[N])"])
def test_inputs_that_are_no_numbers(bench, kind):
    bench.give_model(from_text(f"g ({kind} x) => ({kind} y) {{ y = Identity (x) }}"))
    assert "the input 'x'" in bench.refuses()


def test_nothing_to_quantize(bench):
    bench.give_model(from_text("g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Relu (x) }"))
    assert "it has no Conv, ConvTranspose, Gemm, MatMul" in bench.refuses()
    body = """g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {
    wide = Cast <to = 11> (x) c = Conv (wide, w) y = Cast <to = 1> (c) }"""
    bench.give_model(from_text(body, {"w": (4, 3, 3, 3)}, dtype=np.float64))
    assert "'Conv_c' stays float: its weight is DOUBLE" in bench.refuses()


def test_quantized_already(bench):
    assert bench.run().code == 0
    quantized = (bench.out / "net.int8.onnx").read_bytes()
    for file in bench.out.iterdir():
        file.unlink()
    bench.give_model(quantized)
    done = bench.run()
    assert done.code == 0
    assert "is quantized already: its scales are kept" in done.err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite_is_named(bench, value):
    proto = from_text(
        "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { y = Conv (x, kernel) }",
        {"kernel": (4, 3, 3, 3)},
    )
    array = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[1, 2, 0, 0] = value
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "kernel"))
    bench.give_model(proto)
    assert "'kernel'" in bench.refuses()


# The data


def test_no_data(bench):
    assert "--random-data" in bench.refuses(data=False)


def test_random_data_is_recorded(bench):
    done = bench.run("--random-data", "--json", data=False)
    assert done.code == 0
    assert done.json["data"]["random"] is True


def test_data_and_random_data_exclude_each_other(bench):
    assert "exclude" in bench.refuses("--random-data")


def test_missing_data(bench):
    bench.data.unlink()
    assert f"'{bench.data}' does not exist" in bench.refuses()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY"], ids=repr)
def test_damaged_data(bench, content):
    bench.data.write_bytes(content)
    assert str(bench.data) in bench.refuses()


def test_pickled_data_is_never_loaded(bench):
    bench.give_data(x=np.array([None, "a"], dtype=object))
    assert "must hold numbers" in bench.refuses()


def test_empty_data(bench):
    bench.give_data(x=images()[:0])
    assert "no sample" in bench.refuses()


def test_one_sample_cannot_do_both(bench):
    bench.give_data(x=images()[:1])
    assert "--verify-data" in bench.refuses()


def test_fewer_images_than_asked_for(bench):
    sentence = bench.refuses("--num-images", 40)
    assert "40" in sentence
    assert "23" in sentence


def test_wrong_input_name(bench):
    bench.give_data(a=images(), b=images())
    sentence = bench.refuses()
    assert "input 'x'" in sentence
    assert "'a'" in sentence


@pytest.mark.parametrize("shape", [(24, 8, 8, 3), (24, 3, 8), (24, 3, 9, 8), (24, 1, 3, 8, 9)])
def test_wrong_shape(bench, shape):
    bench.give_data(x=np.zeros(shape, np.float32))
    assert "[3, 8, 8]" in bench.refuses()


def test_raw_pixels_need_a_preprocessing(bench):
    bench.give_data(x=np.zeros((24, 3, 8, 8), np.uint8))
    assert "--preprocess" in bench.refuses()


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_data_that_are_not_finite(bench, value, word):
    array = images()
    array[7, 0, 1, 2] = value
    bench.give_data(x=array)
    sentence = bench.refuses()
    assert word in sentence
    assert "[7]" in sentence


def test_a_mask_of_minus_infinity_may_be_given_as_an_input(bench):
    proto = from_text(
        """g (float[N, 4, 8] x, float[N, 4, 4] mask) => (float[N, 4, 8] y) {
          q = MatMul (x, w)  k = Transpose <perm=[0, 2, 1]> (x)  s = MatMul (q, k)
          hidden = Add (s, mask)  p = Softmax <axis=-1> (hidden)  o = MatMul (p, x)  y = MatMul (o, v) }""",
        {"w": (8, 8), "v": (8, 8)},
    )
    bench.give_model(proto)
    random = np.random.default_rng(1)
    hidden = (random.random((24, 4, 4)) < 0.3) & (np.eye(4) == 0)
    mask = np.where(hidden, -np.inf, 0).astype(np.float32)
    bench.give_data(x=random.standard_normal((24, 4, 8)).astype(np.float32), mask=mask)
    done = bench.run("--min-sqnr", "15")
    assert done.code == 0, done.err
    mask[7, 0, 1] = np.inf
    bench.give_data(x=random.standard_normal((24, 4, 8)).astype(np.float32), mask=mask)
    assert "infinity in the data for input 'mask'" in bench.run().sentence


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ("b = Sqrt (a)", "NaN"),
        ("b1 = Exp (a) b2 = Exp (b1) b = Exp (b2)", "infinity"),
    ],
)
def test_activation_that_is_not_finite_is_named_with_its_sample(bench, nodes, word):
    proto = from_text(
        f"g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {{ a = Conv (x, w) {nodes} y = Conv (b, v) }}",
        {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3)},
    )
    bench.give_model(proto)
    bench.give_data(x=30 * images())
    sentence = bench.refuses()
    assert f"'b' holds {word}" in sentence
    assert "net.npz[" in sentence


def test_tensor_that_is_always_zero(bench):
    proto = from_text(
        """g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {
          a = Conv (x, w)  n = Abs (a)  m = Neg (n)  dead = Relu (m)  y = Conv (dead, v) }""",
        {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3)},
    )
    bench.give_model(proto)
    sentence = bench.refuses("--strict")
    assert "'dead' was zero" in sentence
    # and the remedy named in the message works
    assert "--float 'Conv_y'" in sentence
    assert bench.run("--strict", "--float", "Conv_y").code == 0
    done = bench.run()
    assert done.code == 0
    assert "the tensor 'dead' was zero in every sample; 'Conv_y' stays in float for it" in done.err
    ranges = ("--calibration", bench.out / "net.calibration.json")
    for given, in_int8 in (((), True), (ranges, False)):
        listed = trtbuild(bench.capsys, "quantize", bench.model, "--list", "--json", *given).json
        assert [one["int8"] for one in listed["layers"] if one["node"] == "Conv_y"] == [in_int8]


def test_data_that_are_zero_throughout(bench):
    bench.give_data(x=0 * images())
    done = bench.run()
    assert done.code == 2
    assert (
        "'x' was zero in every sample" in done.err
    )  # after the warning that the input hardly varies
    assert not list(bench.out.iterdir())


def test_data_too_small_for_a_scale(bench):
    """A subnormal FP32 scale is zero on a GPU, which would divide by it."""
    bench.give_data(x=images() * np.float32(1e-40))
    done = bench.run()
    assert "'x' reached" in done.err
    assert "for which FP32 has no normal scale" in done.err


def test_a_network_that_draws_random_numbers_is_told(bench):
    model = onnx.load(bench.model)
    (output,) = model.graph.output
    last = next(node for node in model.graph.node if output.name in node.output)
    last.output[0] = "sure"
    model.graph.node.extend(
        [
            onnx.helper.make_node("RandomNormalLike", ["sure"], ["noise"], name="dice"),
            onnx.helper.make_node("Add", ["sure", "noise"], [output.name], name="sum"),
        ]
    )
    bench.give_model(model)
    assert "draws random numbers ('dice')" in bench.run().err


def test_a_token_beyond_the_table_is_named_with_its_sample(bench, capsys):
    body = "g (int64[N, 6] ids) => (float[N, 6, 4] y) { e = Gather (table, ids) y = MatMul (e, w) }"
    bench.give_model(from_text(body, {"table": (10, 8), "w": (8, 4)}))
    right, ids = np.random.default_rng(0).integers(1, 10, (2, 24, 6))
    np.savez(bench.folder / "right.npz", ids=right)
    ids[13, :2] = 1, 12
    bench.give_data(ids=ids)
    verified = trtbuild(capsys, "verify", bench.model, bench.model, "--data", bench.data)
    others = ("--data", bench.folder / "right.npz", "--verify-data", bench.data)
    for said in (bench.refuses(), bench.refuses(*others, data=False), verified.sentence):
        assert f"on '{bench.data.name}[13]': indices element out of data bounds" in said
        assert "'ids' from 1 to 12; give the ids of this network's own vocabulary." in said


def test_static_batch_needs_a_batch_to_verify(bench):
    bench.give_model(NETWORKS["dims_static_batch_4"].proto)
    bench.give_data(x=images()[:4])
    assert "verification 4 more" in bench.refuses()


# Options


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--float", "no*such"), "no*such"),
        (("--backend", "abacus"), "abacus"),
        (("--calibrator", "percentile", "--percentile", "0"), "percentile"),
        (("--calibrator", "percentile", "--percentile", "101"), "percentile"),
        (("--percentile", "99"), "percentile"),
        (("--calibration", "absent.json"), "absent.json"),
        (("--preprocess", "absent.toml"), "absent.toml"),
        (("--labels", "absent.csv"), "absent.csv"),
        (("--verify-data", "absent.npz"), "absent.npz"),
        (("--mean", "a,b"), "--mean"),
        (("--resize", "large"), "--resize"),
        (("--std", "0"), "std"),
        (("--max-top1-drop", "1"), "labels"),
        (("--max-top1-drop", "101"), "100"),
        (("--min-cosine", "7"), "--min-cosine is -1 to 1, not 7"),
        (("--min-top1-agreement", "101"), "0 to 100"),
        (("--max-error", "-1"), "at least 0"),
        (("--min-sqnr", "inf"), "min_sqnr is inf"),
        (("--min-sqnr", "nan"), "min_sqnr is nan"),
        (("--max-metric-drop", "-inf"), "max_metric_drop is -inf"),
        (("--weights", "x.pt"), "--weights is for a PyTorch module"),
        (("--no-fold",), "--fold is for a PyTorch module"),
        (("--array", "nope"), "no array 'nope', which --array names; it holds 'x'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_make_no_sense(bench, options, word):
    assert word in bench.refuses(*options)


def test_unknown_option_and_choice_end_in_2_without_a_traceback(bench):
    for wrong in (("--no-such-option",), ("--calibrator", "abacus"), ("--num-images", "0")):
        done = bench.run(*wrong)
        assert done.code == 2
        assert "Traceback" not in done.err


def test_precision_must_be_named(bench):
    done = trtbuild(bench.capsys, "engine", bench.model, "--data", bench.data, "-o", bench.out)
    assert "--int8" in done.sentence


# The output


def test_output_folder_that_is_a_file(bench):
    bench.out.write_text("in the way")
    sentence = bench.run().sentence
    assert str(bench.out) in sentence
    assert bench.out.read_text() == "in the way"


def test_output_file_whose_name_is_a_folder(bench):
    (bench.out / "net.int8.onnx").mkdir(parents=True)
    assert "cannot write" in bench.run().sentence
    assert [file.name for file in bench.out.iterdir()] == ["net.int8.onnx"]


def test_a_build_that_fails_leaves_the_earlier_one_as_it_was(bench):
    assert bench.run().code == 0
    before = {file.name: file.read_bytes() for file in bench.out.iterdir()}
    array = images()
    array[3] = np.nan
    bench.give_data(x=array)
    assert bench.run().code == 2
    assert {file.name: file.read_bytes() for file in bench.out.iterdir()} == before


def test_failed_gate_ends_in_1_and_keeps_the_record(bench):
    done = bench.run("--min-sqnr", "90", "--json")
    assert done.code == 1
    assert done.json["passed"] is False
    assert (bench.out / "net.manifest.json").is_file()


@pytest.mark.parametrize("empty", ["", " , "])
def test_a_list_of_nothing_is_not_the_default(bench, empty):
    said = bench.refuses("--compute-capability", empty)
    assert "--compute-capability is an empty list" in said
