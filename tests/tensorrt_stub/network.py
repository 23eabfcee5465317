"""Networks in the stand-in: parser, tensors, layers."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx.shape_inference
from google.protobuf.message import DecodeError

from tests.tensorrt_stub.native import Dims, Native, boolean, i32, ptr, size, text, u32, virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA_TYPES = {
    1: 0,
    10: 1,
    3: 2,
    6: 3,
    9: 4,
    2: 5,
    16: 7,
    7: 8,
}  # ONNX element type -> nvinfer1::DataType
LAYER_TYPES = {"Conv": 0, "Relu": 2, "MaxPool": 3, "Concat": 8, "Add": 9, "Reshape": 13, "Flatten": 13,
               "Transpose": 13, "Gemm": 17, "MatMul": 17, "Identity": 20, "QuantizeLinear": 32,
               "DequantizeLinear": 33, "Cast": 1}  # fmt: skip


NO_PLUGIN = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
INVALID_VALUE, INVALID_NODE = 4, 6  # of ErrorCode of the parser


class Tensor(Native):
    interface = "ITensor"

    def __init__(self, world: Any, name: str, dtype: int, dims: tuple[int, ...], role: str) -> None:
        super().__init__(world)
        self._name, self._dtype, self.dims, self.role = name, dtype, dims, role

    @virtual(text)
    def name(self) -> str:
        return self._name

    @virtual(Dims)
    def shape(self) -> tuple[int, ...]:
        return self.dims

    @virtual(i32)
    def dtype(self) -> int:
        return self._dtype

    @virtual(boolean)
    def is_network_input(self) -> bool:
        return self.role == "input"

    @virtual(boolean)
    def is_network_output(self) -> bool:
        return self.role == "output"

    @virtual(boolean)
    def is_shape_tensor(self) -> bool:
        return self._name in self.world.shape_inputs


class Layer(Native):
    interface = "ILayer"

    def __init__(self, world: Any, node: Any, tensors: dict[str, Tensor]) -> None:
        super().__init__(world)
        self.node = node
        self.inputs = [tensors.get(name) for name in node.input]
        self.outputs = [tensors[name] for name in node.output]

    @virtual(i32)
    def type(self) -> int:
        return LAYER_TYPES.get(self.node.op_type, 11)

    @virtual(text)
    def name(self) -> str:
        return str(self.node.name)

    @virtual(i32)
    def num_inputs(self) -> int:
        return len(self.inputs)

    @virtual(ptr, i32)
    def get_input(self, index: int) -> Tensor | None:
        return self.inputs[index] if 0 <= index < len(self.inputs) else None

    @virtual(i32)
    def num_outputs(self) -> int:
        return len(self.outputs)

    @virtual(ptr, i32)
    def get_output(self, index: int) -> Tensor | None:
        return self.outputs[index] if 0 <= index < len(self.outputs) else None


class Network(Native):
    interface = "INetworkDefinition"

    def __init__(self, world: Any, flags: int) -> None:
        super().__init__(world)
        self.creation_flags = flags
        self.model = b""
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []

    def fill(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model).graph
        tensors = {}
        constants = {tensor.name for tensor in graph.initializer}
        for value, role in (*((v, "input") for v in graph.input), *((v, "output") for v in graph.output),
                            *((v, "") for v in graph.value_info)):  # fmt: skip
            if value.name not in constants:
                kind = value.type.tensor_type
                dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
                tensors[value.name] = Tensor(
                    self.world, value.name, DATA_TYPES[kind.elem_type], dims, role
                )
        for node in graph.node:
            for name in node.output:
                tensors.setdefault(name, Tensor(self.world, name, 0, (), ""))
        self.inputs = [tensors[v.name] for v in graph.input if v.name not in constants]
        self.outputs = [tensors[v.name] for v in graph.output]
        self.layers = [Layer(self.world, node, tensors) for node in graph.node]
        self.model = model.SerializeToString()

    @virtual(u32)
    def flags(self) -> int:
        return self.creation_flags

    @virtual(text)
    def name(self) -> str:
        return "network"

    @virtual(i32)
    def num_layers(self) -> int:
        return len(self.layers)

    @virtual(ptr, i32)
    def get_layer(self, index: int) -> Layer | None:
        return self._at(self.layers, index)

    def _at(self, parts: Sequence[Any], index: int) -> Any:
        """The item at an index; beyond the ends, none and a line in the log."""
        if 0 <= index < len(parts):
            return parts[index]
        self.world.log("ERROR", f"Parameter check failed, condition: index {index}")
        return None

    @virtual(i32)
    def num_inputs(self) -> int:
        return len(self.inputs)

    @virtual(ptr, i32)
    def get_input(self, index: int) -> Tensor | None:
        return self._at(self.inputs, index)

    @virtual(i32)
    def num_outputs(self) -> int:
        return len(self.outputs)

    @virtual(ptr, i32)
    def get_output(self, index: int) -> Tensor | None:
        return self._at(self.outputs, index)


class PluginRegistry(Native):
    interface = "IPluginRegistry"

    @virtual(ptr, text)
    def load_library(self, path: str) -> int:
        if not Path(path).is_file() or not Path(path).read_bytes().startswith(b"PLUGIN"):
            self.world.log("ERROR", f"Unable to load library: {path}: invalid ELF header")
            return 0
        return self.address


class ParserError(Native):
    interface = "IParserError"

    def __init__(self, world: Any, node: Any, index: int, said: str = "") -> None:
        super().__init__(world)
        self.at, self.index = node, index
        self.said = said or NO_PLUGIN

    @virtual(i32)
    def code(self) -> int:
        return INVALID_NODE if self.at else INVALID_VALUE

    @virtual(text)
    def desc(self) -> str:
        return self.said

    @virtual(text)
    def file(self) -> str:
        return "ModelImporter.cpp"

    @virtual(i32)
    def line(self) -> int:
        return 1

    @virtual(text)
    def func(self) -> str:
        return "checkFallbackPluginImporter" if self.at else "parseFromFile"

    @virtual(i32)
    def node(self) -> int:
        return self.index

    @virtual(text)
    def node_name(self) -> str:
        return str(self.at.name) if self.at else ""

    @virtual(text)
    def node_operator(self) -> str:
        return str(self.at.op_type) if self.at else ""


class OnnxParser(Native):
    interface = "OnnxParser"

    def __init__(self, world: Any, network: int) -> None:
        super().__init__(world)
        self.network: Network = Native.of(network)
        self.found: list[ParserError] = []
        self.parser_flags = 1  # NATIVE_INSTANCENORM, which is on by default

    def _take(self, content: bytes, model: onnx.ModelProto | None = None) -> bool:
        """Parse a network; `model` is `content` with the weights of files beside it."""
        if self.network.layers:
            self.world.log("ERROR", "Parse was called with a non-empty network definition")
            return False
        try:
            model = model or onnx.load_from_string(content)
        except DecodeError:  # the real parser reads this as a network without nodes
            return True
        self.found = [
            ParserError(self.world, node, index)
            for index, node in enumerate(model.graph.node)
            if node.op_type in self.world.unsupported
        ]
        if not self.found:
            self.network.fill(model)
        return not self.found

    @virtual(boolean, ptr, size, text)
    def parse(self, data: int, count: int, path: str | None) -> bool:
        return self._take(ctypes.string_at(data, count))

    @virtual(boolean, text, i32)
    def parse_from_file(self, path: str, verbosity: int) -> bool:
        if not Path(path).is_file():
            said = "Assertion failed: S_ISREG(sb.st_mode): Input file cannot be opened"
            self.world.log("ERROR", said)
            self.found = [ParserError(self.world, None, -1, said)]
            return False
        content = Path(path).read_bytes()
        with contextlib.suppress(DecodeError):
            return self._take(content, onnx.load(Path(path)))
        return self._take(content)

    @virtual(None)
    def clear_errors(self) -> None:
        self.found = []

    @virtual(i32)
    def num_errors(self) -> int:
        return len(self.found)

    @virtual(ptr, i32)
    def get_error(self, index: int) -> ParserError | None:
        return self.found[index] if 0 <= index < len(self.found) else None

    @virtual(None, u32)
    def set_flags(self, flags: int) -> None:
        self.parser_flags = flags

    @virtual(u32)
    def flags(self) -> int:
        return self.parser_flags

    @virtual(None, i32)
    def set_flag(self, flag: int) -> None:
        self.parser_flags |= 1 << flag % 32  # the real parser does not check the flag
