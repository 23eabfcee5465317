"""Groups of Q/DQ: each has a name, a reason, and a pattern that keeps it in float."""

from __future__ import annotations

import itertools
import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibrators import TensorRange
from tests.command import FAST, trtbuild
from tests.models import NETWORKS
from tests.trtbuild.verification.small_network import calibrated, float_network, images, run
from trtbuild.errors import OptionError
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import name_nodes
from trtbuild.plan import GRAPH_OUTPUT, Consumer, GroupKind, PlacementRequest
from trtbuild.quantization import (
    check_floats,
    insert_qdq,
    place,
    place_portable,
    portable_form,
    watched_tensors,
)
from trtbuild.quantization.neighbour_ranges import with_neighbours


def network(text: str, weights: dict[str, tuple[int, ...]]) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    return model


def reads_pairs(model: ir.Model, op_type: str) -> list[str]:
    """Nodes of this operator with an input from a DequantizeLinear."""
    made = {value: node.op_type for node in model.graph for value in node.outputs}
    return [
        node.name or ""
        for node in model.graph
        if node.op_type == op_type
        and any(made.get(value) == "DequantizeLinear" for value in node.inputs if value)
    ]


def test_every_place_of_int8_is_a_group_with_a_kind_and_a_reason() -> None:
    groups = {group.name: group for group in place(float_network()).groups}
    kinds = {
        "Conv_s0": GroupKind.LAYER,
        "Gemm_logits": GroupKind.LAYER,
        "Add_sum": GroupKind.SKIP_BRANCH,
        "Concat_both": GroupKind.CONCAT,
        "MaxPool_small": GroupKind.MOVEMENT,
        "GlobalAveragePool_mean": GroupKind.POOL,
        "Flatten_flat": GroupKind.MOVEMENT,
    }
    assert {name: groups[name].kind for name in kinds} == kinds
    assert all(group.int8 and group.reason for group in groups.values())
    assert groups["Add_sum"].consumers == {Consumer("Add_sum", 1)}


def test_the_groups_are_what_reads_through_pairs() -> None:
    placement = place(float_network())
    of_groups = {c for group in placement.groups for c in group.consumers if group.in_tensorrt_form}
    assert of_groups == {c for readers in placement.consumers.values() for c in readers}
    decided = {d.node: d.int8 for d in placement.decisions}
    assert {name for name, int8 in decided.items() if int8} == {c.node for c in of_groups}


@pytest.mark.parametrize("op_type", ["Add", "MaxPool", "Concat", "GlobalAveragePool", "Flatten"])
@pytest.mark.parametrize("form", ["TensorRT's", "portable"])
def test_a_pattern_takes_the_pairs_of_any_group_away(op_type: str, form: str) -> None:
    def written(*patterns: str) -> ir.Model:
        artifact = insert_qdq(calibrated(), PlacementRequest(tuple(patterns)))
        found = artifact.quantized if form == "TensorRT's" else portable_form(artifact)
        assert found is not None
        return found

    assert reads_pairs(written(), op_type)
    without = written(op_type)
    left = reads_pairs(without, op_type)
    # in ONNX Runtime's form, an integer kernel computes the main branch of the Add
    assert left == (["Add_sum"] if op_type == "Add" and form == "portable" else [])
    run(without, images())


def test_the_skip_branch_of_an_add_in_float_is_read_in_float_in_both_forms() -> None:
    artifact = insert_qdq(calibrated(), PlacementRequest(("Add",)))
    for model in (artifact.quantized, portable_form(artifact)):
        assert model is not None
        add = next(node for node in model.graph if node.name == "Add_sum")
        assert add.inputs[1] is not None
        assert add.inputs[1].name == "r0"
    decision = next(d for d in artifact.decisions if d.node == "Add_sum")
    assert (decision.int8, decision.reason) == (False, "kept in float by --float 'Add'")


