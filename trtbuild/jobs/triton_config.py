"""Triton's ``config.pbtxt``: inputs and outputs of a model, in the text form of ``inference.ModelConfig``.

Source: NVIDIA, *Triton Inference Server: Model Configuration*, ``model_config.proto``, and the checks that
its backends for TensorRT and ONNX Runtime make when they load a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trtbuild.model.signature import TensorSpec

__all__ = ["ONNX_RUNTIME", "TENSORRT", "ModelConfig", "TritonBackend", "TritonTensor", "described"]

_COMMON_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
}


@dataclass(frozen=True)
class TritonBackend:
    """A backend of Triton.

    Attributes:
        name: its name.
        platform: its older name.
        file: name of a model file.
        device: kind of its instances.
        dtypes: NumPy's name of a type -> Triton's, for all types that the backend accepts.
        takes_scalars: whether a tensor without axes may be an input or an output.
    """

    name: str
    platform: str
    file: str
    device: str
    dtypes: dict[str, str]
    takes_scalars: bool


TENSORRT = TritonBackend(
    "tensorrt", "tensorrt_plan", "model.plan", "KIND_GPU",
    {**_COMMON_TYPES, "bfloat16": "TYPE_BF16"}, takes_scalars=False,
)  # fmt: skip
ONNX_RUNTIME = TritonBackend(
    "onnxruntime", "onnxruntime_onnx", "model.onnx", "KIND_CPU",
    {**_COMMON_TYPES, "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32", "uint64": "TYPE_UINT64",
     "int16": "TYPE_INT16", "float64": "TYPE_FP64"}, takes_scalars=True,
)  # fmt: skip


@dataclass(frozen=True)
class TritonTensor:
    """An input or output.

    Attributes:
        name: name of the tensor.
        data_type: Triton's type, such as ``TYPE_FP32``.
        dims: dims in requests, without the batch axis if the model batches; -1 for a dynamic dim.
        is_vector_of_samples: whether the model has one number per sample, with no axis besides the batch.
        holds_a_shape: whether TensorRT reads it in host memory.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    is_vector_of_samples: bool = False
    holds_a_shape: bool = False

    def text(self) -> str:
        """Return it in protobuf's text form."""
        dims = ", ".join(map(str, self.dims))
        parts = [f"name: {_quoted(self.name)}", f"data_type: {self.data_type}", f"dims: [ {dims} ]"]
        if self.is_vector_of_samples:
            parts.append("reshape { shape: [ ] }")
        if self.holds_a_shape:
            parts.append("is_shape_tensor: true")
        return "  {\n" + "".join(f"    {part}\n" for part in parts) + "  }"


@dataclass(frozen=True)
class ModelConfig:
    """A model as Triton serves it.

    Attributes:
        name: name of the model and of its folder.
        backend: the backend that runs it.
        inputs: its inputs.
        outputs: its outputs.
        max_batch_size: how many samples Triton may join into one run; 0 if requests bring whole batches.
        instances: number of instances on each device.
        num_profiles: number of optimization profiles of a plan.
        dla_core: the DLA core that a plan was built for; None for the GPU.
    """

    name: str
    backend: TritonBackend
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]
    max_batch_size: int
    instances: int = 1
    num_profiles: int = 1
    dla_core: int | None = None

    def text(self) -> str:
        """Return the content of ``config.pbtxt``."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"name: {_quoted(self.name)}"
        yield f"platform: {_quoted(self.backend.platform)}"
        yield f"backend: {_quoted(self.backend.name)}"
        yield f"max_batch_size: {self.max_batch_size}"
        yield _block("input", self.inputs)
        yield _block("output", self.outputs)
        yield f"instance_group [\n  {{\n{''.join(f'    {part}{chr(10)}' for part in self._group())}  }}\n]"
        if self.max_batch_size > 1:
            yield "dynamic_batching { }"

    def _group(self) -> Iterator[str]:
        yield f"count: {self.instances}"
        yield f"kind: {self.backend.device}"
        if self.num_profiles > 1:
            yield f"profile: [ {', '.join(_quoted(str(n)) for n in range(self.num_profiles))} ]"
        if self.dla_core is not None:
            yield f"secondary_devices [ {{ kind: KIND_NVDLA device_id: {self.dla_core} }} ]"


def described(
    spec: TensorSpec, backend: TritonBackend, *, batches: bool, shapes: Iterable[str] = ()
) -> TritonTensor:
    """Return an input or output as Triton describes it.

    Args:
        spec: the network's input or output; axis 0 is its batch axis if the model batches.
        backend: the backend that will run it.
        batches: whether Triton adds the batch axis.
        shapes: names of inputs that hold a shape.

    Raises:
        OptionError: the backend does not accept its type, its shape, or an empty axis.
    """
    if spec.dtype.name not in backend.dtypes:
        raise OptionError(
            f"'{spec.name}' is {spec.dtype.name}, which Triton's backend {backend.name} does not take; build "
            "the engine with inputs and outputs of another type."
        )
    if not spec.dims and not backend.takes_scalars:
        raise OptionError(
            f"'{spec.name}' is a scalar, or its rank is not known, and Triton's backend {backend.name} takes "
            "neither; give it one axis in the network, for example by a Reshape to [1]."
        )
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in spec.dims[batches:])
    if 0 in dims:
        raise OptionError(f"an axis of '{spec.name}' is 0 long; Triton serves no empty tensors.")
    holds_a_shape = spec.name in set(shapes)
    bare = batches and not dims
    return TritonTensor(
        spec.name, backend.dtypes[spec.dtype.name], dims or (1,), bare, holds_a_shape
    )


def _block(name: str, tensors: Sequence[TritonTensor]) -> str:
    return f"{name} [\n" + ",\n".join(tensor.text() for tensor in tensors) + "\n]"


def _quoted(text: str) -> str:
    """Return a string in protobuf's text form: bytes that are not printable ASCII in octal."""
    known = {ord('"'): '\\"', ord("\\"): "\\\\"}
    return '"' + "".join(
        known.get(byte, chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text.encode()
    ) + '"'  # fmt: skip
