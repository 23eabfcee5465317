"""Graphs inside nodes, and the nodes that make and read tensors."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from trtbuild.model.traversal import (
    all_graphs,
    all_nodes,
    has_bodies,
    label,
    maker,
    only_reader,
    proto_graphs,
    proto_nodes,
    sole_node,
)

PROTO = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]>
net (float[2] x, bool c) => (float[2] y, float[2] p)
{
    p = Relu(x)
    q = Neg(p)
    y = If(c)<then_branch = t () => (float[2] a) { k = Identity(c) a = If(k)<
                  then_branch = u () => (float[2] i) { i = Abs(q) },
                  else_branch = v () => (float[2] j) { j = Exp(x) }> },
              else_branch = e () => (float[2] b) { b = Sqrt(x) }>
}
""")


@pytest.fixture
def model() -> ir.Model:
    return ir.from_proto(PROTO)


def values(model: ir.Model) -> dict[str, ir.Value]:
    return {value.name: value for node in all_nodes(model.graph) for value in node.outputs}


def test_nested_graphs_are_found_before_and_after_they_become_objects(model):
    assert [graph.name for graph in all_graphs(model.graph)] == ["net", "t", "u", "v", "e"]
    assert [graph.name for graph in proto_graphs(PROTO.graph)] == ["net", "t", "u", "v", "e"]
    assert {node.op_type for node in all_nodes(model.graph)} == {
        node.op_type for node in proto_nodes(PROTO.graph)
    }
    assert [has_bodies(node) for node in model.graph] == [False, False, True]


def test_an_empty_body_is_a_body_too():
    branch = ir.Graph([], [], nodes=[], name="empty")
    node = ir.node("If", [ir.val("c")], {"then_branch": branch, "else_branch": branch.clone()})
    assert has_bodies(node)


def test_a_node_that_was_removed_on_the_way_is_not_entered(model):
    seen = []
    for node in all_nodes(model.graph):
        seen.append(node.op_type)
        if node.op_type == "If" and node.graph is model.graph:
            model.graph.outputs[:] = model.graph.outputs[1:]
            model.graph.remove(node)
    assert seen == ["Relu", "Neg", "If"]


def test_a_reader_in_a_body_is_no_reader_of_the_same_graph(model):
    assert only_reader(values(model)["q"]) is None
    assert sole_node(values(model)["k"], "If") is not None


def test_an_output_of_the_network_has_no_only_reader(model):
    assert only_reader(values(model)["p"]) is None


def test_makers_are_operators_of_the_onnx_domain(model):
    q = values(model)["q"]
    assert maker(q, "Neg", "Abs") is q.producer()
    assert maker(q, "Abs") is None
    assert maker(model.graph.inputs[0], "Neg") is None
    q.producer().domain = "made.up"
    assert maker(q, "Neg") is None


def test_a_node_without_a_name_is_called_after_its_output(model):
    assert label(model.graph[0]) == "p"
