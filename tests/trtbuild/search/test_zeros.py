"""The cost of 2:4 zeros is reported layer by layer, relative to the dense network."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trtbuild.artifact import Artifact
from trtbuild.data import Batch
from trtbuild.jobs.zeros import with_cost_of_zeros
from trtbuild.report.history import stages_section
from trtbuild.report.model import Table

WIDE = 8
RANDOM = np.random.default_rng(0)
WEIGHTS = [RANDOM.standard_normal((WIDE, WIDE)).astype(np.float32) for _ in range(3)]


def pruned(weight: np.ndarray, left: float) -> np.ndarray:
    """Multiply two of every four consecutive input channels by zero, or by another factor."""
    factor = np.tile([1.0, left, left, 1.0], WIDE // 4).astype(np.float32)
    return weight * factor[:, np.newaxis]


def network(*weights: np.ndarray) -> ir.Model:
    x = ir.val("x", ir.DataType.FLOAT, ["n", WIDE])
    tape, value = ir.tape.Tape(), x
    for number, weight in enumerate(weights):
        product = tape.op("MatMul", [value, tape.initializer(ir.tensor(weight), f"w{number}")])
        product.name, product.type = f"m{number}", ir.TensorType(ir.DataType.FLOAT)
        product.shape = ir.Shape(["n", WIDE])
        value = tape.op("Relu", [product])
        value.name, value.type, value.shape = f"y{number}", product.type, product.shape
    for node in tape.nodes:
        node.name = f"of_{node.outputs[0].name}"
    graph = ir.Graph(
        [x], [value], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 17}
    )
    return ir.Model(graph, ir_version=8)


def batches(count: int = 16) -> list[Batch]:
    random = np.random.default_rng(1)
    rows = random.standard_normal((count, 1, WIDE)).astype(np.float32)
    return [Batch({"x": one}, None, (f"{i}",)) for i, one in enumerate(rows)]


def test_the_layer_whose_zeros_do_most_comes_first() -> None:
    first, second, third = WEIGHTS
    # the second layer loses very small weights only; the third has no zeros
    dense = network(first, pruned(second, 1e-3), third)
    sparse = network(pruned(first, 0.0), pruned(second, 0.0), third)
    artifact = with_cost_of_zeros(Artifact("m", sparse, sparse, reference=dense), batches())
    (record,) = artifact.history
    rows = {row["node"]: row for row in record.details["rows"]}
    assert list(rows) == ["of_m0", "of_m1"]
    assert rows["of_m0"]["alone_sqnr_db"] < 20 < rows["of_m1"]["alone_sqnr_db"]
    assert rows["of_m1"]["gained_db"] < 0.1 < rows["of_m0"]["gained_db"]
    assert "'of_m0' cost the most of 2 layers" in record.summary
    (table,) = stages_section(artifact.history).blocks
    assert isinstance(table, Table)
    assert all(str(cell).startswith("~") for row in table.rows for cell in row[1:])
    assert "estimated to some 3 dB" in table.caption


def test_zeros_that_were_there_before_cost_nothing() -> None:
    sparse = network(*(pruned(weight, 0.0) for weight in WEIGHTS))
    artifact = Artifact("m", sparse, sparse, reference=sparse.clone())
    assert with_cost_of_zeros(artifact, batches()) is artifact


def test_layers_of_another_shape_are_left_out() -> None:
    narrow = network(np.zeros((WIDE, WIDE), np.float32))
    wide = network(np.ones((WIDE, 2 * WIDE), np.float32))
    artifact = Artifact("m", narrow, narrow, reference=wide)
    assert with_cost_of_zeros(artifact, batches()) is artifact
