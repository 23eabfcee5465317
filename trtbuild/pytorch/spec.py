"""The user's request, as frozen values. This file does not import torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any

from trtbuild.errors import OptionError
from trtbuild.options.fields import group, option
from trtbuild.options.values import IN_MEMORY
from trtbuild.wording import counted

__all__ = [
    "CRITERIA",
    "CRITERIA_BY_LOSS",
    "DEFAULT_OPSET",
    "HISTORY_FILE",
    "MASK_METHODS",
    "MAX_OPSET",
    "MIN_OPSET",
    "PRUNES",
    "SCOPES",
    "WEIGHTS_FILE",
    "ExportSpec",
    "InputSpec",
    "MaskSpec",
    "ModuleSource",
    "PruneSpec",
    "check_opset",
    "parse_amount",
    "parse_axes",
    "parse_input",
    "with_axes",
]

HISTORY_FILE = "pruning.json"
WEIGHTS_FILE = "weights.safetensors"
"""Files in the folder of a pruned module: what was cut, and the remaining weights."""

DEFAULT_OPSET = 18
"""Every TensorRT 10 parses it, and it has none of the newer operators."""
MIN_OPSET = 17
MAX_OPSET = 20
"""Opset 21 and newer have operators (GroupNormalization) that TensorRT 10.0 to 10.8 cannot parse."""

CRITERIA = ("l1", "l2", "bn-scale", "lamp", "fpgm", "taylor", "random", "hessian")
"""How channels are ranked; `trtbuild.pytorch.prune.criteria` says what each means."""

CRITERIA_BY_LOSS = ("taylor", "hessian")
"""Criteria that rank by the gradients of a loss."""

MASK_METHODS = ("l1", "random")
"""Which weights a mask sets to zero: the smallest magnitudes, or random ones."""

SCOPES = ("local", "global", "isomorphic")
"""The channels that are ranked together: a layer's, all, or those of layers of the same structure."""

PRUNES = ("ratio", "macs", "parameters", "latency", "layer_ratios", "head_ratio", "masked")
"""The options that say how much to prune."""

_FLOAT_TYPES = ("float32", "float16", "bfloat16", "float64")
_INTEGER_TYPES = ("int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class InputSpec:
    """One input of the module: its dims, dtype and range of sample values.

    Attributes:
        dims: the shape, every dim at least 1.
        name: its parameter of ``forward``; None for the next free one.
        dtype: NumPy's name of the type.
        low, high: range ``[low, high]`` of sample values; integers include `high`. Without it floats
            are drawn from a standard normal distribution and integers are 0 or 1.
        dynamic: axis -> name of each dynamic dim.
    """

    dims: tuple[int, ...]
    name: str | None = None
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None
    dynamic: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(dim < 1 for dim in self.dims):
            raise OptionError(f"input dims {list(self.dims)}: every dim must be at least 1.")
        if self.dtype not in (*_FLOAT_TYPES, *_INTEGER_TYPES):
            known = ", ".join((*_FLOAT_TYPES, *_INTEGER_TYPES))
            raise OptionError(f"input dtype '{self.dtype}' is not one of {known}.")
        if (self.low is None) != (self.high is None):
            raise OptionError("an input range needs both ends, for example 0..255.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise OptionError(f"input range {self.low}..{self.high} is empty.")
        for axis in self.dynamic:
            if not 0 <= axis < len(self.dims):
                raise OptionError(
                    f"dynamic axis {axis}: the input has {counted(len(self.dims), 'axis', 'axes')}, "
                    "counted from 0."
                )

    @property
    def is_float(self) -> bool:
        """Whether the values are floating point."""
        return self.dtype in _FLOAT_TYPES

    def __str__(self) -> str:
        """The text that `parse_input` reads back; dynamic axes are not in it."""
        name = "" if self.name is None else f"{self.name}:"
        values = "" if self.low is None else f":{self.low!r}..{self.high!r}"
        dtype = "" if self.dtype == "float32" and not values else f":{self.dtype}"
        return f"{name}{'x'.join(map(str, self.dims))}{dtype}{values}"


_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_INPUT = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*):)?(?P<dims>\d+(?:x\d+)*)"
    rf"(?::(?P<dtype>[a-z]+\d*))?(?::(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER}))?"
)


def parse_input(text: str) -> InputSpec:
    """Read ``[name:]dims[:dtype][:low..high]``, for example ``ids:1x128:int64:0..30521``.

    Raises:
        OptionError: the text has another form.
    """
    match = _INPUT.fullmatch(text)
    if match is None:
        raise OptionError(
            f"input '{text}' is not [name:]dims[:dtype][:low..high], "
            "for example 1x3x224x224 or ids:1x128:int64:0..30521."
        )
    dims = tuple(int(dim) for dim in match["dims"].split("x"))
    low, high = (None if match[key] is None else float(match[key]) for key in ("low", "high"))
    return InputSpec(dims, match["name"], match["dtype"] or "float32", low, high)


