"""The run side of the stand-in: runtime, engine, execution context, inspector."""

from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference

from tests.tensorrt_stub import slots
from tests.tensorrt_stub.native import (
    Dims,
    Native,
    boolean,
    i32,
    i64,
    invoke,
    ptr,
    size,
    text,
    virtual,
)
from tests.tensorrt_stub.network import DATA_TYPES
from tests.tensorrt_stub.world import MAGIC, plan_of, read_plan

PART = 4096  # bytes of a plan per read

NUMPY = {
    0: np.float32,
    1: np.float16,
    2: np.int8,
    3: np.int32,
    4: np.bool_,
    5: np.uint8,
    8: np.int64,
}
FORMS = {
    "int8": ("Int8", "Thirty-two wide channel vectorized row major Int8 format"),
    "fp16": ("Half", "Channel major FP16 format where channel % 8 == 0"),
    "fp32": ("Float", "Row major linear FP32"),
}
WORK = ctypes.CFUNCTYPE(None, ptr)


class Runtime(Native):
    interface = "Runtime"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.allowed = False

    @virtual(None, boolean)
    def set_engine_host_code_allowed(self, allowed: bool) -> None:
        self.allowed = allowed

    @virtual(boolean)
    def engine_host_code_allowed(self) -> bool:
        return self.allowed

    @virtual(ptr, ptr, size)
    def deserialize_cuda_engine(self, blob: int, count: int) -> Engine | None:
        return self._engine(ctypes.string_at(blob, count))

    @virtual(ptr, ptr)
    def deserialize_from_stream(self, reader: int) -> Engine | None:
        """Read the length, go back to the start, and read the whole plan."""
        line = self._read(reader, len(plan_of({}, b"")) - 3)
        left = len(line) + int(line[len(MAGIC) :])
        invoke(reader, slots.STREAM_SEEK, boolean, (i64, 0), (i32, 0))
        parts = []
        while left:
            parts.append(self._read(reader, min(PART, left)))
            left -= len(parts[-1])
        return self._engine(b"".join(parts))

    @staticmethod
    def _read(reader: int, count: int) -> bytes:
        buffer = ctypes.create_string_buffer(count)
        to = (ptr, ctypes.addressof(buffer)), (i64, count), (ptr, None)
        read = invoke(reader, slots.STREAM_READ, i64, *to)
        return buffer.raw[: max(0, read)]

    def _engine(self, content: bytes) -> Engine | None:
        if "create.Runtime" in self.world.failing:
            self.world.log("ERROR", "CUDA initialization failure with error: 35")
            return None
        try:
            header, model = read_plan(content)
        except ValueError:
            self.world.log("ERROR", "magicTagRead == kMAGIC_TAG failed. Magic tag does not match")
            return None
        reason = None
        if header["version"] != self.world.number and not header["host_code"]:
            reason = (
                "The engine plan file is not compatible with this version of TensorRT, expecting library "
                f"version {self.world.number} got {header['version']}"
            )
        elif header["device"] != self.world.device:
            reason = "The engine plan file is generated on an incompatible device"
        elif header["host_code"] and not self.allowed:
            reason = "Engine contains host executable code, which is not allowed"
        if reason:
            self.world.log("ERROR", reason)
            return None
        return Engine(self.world, header, model)


class Refitter(Native):
    interface = "Refitter"

    def __init__(self, world: Any, engine: int) -> None:
        super().__init__(world)
        self.engine: Engine = Native.of(engine)
        self.weights = b""

    @virtual(boolean)
    def refit_cuda_engine(self) -> bool:
        self.engine.model = self.weights
        self.engine.header["stripped"] = False
        return True


class OnnxParserRefitter(Native):
    interface = "OnnxParserRefitter"

    def __init__(self, world: Any, refitter: int) -> None:
        super().__init__(world)
        self.refitter: Refitter = Native.of(refitter)

    @virtual(boolean, text)
    def refit_from_file(self, path: str) -> bool:
        self.refitter.weights = Path(path).read_bytes()
        return True