@pytest.mark.parametrize("order", ["short, long", "long, short"])
def test_the_longer_path_of_a_residual_is_the_main_one(order: str) -> None:
    """INT8 layers compute both sides; the kernel of the longer path is fused with the Add."""
    text = f"""
        net (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{
            inner = Conv (x, w0)
            long = Conv (inner, w1)
            short = Conv (x, w2)
            y = Add ({order})
        }}"""
    model = network(text, dict.fromkeys(("w0", "w1", "w2"), (4, 4, 1, 1)))
    group = next(g for g in place(model).groups if g.kind is GroupKind.SKIP_BRANCH)
    assert group.consumers == {Consumer(group.name, order.split(", ").index("short"))}


def test_an_output_of_the_runtimes_form_is_a_group() -> None:
    text = """
        net (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            a = Conv (x, w0)
            y = Conv (a, w1)
        }"""
    model = network(text, {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1)})
    group = next(g for g in place(model).groups if g.kind is GroupKind.OUTPUT)
    assert (group.name, group.op_type, group.in_tensorrt_form) == ("output y", GRAPH_OUTPUT, False)
    assert "y" in place_portable(model, place(model)).consumers
    for pattern in ("output y", "graph output"):
        assert (
            "y" not in place_portable(model, place(model, PlacementRequest((pattern,)))).consumers
        )


def test_a_kernel_that_only_the_runtimes_form_has_is_a_group() -> None:
    text = """
        net (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            a = Conv (x, w0)
            b = Sigmoid (a)
            y = Conv (b, w1)
        }"""
    model = network(text, {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1)})
    kernels = [g for g in place(model).groups if g.kind is GroupKind.KERNEL]
    assert [g.op_type for g in kernels] == ["Sigmoid"]
    assert "a" in place_portable(model, place(model)).consumers
    # no other node reads the Sigmoid's float input
    assert "a" not in place_portable(model, place(model, PlacementRequest(("Sigmoid",)))).consumers


