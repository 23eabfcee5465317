"""One case per operator: its ONNX text, and the shapes of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A network of a few nodes.

    Attributes:
        body: nodes that end in y.
        inputs: float inputs, by which gradients are taken.
        constants: float constants: a shape, filled at random, or the array itself.
        low, high: range of the inputs' values; distances between values are far above the difference step.
        opset: of the ONNX domain.
    """

    body: str
    inputs: dict[str, Shape]
    constants: dict[str, Shape | np.ndarray] = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0
    opset: int = 17

    def values(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Values of the inputs in float64, pairwise different within each input."""
        rng = np.random.default_rng(seed)
        found = {}
        for name, shape in self.inputs.items():
            count = int(np.prod(shape))
            steps = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
            found[name] = (self.low + (self.high - self.low) * steps).reshape(shape)
        return found

    def proto(self, dtype: type[np.floating], *, dynamic: bool = False) -> onnx.ModelProto:
        """The network in one element type; `dynamic` gives every dim of the inputs a name."""
        kind = "float" if dtype is np.float32 else "double"
        rng = np.random.default_rng(1)
        arrays = {
            name: rng.uniform(0.5, 1.5, item) * rng.choice([-1, 1], item)
            if isinstance(item, tuple)
            else item
            for name, item in self.constants.items()
        }
        dims = {
            name: ",".join(f"{name}{i}" if dynamic else str(n) for i, n in enumerate(shape))
            for name, shape in self.inputs.items()
        }
        declared = ", ".join(f"{kind}[{text}] {name}" for name, text in dims.items())
        text = (
            f'<ir_version: 10, opset_import: ["": {self.opset}]>\n'
            f"case ({declared}) => ({kind}[] y) {{\n{self.body}\n}}"
        )
        proto = onnx.parser.parse_model(text.replace("TYPE", "1" if dtype is np.float32 else "11"))
        del proto.graph.output[0].type.tensor_type.shape.dim[:]
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        for name, array in arrays.items():
            content = array.astype(dtype) if array.dtype.kind == "f" else array
            proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
        return proto

    def model(self, *, dynamic: bool = False) -> ir.Model:
        """The network in float32."""
        return ir.from_proto(self.proto(np.float32, dynamic=dynamic))


def unary(operator: str, low: float = -2.0, high: float = 2.0, opset: int = 17) -> Case:
    return Case(f"y = {operator} (x)", {"x": (2, 7)}, low=low, high=high, opset=opset)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


IMAGE = {"x": (2, 4, 7, 6)}

ELEMENTWISE = {
    **{name: unary(name) for name in (
        "Abs", "Neg", "Exp", "Erf", "Sin", "Cos", "Sinh", "Cosh", "Tanh", "Sigmoid", "Atan", "Asinh", "Relu",
        "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Identity",
        "ThresholdedRelu", "LogSoftmax", "Softmax",
    )},
    **{name: unary(name, 0.2, 3.0) for name in ("Sqrt", "Log", "Reciprocal")},
    **{name: unary(name, -0.9, 0.9) for name in ("Asin", "Acos", "Atanh", "Tan")},
    "Acosh": unary("Acosh", 1.2, 3.0),
    "HardSwish wide": unary("HardSwish", -5.0, 5.0),
    "HardSigmoid wide": unary("HardSigmoid <alpha = 0.3, beta = 0.4>", -5.0, 5.0),
    "Elu alpha": unary("Elu <alpha = 0.4>"),
    "Gelu": unary("Gelu", opset=20),
    "Gelu tanh": unary('Gelu <approximate = "tanh">', opset=20),
    "Mish": unary("Mish", opset=18),
    "Swish": unary("Swish <alpha = 1.5>", opset=24),
    "Softmax axis": Case("y = Softmax <axis = 1> (x)", {"x": (2, 3, 4)}),
    "LogSoftmax axis": Case("y = LogSoftmax <axis = 0> (x)", {"x": (2, 3, 4)}),
    "Clip": Case("y = Clip (x, lo, hi)", {"x": (2, 9)}, {"lo": np.array(-0.5), "hi": np.array(1.0)}),
    "Clip above": Case("y = Clip (x, , hi)", {"x": (2, 9)}, {"hi": np.array(1.0)}),
    "PRelu": Case("y = PRelu (x, s)", {"x": (2, 3, 4), "s": (3, 1)}),
}  # fmt: skip

_PAIRS = {
    "same": {"a": (2, 3), "b": (2, 3)},
    "scalar": {"a": (2, 3), "b": ()},
    "row": {"a": (2, 1, 3), "b": (4, 1)},
    "longer": {"a": (3,), "b": (2, 4, 1)},
}
BROADCASTING = {
    **{
        f"{operator} {name}": Case(f"y = {operator} (a, b)", pair, low=0.3, high=2.0)
        for operator in ("Add", "Sub", "Mul", "Div", "Pow")
        for name, pair in _PAIRS.items()
    },
    **{
        f"{operator} of three": Case(
            f"y = {operator} (a, b, c)", {"a": (2, 3), "b": (3,), "c": (2, 1)}
        )
        for operator in ("Sum", "Mean", "Max", "Min")
    },
    "Min of one": Case("y = Min (a)", {"a": (2, 3)}),
    "Pow by a constant": Case("y = Pow (x, e)", {"x": (2, 5)}, {"e": np.array(2.0)}),
    "Pow by an integer": Case("y = Pow (x, e)", {"x": (2, 5)}, {"e": ints(3)}),
    "Mod": Case("y = Mod <fmod = 1> (x, m)", {"x": (2, 5)}, {"m": np.array(0.7)}),
    "Where": Case(
        "y = Where (c, a, b)", {"a": (2, 3), "b": (1, 3)}, {"c": np.array([[True], [False]])}
    ),
    "Where by comparison": Case(
        "z = Sub (x, x)\nc = Greater (x, z)\ns = Mul (x, x)\ny = Where (c, s, x)", {"x": (3, 4)}
    ),
}

LINEAR = {
    "MatMul": Case("y = MatMul (a, b)", {"a": (2, 3), "b": (3, 4)}),
    "MatMul batch": Case("y = MatMul (a, b)", {"a": (2, 5, 2, 3), "b": (5, 3, 4)}),
    "MatMul broadcast": Case("y = MatMul (a, b)", {"a": (2, 1, 2, 3), "b": (1, 5, 3, 4)}),
    "MatMul shared right": Case("y = MatMul (a, b)", {"a": (2, 5, 2, 3), "b": (3, 4)}),
    "MatMul shared left": Case("y = MatMul (a, b)", {"a": (2, 3), "b": (4, 3, 5)}),
    "MatMul row": Case("y = MatMul (a, b)", {"a": (3,), "b": (2, 3, 4)}),
    "MatMul column": Case("y = MatMul (a, b)", {"a": (2, 4, 3), "b": (3,)}),
    "MatMul dot": Case("y = MatMul (a, b)", {"a": (3,), "b": (3,)}),
    **{
        f"Gemm {ta}{tb}": Case(
            f"y = Gemm <transA = {ta}, transB = {tb}, alpha = 0.5, beta = 2.0> (a, b, c)",
            {"a": (3, 2) if ta else (2, 3), "b": (4, 3) if tb else (3, 4), "c": (4,)},
        )
        for ta in (0, 1)
        for tb in (0, 1)
    },
    "Einsum": Case(
        'y = Einsum <equation = "bhid,bhjd->bhij"> (a, b)', {"a": (1, 2, 3, 4), "b": (1, 2, 5, 4)}
    ),
    "Einsum sum": Case('y = Einsum <equation = "ij,k->k"> (a, b)', {"a": (3, 4), "b": (2,)}),
}

POOLING = {
    "MaxPool": Case("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", IMAGE),
    "MaxPool overlapping": Case(
        "y = MaxPool <kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1]> (x)", IMAGE
    ),
    "MaxPool ceil": Case(
        "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)", IMAGE
    ),
    "MaxPool 1d": Case("y = MaxPool <kernel_shape = [3], strides = [2]> (x)", {"x": (2, 3, 8)}),
    "AveragePool": Case("y = AveragePool <kernel_shape = [2, 3], strides = [2, 3]> (x)", IMAGE),
    "AveragePool pads": Case(
        "y = AveragePool <kernel_shape = [3, 3], strides = [2, 1], pads = [1, 1, 1, 1]> (x)", IMAGE
    ),
    "AveragePool pads count": Case(
        "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 1, 1],"
        " count_include_pad = 1> (x)",
        IMAGE,
    ),
    "AveragePool ceil": Case(
        "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", IMAGE
    ),
    "AveragePool same": Case(
        'y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)',
        IMAGE,
    ),
    "GlobalAveragePool": Case("y = GlobalAveragePool (x)", IMAGE),
    "GlobalMaxPool": Case("y = GlobalMaxPool (x)", IMAGE),
}

REDUCTIONS = {
    **{
        f"{operator} {keep}": Case(
            f"y = {operator} <axes = [1, -1], keepdims = {keep}> (x)", {"x": (2, 3, 4, 2)}, low=0.2
        )
        for keep in (0, 1)
        for operator in (
            "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
            "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
        )
    },
    "ReduceSum": Case("y = ReduceSum <keepdims = 0> (x, a)", {"x": (2, 3, 4)}, {"a": ints(1)}),
    "ReduceSum all": Case("y = ReduceSum <keepdims = 0> (x)", {"x": (2, 3, 4)}),
    "ReduceSum none": Case("y = ReduceSum <noop_with_empty_axes = 1> (x)", {"x": (2, 3, 4)}),
    "ReduceMax all": Case("y = ReduceMax (x)", {"x": (2, 3, 4)}),
    "ReduceMean 18": Case("y = ReduceMean (x, a)", {"x": (2, 3, 4)}, {"a": ints(-1, 0)}, opset=18),
}  # fmt: skip

MOVEMENT = {
    "Reshape": Case("y = Reshape (x, s)", {"x": (2, 3, 4)}, {"s": ints(0, -1)}),
    "Flatten": Case("y = Flatten <axis = 2> (x)", {"x": (2, 3, 4)}),
    "Squeeze": Case("y = Squeeze (x, a)", {"x": (2, 1, 4)}, {"a": ints(1)}),
    "Unsqueeze": Case("y = Unsqueeze (x, a)", {"x": (2, 4)}, {"a": ints(1, -1)}),
    "Transpose": Case("y = Transpose <perm = [1, 2, 0]> (x)", {"x": (2, 3, 4)}),
    "Transpose all": Case("y = Transpose (x)", {"x": (2, 3, 4)}),
    "Expand": Case("y = Expand (x, s)", {"x": (2, 1, 4)}, {"s": ints(5, 1, 3, 1)}),
    "Tile": Case("y = Tile (x, r)", {"x": (2, 3)}, {"r": ints(2, 3)}),
    "Concat": Case("y = Concat <axis = 1> (a, b, a)", {"a": (2, 3), "b": (2, 1)}),
    "Concat with a constant": Case(
        "y = Concat <axis = -1> (k, a)", {"a": (2, 3)}, {"k": (2, 2)}
    ),
    "Split": Case("a, b = Split <axis = 1> (x, s)\ny = Mul (a, b)", {"x": (2, 4)}, {"s": ints(2, 2)}),
    "Split unused": Case("a, y, b = Split <axis = 1> (x, s)", {"x": (2, 6)}, {"s": ints(2, 3, 1)}),
    "Slice": Case(
        "y = Slice (x, s, e, a)", {"x": (4, 5)}, {"s": ints(1, -3), "e": ints(3, 99), "a": ints(0, -1)}
    ),
    "Slice steps": Case(
        "y = Slice (x, s, e, a, t)", {"x": (4, 7)},
        {"s": ints(1, -1), "e": ints(99, -99), "a": ints(0, 1), "t": ints(2, -3)},
    ),
    "Slice all axes": Case("y = Slice (x, s, e)", {"x": (4, 5)}, {"s": ints(1, 2), "e": ints(2, 4)}),
    "Slice of computed bounds": Case(
        "h = Shape <start = 1> (x)\nt = Div (h, two)\ny = Slice (x, zero, t, one)", {"x": (2, 7)},
        {"two": ints(2), "zero": ints(0), "one": ints(1)},
    ),
    "Pad": Case("y = Pad (x, p)", {"x": (2, 3)}, {"p": ints(1, 0, 0, 2)}),
    "Pad axes": Case(
        "y = Pad (x, p, , a)", {"x": (2, 3)}, {"p": ints(1, 2), "a": ints(-1)}, opset=18
    ),
    "Pad reflect": Case('y = Pad <mode = "reflect"> (x, p)', {"x": (4, 3)}, {"p": ints(2, 1, 1, 2)}),
    "Pad edge": Case('y = Pad <mode = "edge"> (x, p)', {"x": (4, 3)}, {"p": ints(2, 0, 1, 2)}),
    "Gather rows": Case("y = Gather (x, i)", {"x": (4, 3)}, {"i": ints(1, 3, 1)}),
    "Gather inside": Case(
        "y = Gather <axis = 1> (x, i)", {"x": (2, 4, 3)}, {"i": ints(1, -1, 1, 0).reshape(2, 2)}
    ),
    "Gather one": Case("y = Gather <axis = -1> (x, i)", {"x": (2, 4)}, {"i": np.array(2)}),
    "GatherElements": Case(
        "y = GatherElements <axis = 1> (x, i)", {"x": (2, 3)}, {"i": ints(0, 0, 2, 1).reshape(2, 2)}
    ),
    "GatherND": Case("y = GatherND (x, i)", {"x": (2, 3)}, {"i": ints(0, 1, 1, 2, 0, 1).reshape(3, 2)}),
    "ScatterND": Case(
        "y = ScatterND (x, i, u)", {"x": (4, 3), "u": (2, 3)}, {"i": ints(1, 3).reshape(2, 1)}
    ),
    "ScatterElements": Case(
        "y = ScatterElements <axis = 0> (x, i, u)", {"x": (4, 3), "u": (1, 3)},
        {"i": ints(1, 0, 3).reshape(1, 3)},
    ),
    "TopK": Case("y, i = TopK (x, k)", {"x": (2, 6)}, {"k": ints(3)}),
    "DepthToSpace": Case("y = DepthToSpace <blocksize = 2> (x)", {"x": (1, 8, 2, 3)}),
    "DepthToSpace CRD": Case(
        'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)', {"x": (2, 8, 2, 3)}
    ),
    "SpaceToDepth": Case("y = SpaceToDepth <blocksize = 2> (x)", {"x": (1, 2, 4, 6)}),
    "Dropout": Case("y = Dropout (x)", {"x": (2, 3)}),
    "Cast": Case("d = Cast <to = 11> (x)\ns = Mul (d, d)\ny = CastLike (s, x)", {"x": (2, 3)}),
}  # fmt: skip

RESAMPLING = {
    f"Resize {mode} {rule} by {by}": Case(
        f'y = Resize <mode = "{mode}", coordinate_transformation_mode = "{rule}",'
        f' nearest_mode = "floor"> (x, , {operands})',
        {"x": (1, 2, 3, 4)},
        constant,
        opset=13,
    )
    for mode in ("nearest", "linear", "cubic")
    for rule in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for by, operands, constant in (
        ("scales", "f", {"f": np.array([1.0, 1.0, 2.0, 1.5], np.float32)}),
        ("sizes", ", s", {"s": ints(1, 2, 7, 2)}),
    )
    if not (mode == "cubic" and by == "sizes")
}

NORMALIZATION = {
    "BatchNormalization": Case(
        "y = BatchNormalization (x, s, b, m, v)", IMAGE,
        {"s": (4,), "b": (4,), "m": (4,), "v": np.array([0.3, 1.0, 2.0, 0.7])},
    ),
    "LayerNormalization": Case(
        "y = LayerNormalization <axis = -2> (x, s, b)", {"x": (2, 3, 4)}, {"s": (3, 4), "b": (3, 4)}
    ),
    "InstanceNormalization": Case(
        "y = InstanceNormalization (x, s, b)", IMAGE, {"s": (4,), "b": (4,)}
    ),
    "GroupNormalization": Case(
        "y = GroupNormalization <num_groups = 2, stash_type = TYPE> (x, s, b)", IMAGE,
        {"s": (4,), "b": (4,)}, opset=21
    ),
    "RMSNormalization": Case("y = RMSNormalization (x, s)", {"x": (2, 3, 4)}, {"s": (4,)}, opset=23),
    "LRN": Case("y = LRN <size = 3, alpha = 0.5, beta = 0.75, bias = 1.0> (x)", IMAGE),
    "LRN even": Case("y = LRN <size = 2, alpha = 0.5> (x)", IMAGE),
    "Attention": Case(
        "y = Attention (q, k, v)",
        {"q": (1, 2, 3, 4), "k": (1, 2, 5, 4), "v": (1, 2, 5, 4)}, opset=23,
    ),
}  # fmt: skip

CASES = {
    **ELEMENTWISE,
    **BROADCASTING,
    **LINEAR,
    **POOLING,
    **REDUCTIONS,
    **MOVEMENT,
    **RESAMPLING,
    **NORMALIZATION,
}