class Engine(Native):
    interface = "ICudaEngine"

    def __init__(self, world: Any, header: dict[str, Any], model: bytes) -> None:
        super().__init__(world)
        self.header, self.model = header, model
        graph = onnx.load_from_string(model).graph
        self.graph = graph
        constants = {tensor.name for tensor in graph.initializer}
        self.roles = {value.name: 1 for value in graph.input if value.name not in constants}
        self.roles |= {value.name: 2 for value in graph.output}
        self.kinds = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}
        self.budget = 0

    def dims(self, name: str) -> tuple[int, ...]:
        shape = self.kinds[name].shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in shape)

    @virtual(i32)
    def num_io_tensors(self) -> int:
        return len(self.roles)

    @virtual(text, i32)
    def get_tensor_name(self, index: int) -> str:
        return list(self.roles)[index]

    @virtual(i32, text)
    def get_tensor_mode(self, name: str) -> int:
        return self.roles.get(name, 0)

    @virtual(i32, text)
    def get_tensor_dtype(self, name: str) -> int:
        return DATA_TYPES[self.kinds[name].elem_type]

    @virtual(Dims, text)
    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.dims(name)

    @virtual(i32, text)
    def get_tensor_location(self, name: str) -> int:
        return int(self.on_host(name))

    @virtual(boolean, text)
    def is_shape_inference_io(self, name: str) -> bool:
        return self.on_host(name)

    def on_host(self, name: str) -> bool:
        return name in self.header["shape_inputs"]

    @virtual(ptr, text, i32, i32)
    def get_tensor_profile_values(self, name: str, profile: int, which: int) -> int:
        values = self.header["values"][profile][name][which]
        return Native.keep(bytes((i64 * len(values))(*values)))

    @virtual(boolean)
    def refittable(self) -> bool:
        return bool(self.header["stripped"])

    @virtual(i32)
    def num_optimization_profiles(self) -> int:
        return max(1, len(self.header["profiles"]))

    @virtual(Dims, text, i32, i32)
    def get_tensor_profile_shape(self, name: str, profile: int, which: int) -> tuple[int, ...]:
        if not self.header["profiles"] or name not in self.header["profiles"][profile]:
            return self.dims(name)
        return tuple(self.header["profiles"][profile][name][which])

    @virtual(i32)
    def num_layers(self) -> int:
        return len(self.graph.node)

    @virtual(i64)
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    @virtual(i64)
    def streamable_weights_size(self) -> int:
        return 4096 if self.header["streaming"] else 0

    @virtual(boolean, i64)
    def set_weight_streaming_budget_v2(self, budget: int) -> bool:
        self.budget = budget
        return True

    @virtual(i64)
    def weight_streaming_budget_v2(self) -> int:
        return self.budget

    @virtual(ptr, i32)
    def create_execution_context(self, strategy: int) -> Context:
        return Context(self.world, self)

    @virtual(ptr)
    def create_engine_inspector(self) -> Inspector:
        return Inspector(self.world, self)


