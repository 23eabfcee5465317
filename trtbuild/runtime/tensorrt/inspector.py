"""The layers of a built engine: precision, kernel, reformats, and the ONNX nodes that they come from.

TensorRT's inspector writes two forms of JSON. Up to 10.x the engine's tensors are names under
``Bindings``, and a layer's tensor has one text ``Format/Datatype``; from 11 on they are objects under
``I/O Tensors``, and format and type are separate texts. Without ``ProfilingVerbosity.DETAILED`` a layer is
only a name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, decoding
from trtbuild.json_codec import NOT_IN_JSON, encode
from trtbuild.model.file_kinds import check_is_plan
from trtbuild.runtime.tensorrt.engine import OpenedEngine
from trtbuild.runtime.tensorrt.logger import made
from trtbuild.runtime.tensorrt.versions import TENSORRT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.runtime.tensorrt.versions import Product

__all__ = ["EngineLayers", "Layer", "LayerTensor", "inspect_plan", "read_layers"]

# Words of the inspector -> our name of the precision. Longer words come first: "BFloat16" contains "Float".
_PRECISIONS = (
    ("bfloat16", "BF16"),
    ("bf16", "BF16"),
    ("uint8", "UINT8"),
    ("int8", "INT8"),
    ("int4", "INT4"),
    ("int64", "INT64"),
    ("int32", "INT32"),
    ("fp8", "FP8"),
    ("fp4", "FP4"),
    ("fp16", "FP16"),
    ("half", "FP16"),
    ("fp32", "FP32"),
    ("float", "FP32"),
    ("bool", "BOOL"),
)
_COMPUTING = ("INT8", "FP16", "FP32", "BF16", "FP8", "INT4", "FP4")
# In a layer's metadata, the ASCII record or unit separator stands between the names of ONNX nodes.
_SEPARATORS = re.compile(r"[\x1e\x1f]")
_NODE = re.compile(r"\[ONNX Layer: (.*)\]", re.DOTALL)


@dataclass(frozen=True)
class LayerTensor:
    """An input or output of a layer: its precision (``INT8`` ...) and memory format, as TensorRT gives it."""

    name: str
    precision: str
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's name; fused layers join names with " + ".
        kind: such as ``CaskConvolution`` or ``Reformat``; empty if the plan gives only names.
        precision: of its weights, else of its first input; empty if not known.
        tactic: the kernel.
        nodes: names of the ONNX nodes in it.
        reformat: whether it only converts between formats or precisions: it takes time but computes nothing.
        inputs: tensors that it reads; not in records, as the next two.
        outputs: tensors that it writes.
        has_sparse_weights: whether TensorRT reports 2:4 sparse weights.
    """

    name: str
    kind: str = ""
    precision: str = ""
    tactic: str = ""
    nodes: tuple[str, ...] = ()
    reformat: bool = field(init=False)
    inputs: tuple[LayerTensor, ...] = field(default=(), metadata=NOT_IN_JSON)
    outputs: tuple[LayerTensor, ...] = field(default=(), metadata=NOT_IN_JSON)
    has_sparse_weights: bool = field(default=False, metadata=NOT_IN_JSON)

    def __post_init__(self) -> None:
        only_converts = self.kind == "Reformat" or "Reformatting CopyNode" in self.name
        object.__setattr__(self, "reformat", only_converts)