def test_a_pattern_that_changes_nothing_says_what_it_matched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The named nodes are in float already, as the user wants: no reason to end a build."""
    idle = check_floats(float_network(), PlacementRequest(("Relu", "Gemm")))
    assert list(idle) == ["Relu"]
    (said,) = caplog.messages
    assert "'Relu' changes nothing: it matches 'Relu_r0' (Relu)" in said
    assert "and 3 more" in said


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match=r"matches no node .* \(did you mean 'Gemm'\?\)"):
        check_floats(float_network(), PlacementRequest(("Gem",)))


def test_a_pattern_beside_one_that_takes_its_groups_along_is_no_error() -> None:
    assert not place(float_network(), PlacementRequest(("Conv", "Gemm", "Add"))).weights


def test_a_node_named_like_an_operator_takes_no_other_along() -> None:
    model = float_network()
    model.graph[0].name = "Conv"
    layers = {point.node for point in place(model).weights}
    assert {
        point.node for point in place(model, PlacementRequest(groups=frozenset({"Conv"}))).weights
    } == layers - {"Conv"}
    assert {point.node for point in place(model, PlacementRequest(("Conv",))).weights} == {
        "Gemm_logits"
    }


def test_an_exact_name_that_is_no_group() -> None:
    with pytest.raises(OptionError, match=r"'Conv_\*' is the name of no group"):
        place(float_network(), PlacementRequest(groups=frozenset({"Conv_*"})))
    # a group that another pattern has removed is no unknown name
    assert place(float_network(), PlacementRequest(groups=frozenset({"Conv_a2", "Add_sum"})))


def test_the_longer_path_is_the_main_branch_of_an_add() -> None:
    text = """
        net (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            short = Conv (x, w0)
            a = Conv (x, w1)
            long = Conv (a, w2)
            y = Add (ORDER)
        }"""
    weights = dict.fromkeys(("w0", "w1", "w2"), (4, 4, 1, 1))
    for order in ("short, long", "long, short"):
        placement = place(network(text.replace("ORDER", order), weights))
        assert "short" in placement.consumers, order
        assert "long" not in placement.consumers, order


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_counted_serves_every_choice_of_groups(name: str, tmp_path) -> None:
    path, _ = NETWORKS[name].save(tmp_path)
    model = prepare(load(path)).model
    some = TensorRange(1.0, 1.0, -1.0, 1.0, "minmax", "", 1, 0)
    known = with_neighbours(model, dict.fromkeys(watched_tensors(model), some))
    names = [group.name for group in place(model).groups]
    draw = random.Random(name)  # noqa: S311
    choices = [
        *((one,) for one in names),
        *draw.sample(list(itertools.combinations(names, 2)), min(10, len(names) * (len(names) - 1) // 2)),
        *(draw.sample(names, draw.randint(1, len(names))) for _ in range(10 if names else 0)),
    ]  # fmt: skip
    for choice in choices:
        placement = place(model, PlacementRequest(groups=frozenset(choice)))
        needed = placement.observed | place_portable(model, placement).observed
        assert needed <= known.keys(), choice


def test_neighbours_bound_what_was_not_counted() -> None:
    text = """
        net (float[1, 4, 8, 8] x, float[1, 4, 8, 8] z) => (float[1, 8, 8, 8] y) {
            s = Add (x, z)
            r = Relu (s)
            m = MaxPool <kernel_shape = [1, 1]> (r)
            y = Concat <axis = 1> (m, x)
        }"""

    def ranged(low: float, high: float) -> TensorRange:
        return TensorRange(max(-low, high), max(-low, high), low, high, "minmax", "", 1, 0)

    model = network(text, {})
    known = with_neighbours(model, {"x": ranged(-2.0, 1.0), "r": ranged(0.0, 5.0)})
    # z = s - x, which replaces r for its only reader
    assert (known["z"].minimum, known["z"].maximum) == (-1.0, 7.0)
    assert known["m"] == known["r"]
    assert (known["y"].minimum, known["y"].maximum, known["y"].amax) == (-2.0, 5.0, 5.0)
    known = with_neighbours(model, {"x": ranged(-2.0, 1.0), "z": ranged(-1.0, 4.0)})
    assert (known["s"].minimum, known["s"].maximum) == (-3.0, 5.0)


def test_groups_kept_in_float_with_the_ranges_of_a_build_without(tmp_path, capsys) -> None:
    model, data = NETWORKS["average_pools"].save(tmp_path)
    common = ("engine", model, "--int8", "--data", data, "--no-latency", *FAST)
    assert trtbuild(capsys, *common, "-o", tmp_path / "a").code == 0
    ranges = tmp_path / "a" / "net.calibration.json"
    listed = trtbuild(capsys, "quantize", model, "--list", "--json").json
    groups = [one["name"] for one in listed["groups"]]
    assert groups
    for name in groups:
        done = trtbuild(
            *(capsys, *common, "--calibration", ranges, "-o", tmp_path / "b", "--float", name)
        )
        assert done.code == 0, done.err


def test_no_rounded_branch_reaches_a_normalisation() -> None:
    """A convolution beside a transformer's residual stream, as in position encodings."""
    model = network(
        """g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            s = Add(c, x)
            n = InstanceNormalization(s, one, zero)
            y = Conv <pads = [1, 1, 1, 1]> (n, w) }""",
        {"w": (4, 4, 3, 3), "one": (4,), "zero": (4,)},
    )
    (skip,) = (one for one in place(model).groups if one.kind is GroupKind.SKIP_BRANCH)
    assert not skip.int8
    assert "InstanceNormalization" in skip.reason


@pytest.mark.parametrize(("reader", "rounded"), [("Softmax", False), ("Relu", True)])
def test_softmax_reads_what_a_convolution_gives_in_float(reader: str, rounded: bool) -> None:
    """Scores of positions, as for the bins of a box side in detectors: reshaped, then Softmax."""
    model = network(
        f"""g (float[1, 4, 8, 8] x) => (float[1, 4, 64, 1] y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            m = Reshape(c, dims)
            p = {reader}(m)
            y = Conv(p, v) }}""",
        {"w": (4, 4, 3, 3), "v": (4, 4, 1, 1)},
    )
    dims = ir.tensor(np.array([1, 4, 64, 1]), name="dims")
    value = ir.Value(
        name="dims", const_value=dims, shape=ir.Shape([4]), type=ir.TensorType(dims.dtype)
    )
    model.graph.initializers["dims"] = value
    reshape = next(node for node in model.graph if node.op_type == "Reshape")
    reshape.replace_input_with(1, value)
    found = place_portable(model, place(model)).consumers
    assert ("c" in found) is rounded
    assert "p" in found