def parse_axes(text: str) -> tuple[str | None, dict[int, str]]:
    """Read ``[input:]name`` (axis 0) or ``[input:]axis=name,...`` into input name and axes.

    Raises:
        OptionError: the text has another form.
    """
    name, _, rest = text.rpartition(":")
    axes: dict[int, str] = {}
    for part in rest.split(","):
        axis, equals, label = part.partition("=")
        if not equals:
            axis, label = "0", part
        if not axis.isdigit() or not label.isidentifier():
            raise OptionError(
                f"dynamic axes '{text}' are not [input:]name or [input:]axis=name,..., "
                "for example batch or image:0=batch,2=height."
            )
        axes[int(axis)] = label
    return name or None, axes


def parse_amount(text: str) -> int | float:
    """Read an amount: ``30%`` and ``0.3`` are shares, ``12`` is a count.

    ``1`` alone could mean one weight or all of them, so it is refused: write ``100%`` or ``1 weight``.

    Raises:
        OptionError: it is not an amount, or out of range.
    """
    written = text.strip()
    body = written.removesuffix("weights").removesuffix("weight").strip()
    try:
        if written.endswith("%"):
            value: int | float = float(written[:-1]) / 100
        else:
            value = int(body) if body.isdigit() else float(body)
    except ValueError:
        raise OptionError(f"amount '{text}' is not a share (30%, 0.3) or a count (12).") from None
    if value == 1 and isinstance(value, int) and body == written:
        raise OptionError(
            "amount '1' could be one weight or all of them: write '1 weight' or '100%'."
        )
    if not value >= 0 or (isinstance(value, float) and value > 1):
        raise OptionError(f"amount '{text}' is out of range: a share lies between 0 and 1.")
    return value


