"""When outputs count as equal, by the figures promised for the comparison with the original."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from tests.trtbuild.passes.networks import network
from trtbuild.errors import ModelError
from trtbuild.passes import OptimizeOptions, Pass, optimize
from trtbuild.runtime.isolated import IsolatedProcess

SIZE = 1000
FACTORS = np.linspace(1, 2, SIZE).astype(np.float32)
PLAIN = f"t (float[1,{SIZE}] x) => (float[1,{SIZE}] y) {{ y = Mul(x, c) }}"
ROUNDING = f"t (float[1,{SIZE}] x) => (float[1,{SIZE}] y) {{ r = Round(x) y = Mul(r, c) }}"


class Scale(Pass):
    """Multiply the factors of a network by others."""

    name = "scale_factors"
    anchors = frozenset({"Mul"})

    def __init__(self, factors):
        self.factors = factors

    def rewrite(self, node, edit):
        old = node.inputs[1].const_value.numpy()
        if not np.array_equal(old, FACTORS.astype(old.dtype)):
            return None
        new = (old * self.factors).astype(old.dtype)
        edit.rewire(node, 1, edit.constant(new, near=node, hint="c"))
        return "scaled"


class ScaleOnRequest(Scale):
    """The same, as a pass that is allowed to change numbers."""

    opt_in = True
    exact = False


def is_taken(made, text=PLAIN, dtype=np.float32):
    if dtype == np.float16:
        text = text.replace("float[", "float16[")
    model = network(text, {"c": FACTORS.astype(dtype)})
    enable = [made.name] if made.opt_in else []
    result = optimize(model, OptimizeOptions(passes=[made], enable=enable))
    assert result.log.comparison.startswith("compared")
    return not result.log.rolled_back


@pytest.mark.parametrize(
    ("dtype", "gap", "taken"),
    [
        # Allowed are 1024 eps of the element and as much of the largest: 2.4e-4 of the largest.
        (np.float32, 1e-4, True),
        (np.float32, 1e-3, False),
        # 32 eps of half floats: 6.3e-2 of the largest.
        (np.float16, 2e-2, True),
        (np.float16, 2e-1, False),
    ],
)
def test_roundings_of_a_fold_are_no_difference(dtype, gap, taken):
    assert is_taken(Scale(1 + gap), dtype=dtype) is taken


def test_behind_a_rounding_operator_two_percent_of_the_elements_may_be_anything():
    few, many = np.ones(SIZE), np.ones(SIZE)
    few[: SIZE // 100] = 9.0  # 1 %
    many[: SIZE // 20] = 9.0  # 5 %
    assert is_taken(Scale(few), ROUNDING)
    assert not is_taken(Scale(few), PLAIN)
    assert not is_taken(Scale(many), ROUNDING)


@pytest.mark.parametrize(("gap", "taken"), [(0.04, True), (0.06, False)])
def test_behind_a_rounding_operator_all_may_differ_by_five_percent_of_the_norm(gap, taken):
    assert is_taken(Scale(1 + gap), ROUNDING) is taken
    assert not is_taken(Scale(1 + gap), PLAIN)


@pytest.mark.parametrize(("gap", "taken"), [(0.09, True), (0.11, False)])
def test_a_pass_that_is_meant_to_change_numbers_may_by_ten_percent_of_the_norm(gap, taken):
    assert is_taken(ScaleOnRequest(1 + gap)) is taken


def test_two_sizes_of_a_symbolic_dim_are_compared():
    result = optimize(network("t (float[n,4] x) => (float[n,4] y) { a = Identity(x) y = Relu(a) }"))
    assert result.log.comparison == "compared on 2 random inputs (n = 1; n = 3): all outputs"


def test_an_initialiser_that_is_an_input_is_given_another_value_too():
    """A fold of its value is right only until a caller overrides it."""

    class Freeze(Pass):
        """Make an initialiser's value a constant of the graph."""

        name = "freeze_input"
        anchors = frozenset({"Mul"})

        def rewrite(self, node, edit):
            value = node.inputs[1]
            if not value.is_graph_input():
                return None
            edit.rewire(node, 1, edit.constant(value.const_value.numpy(), near=node, hint="c"))
            return "frozen"

    model = network("t (float[1,4] x) => (float[1,4] y) { y = Mul(x, c) }", {"c": (4,)})
    model.graph.inputs.append(model.graph.initializers["c"])
    result = optimize(model, OptimizeOptions(passes=[Freeze()]))
    assert [undone.name for undone in result.log.rolled_back] == ["freeze_input"]


def test_an_open_dim_that_only_an_initialiser_has_is_as_stored():
    model = network("t (float[1,4] x) => (float[1,4] y) { y = Mul(x, c) }", {"c": (4,)})
    model.graph.inputs.append(value := model.graph.initializers["c"])
    value.shape = ir.Shape(["any"])
    assert optimize(model).log.comparison.startswith("compared on 2 random inputs")


DEAR = "t (float[n,{0}] x) => (float[n,{0}] y) {{ m = MatMul(x, w) a = Mul(m, c) y = Relu(a) }}"