@dataclass(frozen=True)
class EngineLayers:
    """The layers of an engine in order of execution.

    Attributes:
        layers: all of them, reformats included.
        detailed: whether precisions and kernels are known.
    """

    layers: tuple[Layer, ...]
    detailed: bool

    @property
    def num_reformats(self) -> int:
        """Number of layers that only convert."""
        return sum(layer.reformat for layer in self.layers)

    def precision_counts(self) -> dict[str, int]:
        """Return how many computing layers run in each precision."""
        computing = (layer for layer in self.layers if not layer.reformat)
        counts = Counter(layer.precision for layer in computing if layer.precision in _COMPUTING)
        return dict(sorted(counts.items()))

    def layer_of(self, node: str) -> Layer | None:
        """Return the layer that contains an ONNX node; None for nodes that were folded away."""
        return next((layer for layer in self.layers if node in layer.nodes), None)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the layers as JSON types."""
        return [encode(layer) for layer in self.layers]

    @classmethod
    def from_json(cls, entries: list[dict[str, Any]]) -> EngineLayers:
        """Read what `to_json` wrote."""
        layers = tuple(
            Layer(e["name"], e["kind"], e["precision"], e["tactic"], tuple(e["nodes"]))
            for e in entries
        )
        return cls(layers, any(layer.kind for layer in layers))


def inspect_plan(path: Path, options: OpenOptions, product: Product = TENSORRT) -> EngineLayers:
    """Open a plan of `product`, return its layers, and close it.

    Raises:
        InputError: the file is not a plan for this machine, or the inspector returns nothing.
        MissingError: TensorRT, the driver, a GPU or memory is missing.
    """
    check_is_plan(path)
    engine = OpenedEngine(path, options, product)
    try:
        form = engine.tensorrt.module.LayerInformationFormat.JSON
        inspector = made(engine.native.create_engine_inspector(), "engine inspector", engine.log)
        text = inspector.get_engine_information(form)
    finally:
        engine.close()
    if text is None:
        raise InputError("TensorRT's inspector tells nothing about this engine.")
    return read_layers(text)


def read_layers(text: str, subject: str = "this") -> EngineLayers:
    """Read the inspector's JSON of TensorRT 10 or 11, or a file of ``trtexec --exportLayerInfo``.

    Args:
        text: the JSON.
        subject: name for it in the error, such as the file in quotes.

    Raises:
        InputError: the text is not layer information.
    """
    with decoding(InputError, f"{subject} is not the layer information of a TensorRT engine"):
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError("it is not a JSON object")
        entries = content["Layers"]
        layers = tuple(_layer(entry) for entry in entries)
    return EngineLayers(layers, any(isinstance(entry, dict) for entry in entries))


def _layer(entry: Mapping[str, Any] | str) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, nodes=_nodes("", entry))
    inputs = tuple(_tensor(tensor) for tensor in entry.get("Inputs", ()))
    outputs = tuple(_tensor(tensor) for tensor in entry.get("Outputs", ()))
    name = str(entry.get("Name", ""))
    return Layer(
        name=name,
        kind=str(entry.get("LayerType", "")),
        precision=_layer_precision(entry, inputs),
        tactic=str(entry.get("TacticName") or entry.get("TacticValue") or ""),
        nodes=_nodes(str(entry.get("Metadata") or ""), name),
        inputs=inputs,
        outputs=outputs,
        has_sparse_weights=bool(entry.get("HasSparseWeights")),
    )


def _tensor(entry: Mapping[str, Any]) -> LayerTensor:
    joint = str(entry.get("Format/Datatype", ""))
    form = str(entry.get("Format", joint))
    kind = str(entry.get("Datatype") or entry.get("DataType") or joint)
    dims = tuple(int(dim) for dim in entry.get("Dimensions", ()))
    return LayerTensor(str(entry.get("Name", "")), _precision(kind) or _precision(form), form, dims)


def _layer_precision(entry: Mapping[str, Any], inputs: tuple[LayerTensor, ...]) -> str:
    weights = entry.get("Weights")
    if isinstance(weights, dict) and weights.get("Type"):
        return _precision(str(weights["Type"]))
    return inputs[0].precision if inputs else ""


def _precision(text: str) -> str:
    lowered = text.lower()
    return next((name for word, name in _PRECISIONS if word in lowered), "")


def _nodes(metadata: str, name: str) -> tuple[str, ...]:
    """The ONNX nodes of a layer, from its metadata, else from the parts of its name."""
    if metadata:
        matches = (_NODE.fullmatch(part.strip()) for part in _SEPARATORS.split(metadata))
        return tuple(match[1] for match in matches if match)
    if name.startswith("Reformatting CopyNode"):
        return ()
    return tuple(part.strip() for part in name.split(" + "))