class Context(Native):
    interface = "IExecutionContext"

    def __init__(self, world: Any, engine: Engine) -> None:
        super().__init__(world)
        self.engine = engine
        self.profile = 0
        self.shapes = {name: engine.dims(name) for name, role in engine.roles.items() if role == 1}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, int] = {}
        self.profiler = 0
        self._session: Any = None

    @virtual(ptr)
    def get_engine(self) -> Engine:
        return self.engine

    @virtual(None, ptr)
    def set_profiler(self, profiler: int) -> None:
        self.profiler = profiler

    @virtual(ptr)
    def get_profiler(self) -> int:
        return self.profiler

    @virtual(i32)
    def active_optimization_profile(self) -> int:
        return self.profile

    @virtual(boolean, i32, ptr)
    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    @virtual(boolean, text, ptr)
    def set_input_shape(self, name: str, dims: int) -> bool:
        shape = Dims.at(dims)
        profiles = self.engine.header["profiles"]
        if profiles and name in profiles[self.profile]:
            low, _, high = profiles[self.profile][name]
            if not all(a <= x <= b for a, x, b in zip(low, shape, high, strict=True)):
                self.world.log(
                    "ERROR", f"Static dimension mismatch while setting input shape for {name}"
                )
                return False
        elif shape != self.engine.dims(name):
            self.world.log(
                "ERROR", f"Static dimension mismatch while setting input shape for {name}"
            )
            return False
        self.shapes[name] = shape
        return True

    @virtual(Dims, text)
    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        model = onnx.load_from_string(self.engine.model)
        for value in model.graph.input:
            given = self.shapes.get(value.name, ())
            for dim, extent in zip(value.type.tensor_type.shape.dim, given, strict=False):
                dim.dim_value = extent
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        held = self.held()
        for value in [value for value in model.graph.input if value.name in held]:
            model.graph.input.remove(
                value
            )  # an input could still be overridden, and is no constant
        for hosted, values in held.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, hosted))
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        kind = next(v for v in inferred.graph.output if v.name == name).type.tensor_type
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)

    @virtual(boolean, text, ptr)
    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    @virtual(ptr, text)
    def get_tensor_address(self, name: str) -> int:
        return self.addresses.get(name, 0)

    @virtual(boolean, text, ptr)
    def set_output_allocator(self, name: str, allocator: int) -> bool:
        self.allocators[name] = allocator
        return True

    @virtual(i32, i32, ptr)
    def infer_shapes(self, limit: int, names: int) -> int:
        missing = [
            name
            for name, shape in self.shapes.items()
            if -1 in shape or not self.addresses.get(name)
        ]
        table = (ctypes.c_void_p * max(limit, 1)).from_address(names) if limit else []
        for index, name in enumerate(missing[:limit]):
            table[index] = Native.keep(name.encode())
        return len(missing)

    @virtual(boolean, ptr)
    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.header["stripped"]:
            self.world.log("ERROR", "the weights of a stripped plan are missing")
            return False
        absent = [
            n for n in self.engine.roles if not self.addresses.get(n) and n not in self.allocators
        ]
        if absent:
            self.world.log("ERROR", f"Address is not set for tensor {absent[0]}")
            return False
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        held = self.held()
        driver = ctypes.CDLL("libcuda.so.1")
        if self.allocators or self.profiler:
            driver.cuStreamSynchronize(ptr(stream))
            self._compute(shapes, addresses, stream, held)
            self._report()
            return True
        work = WORK(lambda _: self._compute(shapes, addresses, stream, held))
        Native._kept.append(work)
        driver.standin_enqueue(ptr(stream), work, None)
        return True

    def _report(self) -> None:
        """Report each layer to the profiler: one millisecond for the first, two for the second, and so on."""
        layers = Inspector(self.world, self.engine)._information()["Layers"]
        for place, layer in enumerate(layers if self.profiler else ()):
            name = layer if isinstance(layer, str) else layer["Name"]
            told = (text, name.encode()), (ctypes.c_float, float(place + 1))
            invoke(self.profiler, slots.REPORT_LAYER_TIME[self.world.major], None, *told)

    def held(self) -> dict[str, np.ndarray]:
        """The values of the inputs on the host, at the time of enqueueing an execution."""
        hosted = [name for name in self.shapes if self.engine.on_host(name)]
        return {name: self._array(name, self.shapes, self.addresses).copy() for name in hosted}

    def _array(
        self, name: str, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]
    ) -> np.ndarray:
        dtype = np.dtype(NUMPY[DATA_TYPES[self.engine.kinds[name].elem_type]])
        raw = ctypes.string_at(addresses[name], dtype.itemsize * math.prod(shapes[name]))
        return np.frombuffer(raw, dtype).reshape(shapes[name])

    def _compute(
        self,
        shapes: dict[str, tuple[int, ...]],
        addresses: dict[str, int],
        stream: int,
        held: dict[str, np.ndarray],
    ) -> None:
        import onnxruntime

        if self._session is None:
            options = onnxruntime.SessionOptions()
            # exact products on x86 processors without VNNI, too
            options.add_session_config_entry("session.x64quantprecision", "1")
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(
                self.engine.model, options, providers=["CPUExecutionProvider"]
            )
        feeds = {name: self._array(name, shapes, addresses) for name in shapes} | held
        names = [name for name, role in self.engine.roles.items() if role == 2]
        for name, value in zip(names, self._session.run(names, feeds), strict=True):
            content = np.ascontiguousarray(value).tobytes()
            target = addresses.get(name)
            if name in self.allocators:
                target = self._ask(name, value, stream)
            ctypes.memmove(target, content, len(content))

    def _ask(self, name: str, value: np.ndarray, stream: int) -> int:
        allocator = self.allocators[name]
        wanted = (ctypes.c_uint64, max(1, value.nbytes)), (ctypes.c_uint64, 256)
        at = invoke(
            allocator,
            slots.REALLOCATE_OUTPUT,
            ptr,
            (text, name.encode()),
            (ptr, None),
            *wanted,
            (ptr, stream),
        )
        dims = Dims()
        Dims.write(ctypes.addressof(dims), value.shape)
        invoke(
            allocator,
            slots.NOTIFY_SHAPE,
            None,
            (text, name.encode()),
            (ptr, ctypes.addressof(dims)),
        )
        return int(at or 0)


