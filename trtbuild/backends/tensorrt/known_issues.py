"""Known issues of TensorRT, from ``known_issues.toml`` beside this file, matched with a planned build."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.enums import StrEnum
from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import constant_tensor
from trtbuild.model.qdq import quantized_nodes
from trtbuild.model.shapes import static_dims
from trtbuild.model.traversal import all_nodes, maker
from trtbuild.quantization.attention import attention_blocks
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.toml_files import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx_ir as ir

    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Effect", "KnownIssue", "Situation", "issues_of", "known_issues", "situation_of"]

_FILE = Path(__file__).with_suffix(".toml")

_ATTENTION = "products around a Softmax"
_FEW_CHANNELS = 4


class Effect(StrEnum):
    """What an issue does to a build."""

    SLOW = "slow"
    WRONG = "wrong"
    REFUSED = "refused"


@dataclass(frozen=True)
class KnownIssue:
    """One known issue; see ``known_issues.toml`` for the fields.

    Attributes:
        id: a short name that never changes.
        product: name of the backend.
        effect: its effect on a build.
        text: what happens.
        advice: what to do.
        source: where it is documented.
        versions: from this version (included) to below that (excluded); empty texts for open ends.
        capabilities: the same for the GPU's compute capability.
        operators: the network must have one of these, and with explicit quantization one that reads Q/DQ;
            empty for any network.
        quantization: ``explicit`` or ``implicit``; empty for both and for float.
        options: one of these fields of `TensorRTOptions` must be changed; empty for any.
    """

    id: str
    product: str
    effect: Effect
    text: str
    advice: str
    source: str
    versions: tuple[str, str]
    capabilities: tuple[str, str]
    operators: frozenset[str]
    quantization: str
    options: frozenset[str]

    def __str__(self) -> str:
        return f"known issue, {self.effect}: {self.text} {self.advice} ({self.source})"


@dataclass(frozen=True)
class Situation:
    """A planned build.

    Attributes:
        product: name of the backend.
        version: version of the library.
        capabilities: compute capabilities of the target GPUs; empty if not known.
        operators: operators of the network; for convolutions also ``Conv over 3 axes`` and ``Conv in groups
            of fewer than 4 channels``, likewise for ``ConvTranspose``; also ``products around a Softmax`` for
            attention as MatMul and Softmax.
        quantization: ``explicit``, ``implicit``, or empty for float.
        options: changed fields of `TensorRTOptions`.
        quantized: those of `operators` that read a tensor through Q/DQ.
    """

    product: str
    version: str
    capabilities: tuple[str, ...] = ()
    operators: frozenset[str] = frozenset()
    quantization: str = ""
    options: frozenset[str] = field(default_factory=frozenset)
    quantized: frozenset[str] = frozenset()


@functools.cache
def known_issues() -> tuple[KnownIssue, ...]:
    """Return all known issues, in the order of the file."""
    return tuple(
        KnownIssue(
            id=one["id"],
            product=one["product"],
            effect=Effect(one["effect"]),
            text=one["text"],
            advice=one["advice"],
            source=one["source"],
            versions=(one.get("from", ""), one.get("below", "")),
            capabilities=(one.get("gpu_from", ""), one.get("gpu_below", "")),
            operators=frozenset(one.get("operators", ())),
            quantization=one.get("quantization", ""),
            options=frozenset(one.get("options", ())),
        )
        for one in read_toml(_FILE, "table of known issues")["issue"]
    )


def issues_of(
    situation: Situation, issues: Iterable[KnownIssue] | None = None
) -> tuple[KnownIssue, ...]:
    """Return the issues that apply to a build.

    Args:
        situation: the planned build.
        issues: issues to choose from; None for all.
    """
    among = known_issues() if issues is None else issues
    return tuple(one for one in among if _applies(one, situation))


def _applies(issue: KnownIssue, situation: Situation) -> bool:
    has_gpu = any(_within(one, issue.capabilities) for one in situation.capabilities)
    is_explicit = issue.quantization == "explicit"
    operators = situation.quantized if is_explicit else situation.operators
    return (
        issue.product == situation.product
        and _within(situation.version, issue.versions)
        and (has_gpu or not any(issue.capabilities))
        and (not issue.operators or bool(issue.operators & operators))
        and issue.quantization in ("", situation.quantization)
        and (not issue.options or bool(issue.options & situation.options))
    )


def _within(version: str, bounds: tuple[str, str]) -> bool:
    """Whether a dotted version is at least the first bound and below the second."""
    low, high = bounds
    number = _number(version)
    return (not low or number >= _number(low)) and (not high or number < _number(high))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _kinds(node: ir.Node) -> Iterator[str]:
    """The operator and, for a convolution, the special kinds that known issues refer to."""
    yield node.op_type
    if node.op_type not in ("Conv", "ConvTranspose"):
        return
    dims = _weight_dims(node)
    groups = attribute(node, "group", 1)
    # [out, in / groups, ...] for Conv and [in, out / groups, ...] for ConvTranspose
    if groups > 1 and len(dims) > 1 and min(dims[0] // groups, dims[1]) < _FEW_CHANNELS:
        yield f"{node.op_type} in groups of fewer than {_FEW_CHANNELS} channels"
    if len(dims) == 5:
        yield f"{node.op_type} over 3 axes"


def _weight_dims(node: ir.Node) -> Sequence[int]:
    """The dims of a node's weight, also of one behind Q/DQ; empty if they are not known."""
    value = input_at(node, 1)
    while (before := maker(value, "DequantizeLinear", "QuantizeLinear")) is not None:
        value = before.inputs[0]
    tensor = constant_tensor(value)
    return static_dims(value) or () if tensor is None else tuple(tensor.shape.numpy())


def _operators(nodes: Iterable[ir.Node]) -> frozenset[str]:
    return frozenset(name for node in nodes for name in _kinds(node))


def situation_of(
    tensorrt: TensorRT,
    options: TensorRTOptions,
    model: ir.Model,
    quantization: str,
    capabilities: tuple[str, ...] = (),
) -> Situation:
    """Describe a planned build.

    Args:
        tensorrt: the installed version.
        options: options of the build.
        model: the network.
        quantization: ``explicit``, ``implicit``, or empty for float.
        capabilities: target compute capabilities of a plan for RTX; empty for that of the GPU here.
    """
    driver = cuda_driver()
    here = () if driver.problem else (driver.gpus[options.device].compute_capability,)
    attention = frozenset({_ATTENTION}) if any(attention_blocks(model)) else frozenset()
    return Situation(
        tensorrt.product.backend,
        tensorrt.version,
        capabilities or here,
        _operators(all_nodes(model.graph)) | attention,
        quantization,
        frozenset(options.changed),
        quantized=_operators(quantized_nodes(model)),
    )
