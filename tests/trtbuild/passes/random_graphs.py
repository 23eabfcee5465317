"""Random small networks of the operators that the passes change.

A network is grown operator by operator on tensors with known dims (the batch may be symbolic in the
file), so that every network is valid by construction. Values stay of order one: nothing divides by a
computed tensor, and growing values are squashed now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 3
"""Size of the batch while growing; symbolic in half of the networks."""


@dataclass
class Tensor:
    name: str
    dims: tuple[int, ...]


@dataclass
class Grower:
    """A growing network. `choose` picks one of several options."""

    choose: Callable[[Sequence[Any]], Any]
    opset: int
    dtype: np.dtype
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    extra_inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    pool: list[Tensor] = field(default_factory=list)
    count: int = 0

    def name(self, hint: str) -> str:
        self.count += 1
        return f"{hint}_{self.count}"

    def node(self, op: str, inputs: list[str], dims: tuple[int, ...], **attributes: Any) -> Tensor:
        result = Tensor(self.name(op.lower()), tuple(int(dim) for dim in dims))
        self.nodes.append(helper.make_node(op, inputs, [result.name], self.name("n"), **attributes))
        return result

    def constant(self, content: np.ndarray) -> str:
        """Keep a constant as an initialiser (perhaps an overridable one) or a Constant node."""
        content = np.asarray(content)
        tensor = numpy_helper.from_array(content, self.name("c"))
        kind = self.choose(["plain"] * 8 + ["node"] * 3 + ["input"])
        if kind == "node":
            self.nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
            return tensor.name
        self.weights.append(tensor)
        if kind == "input" and content.dtype == self.dtype:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, content.shape)
            self.extra_inputs.append(info)
        return tensor.name

    def integers(self, content: Sequence[int]) -> str:
        tensor = numpy_helper.from_array(np.array(content, np.int64), self.name("i"))
        self.weights.append(tensor)
        return tensor.name

    def floats(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (self.random.standard_normal(shape) * scale).astype(self.dtype)

    def pick(self, rank: int | None = None) -> Tensor | None:
        """Pick a tensor, mostly a recent one, to form chains."""
        fitting = [t for t in self.pool if rank is None or len(t.dims) == rank]
        if not fitting:
            return None
        return self.choose(fitting[-3:] + fitting[-1:] * 5)


# ----------------------------------------------------------------- one operator, or a short pattern


def unary(g: Grower, x: Tensor) -> Tensor:
    op = g.choose(["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "LeakyRelu", "Identity", "Dropout"])
    return g.node(op, [x.name], x.dims)


def clamp(g: Grower, x: Tensor) -> Tensor:
    op = g.choose(["Clip", "Clip", "Relu", "Max", "Min"])
    if op == "Relu":
        return g.node("Relu", [x.name], x.dims)
    low, high = g.choose([(0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (2.0, 3.0), (-3.0, -2.0)])
    bounds = [g.constant(np.array(bound, g.dtype)) for bound in (low, high)]
    if op == "Clip":
        return g.node("Clip", [x.name, *bounds], x.dims)
    return g.node(op, g.choose([[x.name, bounds[0]], [bounds[0], x.name]]), x.dims)


def operand(g: Grower, dims: tuple[int, ...]) -> np.ndarray:
    """A constant that broadcasts against `dims`, mostly without making it larger."""
    rank = len(dims)
    shapes: list[tuple[int, ...]] = [(), (1,), (1,) * rank, dims, dims[-1:], (1,) * (rank + 1)]
    if rank >= 2:
        shapes.append((dims[1],) + (1,) * (rank - 2))
        shapes.append((1, dims[1]) + (1,) * (rank - 2))
    if rank == 4:
        shapes.append((2, *dims))
    shape = g.choose(shapes)
    return g.choose(
        [
            g.floats(*shape),
            np.zeros(shape, g.dtype),
            np.ones(shape, g.dtype),
            np.full(shape, 0.5, g.dtype),
            g.floats(*shape),
        ]
    )


def with_constant(g: Grower, x: Tensor) -> Tensor:
    content = operand(g, x.dims)
    op = g.choose(["Add", "Sub", "Mul", "Div", "Add", "Mul"])
    if op == "Div":
        content = (np.abs(content) + 0.5).astype(g.dtype)
    constant = g.constant(content)
    dims = np.broadcast_shapes(x.dims, content.shape)
    names = [x.name, constant]
    if op != "Div" and g.choose([False, True]):
        names.reverse()
    return g.node(op, names, dims)


def two_tensors(g: Grower, x: Tensor) -> Tensor | None:
    others = [t for t in g.pool if broadcasts(t.dims, x.dims)]
    y = g.choose(others[-4:])
    op = g.choose(["Add", "Sub", "Mul", "Max", "Sum", "Mean"])
    return g.node(op, [x.name, y.name], np.broadcast_shapes(x.dims, y.dims))


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def convolution(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) not in (3, 4):
        return None
    channels, spatial = x.dims[1], x.dims[2:]
    kernel = g.choose([1, 3])
    pad = g.choose([0, 1]) if kernel == 3 else 0
    if any(size + 2 * pad < kernel for size in spatial):
        return None
    group = g.choose([1, 1, channels])
    out = g.choose([channels, 2 * channels]) if group == channels else g.choose([2, 4])
    weight = g.constant(g.floats(out, channels // group, *[kernel] * len(spatial), scale=0.4))
    inputs = [x.name, weight]
    if g.choose([False, True]):
        inputs.append(g.constant(g.floats(out)))
    dims = (x.dims[0], out, *(size + 2 * pad - kernel + 1 for size in spatial))
    attributes = {"pads": [pad] * 2 * len(spatial), "group": group}
    return g.node("Conv", inputs, dims, kernel_shape=[kernel] * len(spatial), **attributes)


def transposed_convolution(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) != 4 or x.dims[1] % 2 or x.dims[2] > 8:
        return None
    group = g.choose([1, 2])
    weight = g.constant(g.floats(x.dims[1], 3, 2, 2, scale=0.4))
    dims = (x.dims[0], 3 * group, x.dims[2] + 1, x.dims[3] + 1)
    return g.node("ConvTranspose", [x.name, weight], dims, group=group, kernel_shape=[2, 2])


def batch_norm(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) < 2:
        return None
    size = x.dims[1]
    parts = [
        g.floats(size),
        g.floats(size),
        g.floats(size, scale=0.3),
        np.abs(g.floats(size)) + 0.5,
    ]
    names = [g.constant(part.astype(g.dtype)) for part in parts]
    return g.node("BatchNormalization", [x.name, *names], x.dims)


def pooling(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) != 4:
        return None
    kind = g.choose(["MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "ReduceMean"])
    if kind == "GlobalAveragePool":
        return g.node(kind, [x.name], (*x.dims[:2], 1, 1))
    if kind == "ReduceMean":
        return reduce_mean(g, x, g.choose([[2, 3], [3], [1, 2], [-1]]))
    if kind == "Pad":
        widths = g.choose([[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
        pads = g.integers([*widths, *widths])
        dims = tuple(size + 2 * width for size, width in zip(x.dims, widths))
        value = [g.constant(np.array(g.choose([0.0, 0.0, 1.0]), g.dtype))]
        return g.node("Pad", [x.name, pads, *value], dims)
    kernel = g.choose([1, 2])
    if min(x.dims[2:]) < kernel:
        return None
    dims = (*x.dims[:2], *(size - kernel + 1 for size in x.dims[2:]))
    return g.node(kind, [x.name], dims, kernel_shape=[kernel, kernel])


def reduce_mean(g: Grower, x: Tensor, axes: list[int], keep: int | None = None) -> Tensor:
    keep = g.choose([0, 1]) if keep is None else keep
    places = {axis % len(x.dims) for axis in axes}
    dims = [1 if i in places else size for i, size in enumerate(x.dims) if keep or i not in places]
    if g.opset >= 18:
        return g.node("ReduceMean", [x.name, g.integers(axes)], tuple(dims), keepdims=keep)
    return g.node("ReduceMean", [x.name], tuple(dims), axes=axes, keepdims=keep)


def permuted(g: Grower, x: Tensor) -> Tensor:
    rank = len(x.dims)
    options = [list(range(rank)), list(reversed(range(rank)))]
    if rank == 4:
        options += [[0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2]] * 2
    if rank == 3:
        options += [[0, 2, 1]] * 2
    perm = g.choose(options)
    return g.node("Transpose", [x.name], tuple(x.dims[p] for p in perm), perm=perm)


def reshaped(g: Grower, x: Tensor) -> Tensor:
    kind = g.choose(["Reshape", "Flatten", "Unsqueeze", "Squeeze", "Reshape"])
    size = int(np.prod(x.dims[1:]))
    if kind == "Flatten":
        return g.node("Flatten", [x.name], (x.dims[0], size))
    if kind == "Unsqueeze" and len(x.dims) < 4:
        axis = g.choose(range(len(x.dims) + 1))
        dims = (*x.dims[:axis], 1, *x.dims[axis:])
        return g.node("Unsqueeze", [x.name, g.integers([axis])], dims)
    ones = [i for i, dim in enumerate(x.dims) if dim == 1 and i]
    if kind == "Squeeze" and ones:
        axis = g.choose(ones)
        dims = (*x.dims[:axis], *x.dims[axis + 1 :])
        written = g.choose([axis, axis - len(x.dims)])
        return g.node("Squeeze", [x.name, g.integers([written])], dims)
    if x.dims[0] != BATCH:
        return g.node("Identity", [x.name], x.dims)
    halves = [f for f in (1, 2, 4) if size % f == 0]
    inner = g.choose([(size,), x.dims[1:], *[(f, size // f) for f in halves], (1, size, 1)])
    target = g.choose([[0, *inner], [-1, *inner], [0, *inner[:-1], -1]])
    return g.node("Reshape", [x.name, g.integers(target)], (BATCH, *inner))


def matrix_product(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) < 2:
        return None
    depth, columns = x.dims[-1], g.choose([2, 4])
    kind = g.choose(["MatMul", "MatMul", "Gemm", "pair"])
    if kind == "Gemm" and len(x.dims) == 2:
        trans = g.choose([0, 1])
        shape = (columns, depth) if trans else (depth, columns)
        inputs = [x.name, g.constant(g.floats(*shape, scale=0.5))]
        row = g.choose([None, (), (columns,), (1, columns)])
        if row is not None:
            inputs.append(g.constant(g.floats(*row)))
        alpha, beta = g.choose([(1.0, 1.0), (0.5, 2.0), (-1.0, 0.5)])
        dims = (x.dims[0], columns)
        return g.node("Gemm", inputs, dims, transB=trans, alpha=alpha, beta=beta)
    if kind == "pair":
        turned = g.node(
            "Transpose",
            [x.name],
            (*x.dims[:-2], depth, x.dims[-2]),
            perm=[*range(len(x.dims) - 2), len(x.dims) - 1, len(x.dims) - 2],
        )
        return g.node("MatMul", [x.name, turned.name], (*x.dims[:-1], x.dims[-2]))
    weight = g.constant(g.floats(depth, columns, scale=0.5))
    return g.node("MatMul", [x.name, weight], (*x.dims[:-1], columns))


def cut(g: Grower, x: Tensor) -> Tensor | None:
    axis = g.choose(range(1, len(x.dims))) if len(x.dims) > 1 else None
    if axis is None or x.dims[axis] < 2:
        return None
    size = x.dims[axis]
    start, end, step = g.choose([(0, 2**31, 1), (1, size, 1), (0, -1, 1), (-1, -(2**31), -1)])
    dims = list(x.dims)
    dims[axis] = len(range(size)[slice(start, None if end < -size else end, step)])
    ends = [g.integers([value]) for value in (start, end, axis, step)]
    return g.node("Slice", [x.name, *ends], tuple(dims))


def concat_and_split(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) < 2:
        return None
    same = [t for t in g.pool if t.dims == x.dims]
    y = g.choose(same[-3:])
    axis = g.choose([1, -1])
    dims = list(x.dims)
    dims[axis] *= 2
    both = g.node("Concat", [x.name, y.name], tuple(dims), axis=axis)
    if g.choose([True, False]):
        return both
    first, second = Tensor(g.name("split"), x.dims), Tensor(g.name("split"), x.dims)
    sizes = g.integers([x.dims[axis]] * 2)
    g.nodes.append(
        helper.make_node("Split", [both.name, sizes], [first.name, second.name], axis=axis)
    )
    g.pool.append(first)
    return second


def shape_arithmetic(g: Grower, x: Tensor) -> Tensor:
    """A Reshape to a shape computed from the tensor, as exporters write it."""
    shape = g.node("Shape", [x.name], (len(x.dims),))
    first = g.node("Gather", [shape.name, g.integers([0])], (1,), axis=0)
    target = g.node("Concat", [first.name, g.integers([-1])], (2,), axis=0)
    return g.node("Reshape", [x.name, target.name], (x.dims[0], int(np.prod(x.dims[1:]))))


def expanded(g: Grower, x: Tensor) -> Tensor:
    kind = g.choose(["own", "ones", "shape", "Tile"])
    if kind == "Tile":
        return g.node("Tile", [x.name, g.integers([1] * len(x.dims))], x.dims)
    if kind == "shape":
        shape = g.node("Shape", [x.name], (len(x.dims),))
        return g.node("Expand", [x.name, shape.name], x.dims)
    target = [1, *x.dims[1:]] if kind == "own" else [1] * len(x.dims)
    return g.node("Expand", [x.name, g.integers(target)], x.dims)


def softmax(g: Grower, x: Tensor) -> Tensor:
    return g.node("Softmax", [x.name], x.dims, axis=g.choose([1, -1]) if len(x.dims) > 1 else -1)


def layer_norm(g: Grower, x: Tensor) -> Tensor | None:
    if len(x.dims) < 2 or x.dims[-1] < 2:
        return None
    axes = g.choose([[-1], [-1], [1]])
    mean = reduce_mean(g, x, axes, keep=1)
    centred = g.node("Sub", [x.name, mean.name], x.dims)
    if g.choose([True, False]):
        square = g.node("Pow", [centred.name, g.constant(np.array(2.0, g.dtype))], x.dims)
    else:
        square = g.node("Mul", [centred.name, centred.name], x.dims)
    variance = reduce_mean(g, square, axes, keep=1)
    epsilon = g.constant(np.array(1e-2, g.dtype))
    shifted = g.node("Add", [variance.name, epsilon], variance.dims)
    root = g.node("Sqrt", [shifted.name], variance.dims)
    result = g.node("Div", [centred.name, root.name], x.dims)
    if g.choose([True, False]):
        result = g.node("Mul", [result.name, g.constant(g.floats(x.dims[-1]))], x.dims)
        result = g.node("Add", [result.name, g.constant(g.floats(x.dims[-1]))], x.dims)
    return result


def prelu(g: Grower, x: Tensor) -> Tensor:
    slope = g.choose([g.floats(1), np.full((1,), 0.25, g.dtype)])
    if g.choose([True, False]):
        return g.node("PRelu", [x.name, g.constant(slope)], x.dims)
    positive = g.node("Relu", [x.name], x.dims)
    negative = g.node("Relu", [g.node("Neg", [x.name], x.dims).name], x.dims)
    scaled = g.node("Mul", [g.constant(slope), negative.name], x.dims)
    return g.node(g.choose(["Add", "Sub"]), [positive.name, scaled.name], x.dims)


def quantized(g: Grower, x: Tensor) -> Tensor:
    scale, zero = np.array(0.0625, np.float32), np.array(0, np.int8)
    if g.dtype != np.float32:
        return g.node("Identity", [x.name], x.dims)
    again = g.choose([False, True])
    current = x
    for _ in range(2 if again else 1):
        names = [g.constant(scale), g.constant(zero)]
        integers = g.node("QuantizeLinear", [current.name, *names], x.dims)
        current = g.node("DequantizeLinear", [integers.name, *names], x.dims)
    return current


def channel_constant(g: Grower, x: Tensor) -> Tensor:
    """A factor or an addend per channel, or a scalar, which a layer can absorb."""
    shape = g.choose([(), (1,), (1, x.dims[1]) + (1,) * (len(x.dims) - 2)])
    content = g.floats(*shape)
    op = g.choose(["Add", "Mul", "Sub", "Div"])
    if op == "Div":
        content = (np.abs(content) + 0.5).astype(g.dtype)
    names = [x.name, g.constant(content)]
    if op in ("Add", "Mul") and g.choose([False, True]):
        names.reverse()
    return g.node(op, names, x.dims)


def block(g: Grower, x: Tensor) -> Tensor | None:
    """A layer and the operators that usually follow it."""
    layer = g.choose([convolution, convolution, transposed_convolution, matrix_product])(g, x)
    if layer is None or len(layer.dims) < 2:
        return layer
    for _ in range(g.choose([1, 2, 3])):
        if g.choose([False] * 5 + [True]):
            g.pool.append(layer)  # other nodes may read it
        layer = g.choose([channel_constant, channel_constant, batch_norm, clamp, unary])(g, layer)
    return layer


def branch(g: Grower, x: Tensor) -> Tensor:
    """An If whose branches read an outer tensor and use the same inner names."""
    bodies = []
    for op in ("Relu", "Neg"):
        output = helper.make_tensor_value_info(
            "branch_out", helper.np_dtype_to_tensor_dtype(g.dtype), None
        )
        steps = [
            helper.make_node(op, [x.name], ["inner"]),
            helper.make_node("Identity", ["inner"], ["branch_out"]),
        ]
        bodies.append(helper.make_graph(steps, "branch", [], [output]))
    condition = g.name("condition")
    if g.choose([True, False]):
        g.weights.append(numpy_helper.from_array(np.array(g.choose([True, False])), condition))
    else:
        g.extra_inputs.append(helper.make_tensor_value_info(condition, TensorProto.BOOL, []))
    return g.node("If", [condition], x.dims, then_branch=bodies[0], else_branch=bodies[1])


STEPS = [
    unary, clamp, with_constant, with_constant, two_tensors, convolution, convolution,
    transposed_convolution, batch_norm, batch_norm, pooling, permuted, permuted, reshaped, reshaped,
    matrix_product, cut, concat_and_split, shape_arithmetic, expanded, softmax, layer_norm, prelu,
    quantized, branch, block, block, block, block,
]  # fmt: skip


def grow(choose: Callable[[Sequence[Any]], Any], seed: int) -> onnx.ModelProto:
    """Grow a network of up to a dozen steps."""
    dtype = np.dtype(choose([np.float32, np.float32, np.float32, np.float16]))
    random = np.random.default_rng(seed)
    g = Grower(choose, choose([13, 15, 17, 18, 20, 21]), dtype, random)
    start = choose(
        [(BATCH, 4, 6, 6), (BATCH, 4, 4, 4), (BATCH, 4, 8), (BATCH, 8), (BATCH, 2, 6, 4)]
    )
    g.pool.append(Tensor("x", start))
    for _ in range(choose(range(1, 13))):
        chosen = g.pick()
        step = choose(STEPS)
        if chosen is None or int(np.prod(chosen.dims)) > 4000:
            continue
        made = step(g, chosen)
        if made is not None:
            g.pool.append(made)
    return finish(g, start)


def finish(g: Grower, start: tuple[int, ...]) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(g.dtype)
    made = [t for t in g.pool if t.name != "x"]
    if not made:
        made = [g.node("Relu", ["x"], start)]
    read = {name for node in g.nodes for name in node.input}
    leaves = [t for t in made if t.name not in read][-3:]
    outputs = {t.name: len(t.dims) for t in (*leaves, g.choose(made))}
    symbolic = g.choose([False, True])
    dims = ["n" if symbolic else BATCH, *start[1:]]
    graph = helper.make_graph(
        g.nodes,
        "random",
        [helper.make_tensor_value_info("x", kind, dims), *g.extra_inputs],
        [
            helper.make_tensor_value_info(name, kind, [None] * rank)
            for name, rank in outputs.items()
        ],
        g.weights,
    )
    opset = helper.make_opsetid("", g.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)