class Inspector(Native):
    interface = "EngineInspector"

    def __init__(self, world: Any, engine: Engine) -> None:
        super().__init__(world)
        self.engine = engine

    @virtual(boolean, ptr)
    def set_execution_context(self, context: int) -> bool:
        return True

    @virtual(text, i32)
    def get_engine_information(self, form: int) -> str:
        return json.dumps(self._information())

    def _information(self) -> dict[str, Any]:
        graph, header = self.engine.graph, self.engine.header
        nodes = [
            n
            for n in graph.node
            if n.op_type not in ("QuantizeLinear", "DequantizeLinear", "Constant")
        ]
        first = next(iter(self.engine.roles))
        layers: list[Any] = [f"Reformatting CopyNode for Input Tensor 0 to {nodes[0].name}"]
        layers += [n.name for n in nodes]
        if header["detailed"]:
            layers = [self._layer(layers[0], "Reformat", [first], [f"reformatted {first}"], "")]
            layers += [self._layer(n.name, n.op_type, n.input[:1], n.output, n.name) for n in nodes]
        if self.world.major == 10:
            return {"Layers": layers, "Bindings": list(self.engine.roles)}
        io = [
            {"Name": n, "IOMode": "Input" if r == 1 else "Output"}
            for n, r in self.engine.roles.items()
        ]
        return {"Layers": layers, "I/O Tensors": io}

    def _layer(self, name: str, kind: str, inputs: Any, outputs: Any, node: str) -> dict[str, Any]:
        header = self.engine.header
        int8 = header["int8"] and kind in ("Conv", "Gemm", "MatMul")
        of = "int8" if int8 else "fp16" if header["fp16"] else "fp32"
        of_type: dict[str, Any] = {
            "Name": name,
            "LayerType": "CaskConvolution" if kind == "Conv" else kind,
            "Inputs": [self._tensor(n, of) for n in inputs],
            "Outputs": [self._tensor(n, "fp32") for n in outputs],
            "TacticName": f"sm89_{of}_gemm",
            "TacticValue": "0x0000000000000001",
            "StreamId": 0,
            "Metadata": f"[ONNX Layer: {node}]" if node else "",
        }
        if kind == "Conv":
            of_type["Weights"] = {"Type": FORMS[of][0], "Count": 1}
        return of_type

    def _tensor(self, name: str, of: str) -> dict[str, Any]:
        kind, form = FORMS[of]
        about: dict[str, Any] = {"Name": name, "Location": "Device", "Dimensions": []}
        if self.world.major == 10:
            return about | {"Format/Datatype": form}
        return about | {"Format": form, "Datatype": kind}
