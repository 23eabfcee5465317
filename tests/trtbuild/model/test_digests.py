"""Which changes of a network change its digests, and which do not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.model.digests import Hasher, graph_digest, weights_digest

TEXT = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
net (float[n, 2] x) => (float[n, 2] y)
<float[2] w = {1, 2}, float[2] v = {1, 2}>
{
    a = Gelu(x)
    b = LeakyRelu<alpha = 0.1>(x)
    c = Mul(a, w)
    d = Mul(b, v)
    y = Add(c, d)
}
"""


def network(*changes: tuple[str, str]) -> ir.Model:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return ir.from_proto(onnx.parser.parse_model(text))


def in_domain(domain: str) -> ir.Model:
    model = network()
    model.graph[0].domain = domain
    return model


def test_the_digest_that_is_written_into_files_stays_what_it_is():
    """Calibration files and manifests of earlier versions contain it."""
    assert graph_digest(network()) == (
        "sha256:58f8c5a930bf304f2bb52fc123bb83e8907e57c2b74f34ab48e48b59a3ac26b1"
    )


def test_operators_of_two_domains_are_two_operators():
    plain, contributed = in_domain(""), in_domain("com.microsoft")
    assert graph_digest(plain) != graph_digest(contributed)
    hasher = Hasher()
    assert hasher.digest(plain).structure != hasher.digest(contributed).structure


CHANGES = {
    "operator": ("b = LeakyRelu", "b = ThresholdedRelu"),
    "attribute": ("alpha = 0.1", "alpha = 0.2"),
    "edge": ("d = Mul(b, v)", "d = Mul(a, v)"),
    "input's type": ("float[n, 2] x", "double[n, 2] x"),
    "input's dims": ("float[n, 2] x", "float[1, 2] x"),
    "output's name": ("float[n, 2] y", "float[n, 2] c"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_structure_changes_the_digest(change):
    assert graph_digest(network(change)) != graph_digest(network())


def test_values_of_weights_change_the_digest_of_the_weights_alone():
    changed = network(("w = {1, 2}", "w = {1, 3}"))
    assert graph_digest(changed) == graph_digest(network())
    assert weights_digest(changed) != weights_digest(network())


def test_passes_see_through_inner_names_and_the_order_of_independent_nodes():
    hasher = Hasher()
    renamed = network(("a = Gelu(x)", "q = Gelu(x)"), ("Mul(a, w)", "Mul(q, w)"))
    lines = "    a = Gelu(x)\n", "    b = LeakyRelu<alpha = 0.1>(x)\n"
    swapped = network((lines[0] + lines[1], lines[1] + lines[0]))
    for other in (renamed, swapped):
        assert hasher.digest(other) == hasher.digest(network())
        assert graph_digest(other) != graph_digest(network())


def test_float_constants_are_content_and_not_structure():
    hasher = Hasher()
    before, after = hasher.digest(network()), hasher.digest(network(("w = {1, 2}", "w = {1, 3}")))
    assert before.content != after.content
    assert before.structure == after.structure


def test_a_large_constant_is_told_apart_by_what_holds_it():
    """Its content is not read: a different tensor object with the same elements counts as different."""
    hasher = Hasher()
    model = network()
    weight = model.graph.initializers["w"]
    weight.const_value = ir.tensor(np.zeros(1 << 15, np.float32))
    first = hasher.digest(model)
    assert hasher.digest(model) == first
    weight.const_value = ir.tensor(np.zeros(1 << 15, np.float32))
    assert hasher.digest(model).content != first.content


def test_the_digest_of_weights_is_that_of_those_a_network_has_now():
    model = network()
    before = weights_digest(model)
    assert weights_digest(model) == before
    model.graph.initializers["v"].const_value = ir.tensor(np.float32([1, 3]), name="v")
    exchanged = weights_digest(model)
    assert exchanged == weights_digest(network(("v = {1, 2}", "v = {1, 3}"))) != before
    del model.graph.initializers["w"]
    assert weights_digest(model) not in (before, exchanged)
