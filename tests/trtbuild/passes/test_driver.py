"""The driver terminates, says why it stopped, and undoes passes that change a result."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.trtbuild.passes.networks import answers, network
from tests.trtbuild.passes.random_graphs import grow
from trtbuild.errors import OptionError
from trtbuild.model.inference import infer_model
from trtbuild.model.names import Names
from trtbuild.passes import Declined, OptimizeOptions, Pass, all_passes, optimize
from trtbuild.passes.editor import Editor
from trtbuild.passes.selection import select

CHAIN = "chain (float[n,4] x) => (float[n,4] y) { a = Relu(x) b = Neg(a) c = Abs(b) y = Tanh(c) }"


def swap(source, target):
    """A pass that replaces one operator by another; two of them undo each other."""

    class Swap(Pass):
        """Swap operators.

        Pattern: one operator.
        """

        name = f"{source}_to_{target}"
        anchors = frozenset({source})

        def rewrite(self, node, edit):
            edit.replace(node, edit.add(target, node.inputs, before=node, like=node.outputs[0]))
            return "swapped"

    return Swap()


class Drop(Pass):
    """Drop an operator, whatever it computes: wrong on purpose."""

    anchors = frozenset({"Abs"})
    name = "drop_abs"

    def rewrite(self, node, edit):
        edit.bypass(node, node.outputs[0], node.inputs[0])
        return "dropped"


class Fails(Pass):
    """Raise in the middle of an edit."""

    anchors = frozenset({"Neg"})
    name = "fails"

    def rewrite(self, node, edit):
        edit.replace(node, edit.add("Relu", node.inputs, before=node, like=node.outputs[0]))
        raise ZeroDivisionError("a bug of the pass")


class NeverRests(Pass):
    """Wrap the output in one more operator, each time."""

    anchors = frozenset({"Tanh"})
    name = "never_rests"

    def rewrite(self, node, edit):
        edit.follow(node, "Sin", {})
        return "wrapped"


def run(*passes, text=CHAIN, **options):
    return optimize(network(text), OptimizeOptions(passes=passes, **options))


@pytest.mark.parametrize("turned", [False, True])
def test_passes_that_undo_each_other_within_a_round_are_named(turned):
    passes = [swap("Relu", "Elu"), swap("Elu", "Relu")]
    result = run(*(reversed(passes) if turned else passes), check=False)
    assert set(result.log.undoing) == {"Relu_to_Elu", "Elu_to_Relu"}
    assert result.log.rounds <= 3


def test_passes_that_undo_each_other_over_rounds_are_named():
    """Three passes replace an operator in a cycle; each round ends with another operator."""

    class Turn(Pass):
        """Replace one operator by the next, once per round."""

        name = "turn"
        order = ("Sin", "Cos", "Tan")
        anchors = frozenset(order)

        def run(self, edit):
            node = next(edit.nodes(self.anchors))
            after = self.order[(self.order.index(node.op_type) + 1) % 3]
            edit.replace(node, edit.add(after, node.inputs, before=node, like=node.outputs[0]))
            edit.report(node, "turned")

    text = "t (float[n,4] x) => (float[n,4] y) { a = Sin(x) y = Relu(a) }"
    result = run(Turn(), text=text, check=False)
    assert result.log.undoing == ("turn",)
    assert result.log.rounds == 3
    assert not result.log.capped


def test_cap_ends_what_always_changes():
    result = run(NeverRests(), check=False, max_rounds=7)
    assert result.log.capped
    assert result.log.rounds == 7
    assert result.after.nodes["Sin"] == 7


class LeavesRelu(Pass):
    """Look at every Relu where there is an Abs, and leave it."""

    anchors = frozenset({"Relu"})
    needs = frozenset({"Abs", "Sin"})
    name = "leaves_relu"

    def rewrite(self, node, edit):
        raise Declined("as it is")


def test_a_pass_is_not_run_without_the_operators_that_it_needs():
    text = "t (float[n,4] x) => (float[n,4] y) { r = Relu(x) a = Neg(r) y = Tanh(a) }"
    assert not run(LeavesRelu(), text=text).log.declined
    assert run(LeavesRelu(), text=text.replace("Neg", "Sin")).log.declined.keys() == {"leaves_relu"}


def test_a_declined_node_that_is_gone_later_is_not_reported():
    text = "t (float[n,4] x) => (float[n,4] y) { r = Relu(x) a = Abs(r) y = Tanh(a) }"
    result = run(LeavesRelu(), Drop(), text=text)
    assert result.log.fired.keys() == {"drop_abs"}
    assert not result.log.declined


@pytest.mark.parametrize("seed", range(12))
def test_passes_without_their_operators_change_and_decline_nothing(seed):
    model = ir.from_proto(grow(random.Random(seed).choice, seed))  # noqa: S311
    infer_model(model)
    present = {node.op_type for node in model.graph.all_nodes()}
    resting = [item for item in all_passes() if item.needs and not item.needs & present]
    assert resting
    for item in resting:
        edit = Editor(model, Names(model))
        item.run(edit)
        assert (edit.changes, edit.declines) == ([], []), item.name


def test_wrong_pass_is_undone_and_named_and_the_others_go_on():
    text = "t (float[n,4] x) => (float[n,4] y) { a = Identity(x) c = Abs(a) d = Identity(c) y = Tanh(d) }"
    result = run(Drop(), text=text)
    assert [undone.name for undone in result.log.rolled_back] == ["drop_abs"]
    assert "differs" in result.log.rolled_back[0].reason
    assert dict(result.after.nodes) == {"Abs": 1, "Tanh": 1}


def test_only_the_wrong_run_of_a_pass_is_undone():
    """The pass is right in its first run, where x is not negative, and wrong in its second."""
    text = "t (float[n,4] x) => (float[n,4] y) { r = Relu(x) a = Abs(r) n = Sin(a) y = Tanh(n) }"
    result = run(Drop(), swap("Sin", "Abs"), text=text, max_rounds=9)
    assert {undone.name for undone in result.log.rolled_back} == {"Sin_to_Abs"}
    assert dict(result.after.nodes) == {"Relu": 1, "Sin": 1, "Tanh": 1}


def test_without_check_the_wrong_result_comes_out():
    """This proves that the tests above show the safety net, and not a pass that does nothing."""
    text = "t (float[n,4] x) => (float[n,4] y) { c = Abs(x) y = Tanh(c) }"
    result = run(Drop(), text=text, check=False)
    assert dict(result.after.nodes) == {"Tanh": 1}


def test_pass_that_raises_is_undone_whole():
    model = network(CHAIN)
    result = optimize(model, OptimizeOptions(passes=[Fails()]))
    assert [undone.name for undone in result.log.rolled_back] == ["fails"]
    assert "ZeroDivisionError" in result.log.rolled_back[0].reason
    np.testing.assert_array_equal(answers(result.model)[0], answers(model)[0])


def test_original_is_not_touched():
    text = "t (float[1,4] x) => (float[1,4] y) { a = Identity(x) b = Add(a, zero) y = Tanh(b) }"
    model = network(text, {"zero": np.zeros(4, np.float32)})
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    optimize(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_same_input_gives_the_same_bytes():
    text = "t (float[1,3,8,8] x) => (float[1,4,8,8] y) { c = Conv<pads=[1,1,1,1]>(x, w) y = Add(c, b) }"
    weights = {"w": (4, 3, 3, 3), "b": (1, 4, 1, 1)}
    made = [ir.to_proto(optimize(network(text, weights)).model) for _ in range(2)]
    first, second = (proto.SerializeToString(deterministic=True) for proto in made)
    assert first == second


def test_near_match_says_why_and_where():
    text = "t (float[1,3,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w) y = Add(c, b) }"
    result = optimize(network(text, {"w": (4, 3, 1, 1), "b": (4,)}))
    (note,) = result.log.declined["fold_bias_add"]
    assert "'b' of shape [4] is not per channel" in note.text
    assert result.after.nodes["Add"] == 1


def test_names_are_checked_with_a_suggestion():
    with pytest.raises(OptionError, match="Did you mean 'fold_bias_add'"):
        run(enable=["fold_bias_ad"])
    with pytest.raises(OptionError, match="Did you mean 'ConvBiasAdd'"):
        run(enable=["ConvBiasAd"])


def test_only_and_disable():
    text = "t (float[1,4] x) => (float[1,4] y) { a = Identity(x) b = Dropout(a) y = Tanh(b) }"
    assert "Dropout" in run(text=text, only=["remove_identity"]).after.nodes
    assert "Identity" in run(text=text, disable=["remove_identity"]).after.nodes


class DropPart(Drop):
    name = "drop_abs.part"


def test_name_means_its_parts():
    _, on_request = select(all_passes(), enable=["TransformOnnxPad"])
    assert [item.name for item in on_request] == ["raise_pad_opset"]
    _, on_request = select(all_passes(), only=["TransformOnnxPad"])
    assert [item.name for item in on_request] == ["raise_pad_opset"]
    default, _ = select([Drop(), DropPart(), *all_passes()], only=["drop_abs"])
    assert [item.name for item in default] == ["drop_abs", "drop_abs.part"]


def test_a_pass_cannot_take_the_name_that_the_catalogue_has_for_another():
    class ConvBiasAdd(Drop):
        name = "ConvBiasAdd"

    with pytest.raises(OptionError, match="two graph passes"):
        run(ConvBiasAdd())


def test_two_passes_of_one_name_are_refused():
    with pytest.raises(OptionError, match="two graph passes"):
        run(Drop(), Drop())


def test_time_of_every_pass_is_kept():
    result = run(text="t (float[n] x) => (float[n] y) { a = Identity(x) y = Relu(a) }")
    assert result.log.seconds["remove_identity"] > 0
    assert result.log.rounds == len({run.round for run in result.log.runs})


def test_declined_is_no_error():
    assert str(Declined("its output is read twice")) == "its output is read twice"


def test_symbolic_dims_are_compared_at_several_sizes():
    """``[4, 1] * [n]`` looks like ``[n]`` at one size only; the safety net must try another."""

    class Squash(Pass):
        """Sum over an axis that may have one element: wrong unless it has."""

        anchors = frozenset({"ReduceMax"})
        name = "squash"

        def rewrite(self, node, edit):
            edit.bypass(node, node.outputs[0], node.inputs[0])
            return "dropped"

    text = "t (float[n,4] x) => (float[m,4] y) { a = ReduceMax<axes=[0]>(x) y = Tanh(a) }"
    result = run(Squash(), text=text)
    assert [undone.name for undone in result.log.rolled_back] == ["squash"]


def half_inside():
    """Half floats inside, float32 outside, as converters write it."""
    rng = np.random.default_rng(0)
    nodes, weights, name = ["h0 = Cast<to=10>(x)"], {}, "h0"
    for i in range(6):
        size = 3 if i == 0 else 16
        weights[f"w{i}"] = rng.standard_normal((16, size, 3, 3)) / np.sqrt(9 * size) * 1.4
        for key in "sbmv":
            weights[f"{key}{i}"] = rng.uniform(0.5, 1.5, 16)
        nodes.append(f"c{i} = Conv<pads=[1,1,1,1]>({name}, w{i})")
        nodes.append(f"n{i} = BatchNormalization(c{i}, s{i}, b{i}, m{i}, v{i}) r{i} = Relu(n{i})")
        name = f"r{i}"
    text = f"t (float[1,3,16,16] x) => (float[1,16,16,16] y) {{ {' '.join(nodes)} y = Cast<to=1>({name}) }}"
    return network(text, {key: value.astype(np.float16) for key, value in weights.items()})


def test_tolerance_is_that_of_the_coarsest_float_inside():
    result = optimize(half_inside())
    assert not result.log.rolled_back
    assert "BatchNormalization" not in result.after.nodes


def test_constants_are_added_to_a_network_of_ir_version_3():
    model = network(
        "t (float[1,3,8,8] x) => (float[1,4,8,8] y) { c = Conv(x, w) y = Add(c, b) }",
        {"w": (4, 3, 1, 1), "b": (1, 4, 1, 1)},
        opset=8,
    )
    proto = ir.to_proto(model)
    proto.ir_version = 3
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in proto.graph.initializer
    )
    result = optimize(ir.from_proto(proto))
    assert not result.log.rolled_back
    onnx.checker.check_model(ir.to_proto(result.model))


def test_integers_are_drawn_by_their_use():
    """Indices into a table of 5: ONNX Runtime refuses any integer beyond."""
    model = network(
        "t (int64[n] ids) => (float[n,4] y) { y = Gather(table, ids) }", {"table": (5, 4)}
    )
    comparison = optimize(model).log.comparison
    assert comparison.startswith("compared on 2")
