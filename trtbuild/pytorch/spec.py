"""What the user asked for, as frozen values. This file imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "CRITERIA",
    "DEFAULT_OPSET",
    "MASK_METHODS",
    "MAX_OPSET",
    "MIN_OPSET",
    "SCOPES",
    "ExportSpec",
    "InputSpec",
    "MaskSpec",
    "ModuleSource",
    "PruneSpec",
    "check_opset",
    "parse_amount",
    "parse_axes",
    "parse_input",
]

DEFAULT_OPSET = 18
"""Every TensorRT 10 parses it, and it needs none of the newer operators."""
MIN_OPSET = 17
MAX_OPSET = 20
"""Opset 21 and above bring operators (GroupNormalization) that TensorRT 10.0 to 10.8 cannot parse."""

CRITERIA = ("l1", "l2", "bn-scale", "lamp", "fpgm", "taylor", "random")
"""How channels are ranked; `trtbuild.pytorch.prune.criteria` says what each means."""

MASK_METHODS = ("l1", "random")
"""Which weights a mask takes: those of the smallest magnitude, or any."""

SCOPES = ("local", "global", "isomorphic")
"""Among which channels one is ranked: its layer's, all, or those of layers of the same structure."""

_FLOAT_TYPES = ("float32", "float16", "bfloat16", "float64")
_INTEGER_TYPES = ("int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class ModuleSource:
    """Where a module comes from.

    Attributes:
        target: ``package.module:attribute``; the attribute (dots allowed) is a function or a class
            that gives an `nn.Module`, or an `nn.Module`.
        arguments: keyword arguments of the function or class.
        weights: a checkpoint (``.pt``, ``.pth``, ``.safetensors``) or a folder written by
            `save_pruned`. None keeps the weights that the factory made.
        trust_checkpoint: unpickle everything, which runs whatever code the file holds.
        allow_missing: patterns (`fnmatch`) of keys that the checkpoint need not have.
        allow_unexpected: patterns of keys that the checkpoint may have and the module does not.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    trust_checkpoint: bool = False
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()


@dataclass(frozen=True)
class InputSpec:
    """One input of the module: its dims, dtype and range of sample values.

    Attributes:
        dims: the shape, every dim at least 1.
        name: parameter of ``forward`` that takes it; None for the next one that is free.
        dtype: NumPy's name of the type.
        low, high: sample values lie in ``[low, high]``; integers include `high`. Without them floats
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
                    f"dynamic axis {axis}: the input has {len(self.dims)} axes, counted from 0."
                )

    @property
    def is_float(self) -> bool:
        """Whether the values are floating point."""
        return self.dtype in _FLOAT_TYPES


@dataclass(frozen=True)
class PruneSpec:
    """Which share of the channels goes, and how they are chosen.

    Attributes:
        ratio: share of the channels of each group that is removed, ``0 <= ratio < 1``.
        criterion: how channels are ranked: one of `CRITERIA`.
        scope: one of `SCOPES`.
        round_to: widths that remain are multiples of this; None chooses 32 for wide nets, 16 or 8
            for narrow ones (INT8 kernels work on blocks of 32 channels).
        layer_ratios: pattern of module paths -> ratio, first match wins.
        ignore: patterns of modules that keep their width.
        max_ratio: no layer loses more than this share, whatever the ranking says.
        head_ratio: share of whole attention heads that is removed.
        steps: the ratio is reached in this many equal steps.
    """

    ratio: float = 0.5
    criterion: str = "l2"
    scope: str = "local"
    round_to: int | None = None
    layer_ratios: tuple[tuple[str, float], ...] = ()
    ignore: tuple[str, ...] = ()
    max_ratio: float = 0.9
    head_ratio: float = 0.0
    steps: int = 1

    def __post_init__(self) -> None:
        named = (("ratio", self.ratio), ("head ratio", self.head_ratio), *self.layer_ratios)
        for label, ratio in named:
            if not 0 <= ratio < 1:
                raise OptionError(
                    f"pruning {label} {ratio} is out of range: it is a share, at least 0 and below 1 "
                    "(0.5 removes half of the channels)."
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
    """Which single weights become zero.

    Attributes:
        amount: a share (float) or a count (int), of each layer or of all together.
        method: one of `MASK_METHODS`.
        globally: rank the weights of all layers together.
    """

    amount: float
    method: str = "l1"
    globally: bool = False

    def __post_init__(self) -> None:
        if self.method not in MASK_METHODS:
            raise OptionError(
                f"mask method '{self.method}' is not one of {', '.join(MASK_METHODS)}."
            )


@dataclass(frozen=True)
class ExportSpec:
    """The way from a module to an ONNX file.

    Attributes:
        source: the module and its weights.
        inputs: its inputs, in the order of ``forward``.
        fold: fold BatchNorm before the export.
        prune: channels to remove before folding, or None.
        mask: single weights to zero, or None.
        sparsity: ``2:4`` makes the eligible layers 2:4 sparse, or None.
        opset: of the ONNX file, `MIN_OPSET` to `MAX_OPSET`.
        force_opset: allow a newer opset.
        output_names: names of the outputs, or empty to keep the exporter's.
        path: the file to write; None keeps the model in memory only.
        external_data: weights in a file of their own; None does so above 2 GB only.
        seed: of the sample values.
    """

    source: ModuleSource
    inputs: tuple[InputSpec, ...]
    fold: bool = True
    prune: PruneSpec | None = None
    mask: MaskSpec | None = None
    sparsity: str | None = None
    opset: int = DEFAULT_OPSET
    force_opset: bool = False
    output_names: tuple[str, ...] = ()
    path: Path | None = None
    external_data: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sparsity not in (None, "2:4"):
            raise OptionError(f"sparsity '{self.sparsity}' is not known; the only pattern is 2:4.")


_INPUT = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*):)?(?P<dims>\d+(?:x\d+)*)"
    r"(?::(?P<dtype>[a-z]+\d*))?(?::(?P<low>-?[\d.]+)\.\.(?P<high>-?[\d.]+))?"
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
    """Read an amount without surprises: ``30%`` and ``0.3`` are shares, ``12`` is a count.

    ``1`` alone could be one weight or all of them, so it is refused: write ``100%`` or ``1 weight``.

    Raises:
        OptionError: not an amount, or out of range.
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


def check_opset(opset: int, *, force: bool) -> None:
    """Refuse an opset that the exporter or TensorRT does not handle.

    Raises:
        OptionError: too old, or newer than TensorRT 10 parses and not forced.
    """
    if opset < MIN_OPSET:
        raise OptionError(f"opset {opset} is too old: {MIN_OPSET} to {MAX_OPSET} can be exported.")
    if opset > MAX_OPSET and not force:
        raise OptionError(
            f"opset {opset} is newer than what every TensorRT 10 parses; {MIN_OPSET} to {MAX_OPSET} "
            "are safe. Pass --force-opset to export it all the same."
        )