def dear(wide=3600):  # a matrix of this size is expensive to read from memory
    factors = FACTORS[np.arange(wide) % SIZE]
    return network(DEAR.format(wide), {"w": np.eye(wide, dtype=np.float32), "c": factors})


class ScaleFirst(Pass):
    """Multiply a factor of an expensive network by another one."""

    name = "scale_first"
    anchors = frozenset({"Mul"})

    def __init__(self, factor):
        self.factor = factor

    def rewrite(self, node, edit):
        old = node.inputs[1].const_value.numpy()
        if old[0] != FACTORS[0]:
            return None
        new = old * np.float32(self.factor)
        edit.rewire(node, 1, edit.constant(new, near=node, hint="c"))
        return "scaled"


@pytest.mark.parametrize(("factor", "taken"), [(1.00001, True), (1.5, False)])
def test_a_network_that_is_dear_to_run_is_run_once(factor, taken):
    options = OptimizeOptions(passes=[ScaleFirst(factor)], only=["scale_first"])
    result = optimize(dear(), options)
    assert result.log.comparison == ("compared on 1 random input (n = 2): all outputs")
    assert (not result.log.rolled_back) is taken


def test_a_network_that_is_nearly_dear_is_run_at_all_sizes():
    # two inputs of 1 and 3 rows: 2 (4 + 2 * 20) 3200^2 = 0.90e9, below the limit of 1e9
    result = optimize(
        dear(3200), OptimizeOptions(passes=[ScaleFirst(1.00001)], only=["scale_first"])
    )
    assert result.log.comparison.startswith("compared on 2 random inputs")


# the messages must also be right for a network that ONNX Runtime refuses
UNTOUCHED = (
    "not compared: no pass has changed the network, and whether ONNX Runtime runs it was not tried"
)


def test_a_dear_network_that_no_pass_has_changed_is_not_run(monkeypatch):
    opened = []
    monkeypatch.setattr(IsolatedProcess, "open", lambda *given: opened.append(given))
    result = optimize(dear(), OptimizeOptions(only=["remove_dropout"]))
    assert result.log.comparison == UNTOUCHED
    assert opened == []


class ScaleInSilence(ScaleFirst):
    """Change the network without reporting it."""

    def rewrite(self, node, edit):
        super().rewrite(node, edit)


def test_a_dear_network_that_a_pass_has_changed_without_saying_so_is_run():
    options = OptimizeOptions(passes=[ScaleInSilence(1.5)], only=["scale_first"])
    with pytest.raises(ModelError, match="differs by up to"):
        optimize(dear(), options)


class InSilence(Pass):
    """Change what is not in the graph itself, and do not say so."""

    name = "change_in_silence"

    def __init__(self, what):
        self.what = what

    def run(self, edit):
        self.what(edit.model)


def import_other_opset(model):
    model.opset_imports[""] = 13  # Softmax works along other axes


def rename_input(model):
    model.graph.inputs[1].name = "other"


@pytest.mark.parametrize("what", [import_other_opset, rename_input])
def test_a_dear_network_is_run_if_its_opset_or_unread_inputs_changed(what):
    nodes = " ".join(f"a{i + 1} = Sin(a{i})" for i in range(5000))
    text = (
        f"t (float[2,3,4] a0, float[2] unread) => (float[2,3,4] y) {{ {nodes} y = Softmax(a5000) }}"
    )
    options = OptimizeOptions(passes=[InSilence(what)], only=["change_in_silence"])
    with pytest.raises(ModelError, match="copying the network changes it"):
        optimize(network(text, opset=12), options)


def test_a_dear_network_is_run_if_a_function_changed():
    nodes = " ".join(f"a{i + 1} = Sin(a{i})" for i in range(5000))
    text = f"""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        t (float[2] a0) => (float[2] y) {{ {nodes} y = local.f(a5000) }}
        <domain: "local", opset_import: ["" : 17]> f (a) => (b) {{ b = Cos(a) }}"""

    def call_another(model):
        (function,) = model.functions.values()
        function[0].op_type = "Sin"

    model = ir.from_proto(onnx.parser.parse_model(text))
    options = OptimizeOptions(passes=[InSilence(call_another)], only=["change_in_silence"])
    with pytest.raises(ModelError, match="copying the network changes it"):
        optimize(model, options)


def long(last):
    """A network with so many nodes that opening a session takes long."""
    nodes = " ".join(f"a{i + 1} = Sin(a{i})" for i in range(5000))
    return network(f"t (float[n,2] a0) => (float[n,2] y) {{ {nodes} y = {last}(a5000) }}")


@pytest.mark.parametrize(
    ("last", "wanted"),
    [("Relu", UNTOUCHED), ("Dropout", "compared on 2 random inputs")],
)
def test_a_network_of_many_nodes_is_run_where_a_pass_has_changed_it(last, wanted):
    result = optimize(long(last), OptimizeOptions(only=["remove_dropout"]))
    assert result.log.comparison.startswith(wanted)
    assert not result.log.rolled_back


def test_nothing_is_promised_of_an_unchanged_network_that_does_not_run():
    model = long("Relu")
    model.graph[-1].op_type = "NoSuchOperator"
    assert optimize(model).log.comparison == UNTOUCHED