def _argument(text: str) -> tuple[str, Any]:
    """``name=value``; the value as a Python literal if it is one, else as a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"'{text}' is not name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, {"true": True, "false": False}.get(value, value)


def _layer_ratio(text: str) -> tuple[str, float]:
    pattern, _, number = text.rpartition("=")
    try:
        if pattern:
            return pattern, float(number)
    except ValueError:
        pass
    raise ValueError(f"'{text}' is not PATTERN=RATIO, for example layer4.*=0.7")


def _layer_ratio_text(given: tuple[str, float]) -> str:
    return f"{given[0]}={given[1]!r}"


@dataclass(frozen=True)
class ModuleSource:
    """The source of a module: its factory and its weights.

    `target` names an `nn.Module`, or a function or class that returns one; from Python it may be the module
    itself, which does not change.
    """

    target: Any = option(
        MISSING, "package.module:attribute of the module or of what makes it; dots are allowed.",
        argument=True, takes_objects=True,
    )  # fmt: skip
    arguments: Mapping[str, Any] = option(
        {}, "Keyword argument of the factory. Repeatable.",
        flag="--arg", metavar="NAME=VALUE", parse=_argument, essential=True,
    )  # fmt: skip
    weights: Path | None = option(
        None,
        "Checkpoint (.pt, .safetensors, .npz, the index of shards), or a folder from prune.",
        essential=True,
    )
    weights_key: str | None = option(
        None, "Key of the weights in the checkpoint, such as ema or model.state_dict.", metavar="KEY",
        when_absent="what fits",
    )  # fmt: skip
    weights_prefix: str | None = option(
        None, "Cut off from every key of the checkpoint; keys without it are left out.", metavar="PREFIX",
        when_absent="what fits",
    )  # fmt: skip
    trust_checkpoint: bool = option(
        False, "Unpickle everything: runs any code that the file holds."
    )
    allow_missing: tuple[str, ...] = option(
        (), "Keys that the checkpoint need not have. Repeatable.", metavar="PATTERN"
    )
    allow_unexpected: tuple[str, ...] = option(
        (),
        "Keys that the checkpoint may have and the module does not. Repeatable.",
        metavar="PATTERN",
    )

    @property
    def name(self) -> str:
        """The target as text; for a module in memory, a text that says so, with its class."""
        if isinstance(self.target, str):
            return self.target
        return IN_MEMORY + type(self.target).__qualname__


@dataclass(frozen=True)
class PruneSpec:
    """The share of channels to remove, and how they are chosen; patterns as in `match_layers`."""

    ratio: float = option(
        0.5,
        "Remove this share of the channels, 0.5 for half.",
        flag="--prune",
        metavar="RATIO",
        essential=True,
    )
    criterion: str = option(
        "l2", "How channels are ranked; taylor and hessian need --prune-loss.", flag="--prune-criterion",
        choices=CRITERIA,
    )  # fmt: skip
    scope: str = option(
        "local", "Set of channels that are ranked together.", flag="--prune-scope", choices=SCOPES
    )
    round_to: int | None = option(
        None, "Widths are multiples of this; INT8 kernels work on blocks of 32 channels.",
        flag="--prune-round-to", low=1, when_absent="32 where that is near the wish, less in narrow layers",
        essential=True,
    )  # fmt: skip
    layer_ratios: tuple[tuple[str, float], ...] = option(
        (), "Another share for some layers; the first match wins. Repeatable.",
        flag="--prune-layer", metavar="PATTERN=RATIO", parse=_layer_ratio, write=_layer_ratio_text,
    )  # fmt: skip
    ignore: tuple[str, ...] = option(
        (), "Layers that keep their width. Repeatable.", flag="--prune-ignore", metavar="PATTERN"
    )
    max_ratio: float = option(
        0.9, "No layer loses more than this share, whatever the ranking says.",
        flag="--prune-max-ratio", metavar="RATIO",
    )  # fmt: skip
    head_ratio: float = option(
        0.0, "Remove this share of whole attention heads.", flag="--prune-heads", metavar="RATIO"
    )
    steps: int = option(
        1, "The ratio is reached in this many equal steps.", flag="--prune-steps", low=1
    )
    macs: float | None = option(
        None, "Instead of --prune: keep at most this share of the multiply-accumulates.",
        flag="--prune-macs", metavar="SHARE", essential=True,
    )  # fmt: skip
    parameters: float | None = option(
        None, "Instead of --prune: keep at most this share of the parameters.",
        flag="--prune-params", metavar="SHARE", essential=True,
    )  # fmt: skip
    latency: float | None = option(
        None, "Instead of --prune: keep at most this share of the latency, measured on this machine.",
        flag="--prune-latency", metavar="SHARE", essential=True,
    )  # fmt: skip
    loss: str | None = option(
        None, "package.module:function or script.py:function: takes the module, returns its loss on data.",
        flag="--prune-loss", metavar="FUNCTION",
    )  # fmt: skip

    masked: bool = option(
        False, "Remove the channels that a mask, or training, has set to zero; the share is of what is left.",
        flag="--prune-masked",
    )  # fmt: skip

    @property
    def removes_ranked(self) -> bool:
        """Whether channels are removed by their rank."""
        shares = (self.ratio, self.head_ratio, *(ratio for _, ratio in self.layer_ratios))
        return any(shares) or bool(self.budgets)

    @property
    def budgets(self) -> tuple[float, ...]:
        """The budgets that say how much to prune; empty where a ratio says it."""
        given = (self.macs, self.parameters, self.latency)
        return tuple(share for share in given if share is not None)

    def __post_init__(self) -> None:
        named = (("ratio", self.ratio), ("head ratio", self.head_ratio), *self.layer_ratios)
        for label, ratio in named:
            if not 0 <= ratio < 1:
                raise OptionError(
                    f"pruning {label} {ratio} is out of range: it is a share, at least 0 and below 1 "
                    "(0.5 removes half of the channels)."
                )
        for share in self.budgets:
            if not 0 < share <= 1:
                raise OptionError(
                    f"a budget of {share} is out of range: it is the share that is left, above 0, at most 1."
                )
        if not 0 < self.max_ratio < 1:
            raise OptionError(
                f"the largest ratio of a layer must lie between 0 and 1, not {self.max_ratio}."
            )
        if self.criterion not in CRITERIA:
            raise OptionError(f"criterion '{self.criterion}' is not one of {', '.join(CRITERIA)}.")
        if self.scope not in SCOPES:
            raise OptionError(f"pruning scope '{self.scope}' is not one of {', '.join(SCOPES)}.")
        if self.steps < 1 or (self.round_to is not None and self.round_to < 1):
            raise OptionError("pruning steps and round_to must be at least 1.")


@dataclass(frozen=True)
class MaskSpec:
    """Which single weights become zero: a share (float) or a count (int)."""

    amount: float = option(
        MISSING, "Zero single weights: a share (30%, 0.3) or a count (12) per layer.",
        flag="--mask", metavar="AMOUNT", example='"30%"', parse=parse_amount,
    )  # fmt: skip
    method: str = option(
        "l1", "Which weights --mask takes.", flag="--mask-method", choices=MASK_METHODS
    )
    globally: bool = option(
        False, "Rank the weights of all layers together.", flag="--mask-globally"
    )
    layers: tuple[str, ...] = option(
        ("*",), "Layers that are masked: path, class, glob over either, re:EXPRESSION. Repeatable.",
        flag="--mask-layers", metavar="PATTERN",
    )  # fmt: skip
    dim: int | None = option(
        None, "Mask whole slices along this axis of the weight: 0 for output channels.",
        flag="--mask-dim", when_absent="single weights",
    )  # fmt: skip
    norm: float = option(
        2.0, "Order of the norm by which --mask-dim ranks slices.", flag="--mask-norm"
    )

    def __post_init__(self) -> None:
        if self.dim is not None and self.globally:
            raise OptionError("slices (--mask-dim) are ranked in each layer, not --mask-globally.")
        if self.method not in MASK_METHODS:
            raise OptionError(
                f"mask method '{self.method}' is not one of {', '.join(MASK_METHODS)}."
            )


@dataclass(frozen=True)
class ExportSpec:
    """How to make an ONNX file of a module.

    Attributes:
        path: the file to write; None keeps the model in memory only.
    """

    source: ModuleSource = group(ModuleSource, "PyTorch module", required=True)
    inputs: tuple[InputSpec, ...] = option(
        (), "[name:]dims[:dtype][:low..high], for example 1x3x224x224; in the order of forward. Repeatable.",
        flag="--input", metavar="SPEC", parse=parse_input, write=str, essential=True,
    )  # fmt: skip
    fold: bool = option(True, "Fold BatchNorm into the layers beside it.")
    prune: PruneSpec | None = group(
        PruneSpec, "Pruning", optional=True, needs=PRUNES,
        otherwise={"ratio": 0.0},
    )  # fmt: skip
    mask: MaskSpec | None = group(MaskSpec, "Masks", optional=True, needs=("amount",))
    sparsity: str | None = option(None, "Make the eligible layers 2:4 sparse.", choices=("2:4",))
    opset: int = option(DEFAULT_OPSET, f"Opset of the ONNX file, {MIN_OPSET} to {MAX_OPSET}.")
    force_opset: bool = option(False, "Allow a newer opset.")
    output_names: tuple[str, ...] = option(
        (), "Name of an output, in order. Repeatable.", flag="--output-name", metavar="NAME",
        when_absent="the exporter's",
    )  # fmt: skip
    path: Path | None = None
    external_data: bool | None = option(
        None, "Write the weights to a separate file.", when_absent="above 2 GB only"
    )
    dynamic: tuple[str, ...] = option(
        (),
        "batch, or [input:]axis=name,... for other axes. Repeatable.",
        metavar="AXES",
        essential=True,
    )

    def __post_init__(self) -> None:
        if self.sparsity not in (None, "2:4"):
            raise OptionError(f"sparsity '{self.sparsity}' is not known; the only pattern is 2:4.")

    @property
    def thins(self) -> bool:
        """Whether channels or weights are removed before the export."""
        return not (self.prune is None and self.mask is None and self.sparsity is None)

    @property
    def traced_inputs(self) -> tuple[InputSpec, ...]:
        """The inputs with the axes of `dynamic`.

        Raises:
            OptionError: there is no input, or `dynamic` names an input that does not exist.
        """
        return with_axes(self.inputs, self.dynamic)


def with_axes(inputs: Sequence[InputSpec], dynamic: Sequence[str]) -> tuple[InputSpec, ...]:
    """Return inputs with dynamic axes; a text of `dynamic` without an input's name is for all inputs.

    Raises:
        OptionError: there is no input, or a text names an input that does not exist.
    """
    if not inputs:
        raise OptionError("a PyTorch module needs its input shape: --input 1x3x224x224.")
    given = list(inputs)
    for text in dynamic:
        name, axes = parse_axes(text)
        if name is not None and all(spec.name != name for spec in given):
            raise OptionError(f"--dynamic '{text}': no --input is named '{name}'.")
        for index, spec in enumerate(given):
            if name in (None, spec.name):
                given[index] = replace(spec, dynamic={**spec.dynamic, **axes})
    return tuple(given)


def check_opset(opset: int, *, force: bool) -> None:
    """Refuse an opset that the exporter or TensorRT does not handle.

    Raises:
        OptionError: it is too old, or newer than TensorRT 10 parses and not forced.
    """
    if opset < MIN_OPSET:
        raise OptionError(f"opset {opset} is too old: {MIN_OPSET} to {MAX_OPSET} can be exported.")
    if opset > MAX_OPSET and not force:
        raise OptionError(
            f"opset {opset} is newer than what every TensorRT 10 parses; {MIN_OPSET} to {MAX_OPSET} "
            "are safe. Pass --force-opset to export it all the same."
        )
