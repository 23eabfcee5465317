"""Optimization profiles: the minimum, optimal and maximum shape of each dynamic input.

An input can hold a shape itself (the sizes of a Resize). TensorRT reads it in host memory, and needs the
minimum, optimal and maximum of its values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.runtime.tensorrt.engine import ShapeRange
from trtbuild.runtime.tensorrt.logger import explained, made

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trtbuild.backends.tensorrt.open_builder import OpenBuilder
    from trtbuild.model.signature import TensorSpec
    from trtbuild.runtime.tensorrt.engine import Profile, Shape

__all__ = ["add_profiles", "make_profile", "parse_shapes", "profiles_for", "values_for"]


@dataclass(frozen=True)
class _Form:
    """How an option writes the range of one input: a flag, the pattern of its three parts, and an example."""

    flag: str
    part: re.Pattern[str]
    separator: str
    example: str

    def range_of(self, text: str) -> tuple[str, ShapeRange]:
        """Read one text; see `parse_shapes`."""
        name, _, given = text.rpartition("=")
        parts = given.split(":")
        if not name or len(parts) not in (1, 3) or not all(map(self.part.fullmatch, parts)):
            raise OptionError(
                f"{self.flag} '{text}' cannot be read. Write input=min:opt:max, for example "
                f"{self.example}."
            )
        found = [
            () if part == "scalar" else tuple(map(int, part.split(self.separator)))
            for part in parts
        ]
        return name, ShapeRange(*(found * 3 if len(found) == 1 else found))

    def text(self, numbers: Shape) -> str:
        """Write one part."""
        return self.separator.join(map(str, numbers)) or "scalar"


_SHAPES = _Form(
    "--shape", re.compile(r"\d+(x\d+)*|scalar"), "x",
    "images=1x3x224x224:8x3x224x224:32x3x224x224",
)  # fmt: skip
_VALUES = _Form(
    "--shape-values", re.compile(r"-?\d+(,-?\d+)*"), ",", "size=1,8,8,8:1,8,32,32:1,8,64,64"
)


def parse_shapes(texts: Sequence[str]) -> list[dict[str, ShapeRange]]:
    """Read ``input=min:opt:max`` texts; the n-th for an input belongs to the n-th profile.

    A single shape is used for all three. Shapes are written ``1x3x224x224``.

    Raises:
        OptionError: a text cannot be read, or min, opt and max are out of order.
    """
    return _parse(texts, _SHAPES)


def _parse(texts: Sequence[str], form: _Form) -> list[dict[str, ShapeRange]]:
    profiles: list[dict[str, ShapeRange]] = []
    for text in texts:
        name, given = form.range_of(text)
        _check_order(name, given, form)
        target = next((profile for profile in profiles if name not in profile), None)
        if target is None:
            target = {}
            profiles.append(target)
        target[name] = given
    return profiles


def _check_order(name: str, given: ShapeRange, form: _Form) -> None:
    same_rank = len(given.min) == len(given.opt) == len(given.max)
    if not same_rank or not given.holds(given.opt):
        low, usual, high = map(form.text, (given.min, given.opt, given.max))
        what = "the same rank, and min <= opt <= max in every dimension"
        if form is _VALUES:
            what = "the same length, and min <= opt <= max in every value"
        raise OptionError(
            f"{form.flag} of input '{name}': min {low}, opt {usual} and max {high} must have {what}."
        )


def profiles_for(texts: Sequence[str], inputs: Sequence[TensorSpec]) -> list[dict[str, ShapeRange]]:
    """Return complete profiles for a network: every dynamic input in each of them.

    A profile takes an input that it lacks from the first profile. A network whose inputs are all static
    needs no profile.

    Raises:
        OptionError: an input is unknown, its shape does not fit, a dynamic input has no ``--shape``, or two
            inputs share a named dimension and contradict each other.
    """
    given = parse_shapes(texts)
    specs = {spec.name: spec for spec in inputs}
    for spec, shapes in _of_inputs(given, specs, _SHAPES):
        _check_fits(spec, shapes)
    dynamic = [spec for spec in inputs if not _is_static(spec)]
    if not dynamic and not given:
        return []
    missing = [spec for spec in dynamic if not given or spec.name not in given[0]]
    if missing:
        have = ", ".join(
            f"the input '{spec.name}' has the dynamic shape {_dims_text(spec)}" for spec in missing
        )
        them = "it" if len(missing) == 1 else "they"
        say = " ".join(
            f"--shape '{spec.name}={_example(spec, 1)}:{_example(spec, 8)}:{_example(spec, 32)}'"
            for spec in missing
        )
        raise OptionError(f"{have}. Say which shapes {them} will have: {say}.")
    profiles = [{**given[0], **profile} for profile in given]
    for index, profile in enumerate(profiles):
        _check_agreement(index, profile, specs)
    return profiles


def _of_inputs(
    profiles: Iterable[Mapping[str, ShapeRange]], specs: Mapping[str, TensorSpec], form: _Form
) -> Iterator[tuple[TensorSpec, ShapeRange]]:
    """Each range of the profiles, with the input that it belongs to; the network must have that input."""
    for profile in profiles:
        for name, given in profile.items():
            if name not in specs:
                raise OptionError(
                    f"{form.flag} names the input '{name}'; the network's inputs are {', '.join(specs)}."
                )
            yield specs[name], given


def _check_agreement(
    index: int, profile: Mapping[str, ShapeRange], specs: Mapping[str, TensorSpec]
) -> None:
    """Check that a named dimension has the same extents in all inputs.

    TensorRT for RTX 1.7 does not report a contradiction: it builds a plan that no data fits.
    """
    first: dict[str, tuple[str, tuple[int, int, int]]] = {}
    for name, shapes in profile.items():
        for dim, *extents in zip(specs[name].dims, shapes.min, shapes.opt, shapes.max):
            if not isinstance(dim, str):
                continue
            low, usual, high = extents
            known_name, known = first.setdefault(dim, (name, (low, usual, high)))
            if usual != known[1] or low > known[2] or known[0] > high:
                raise OptionError(
                    f"--shape: the dimension '{dim}' is {':'.join(map(str, known))} in the input "
                    f"'{known_name}' and {low}:{usual}:{high} in '{name}' (profile {index}), but in the "
                    "network they are the same dimension; give both the same sizes."
                )


def values_for(texts: Sequence[str], inputs: Sequence[TensorSpec]) -> list[dict[str, ShapeRange]]:
    """Return the minimum, optimal and maximum values of inputs that hold shapes, for each profile.

    The n-th text for an input belongs to the n-th profile; a profile takes an input that it lacks from the
    first profile.

    Raises:
        OptionError: a text cannot be read, or an input is unknown or cannot hold these values.
    """
    given = _parse(texts, _VALUES)
    specs = {spec.name: spec for spec in inputs}
    for spec, values in _of_inputs(given, specs, _VALUES):
        _check_holds(spec, len(values.opt))
    return [{**given[0], **profile} for profile in given]


def _check_holds(spec: TensorSpec, count: int) -> None:
    """Check that an input holds integers, is a scalar or a vector, and has `count` elements."""
    fits = spec.dims in ((), (count,)) and (spec.dims or count == 1)
    if spec.dtype.kind != "i" or not fits:
        raise OptionError(
            f"--shape-values of input '{spec.name}' are {count} whole numbers, but in the network it is "
            f"{spec.dtype} of shape {_dims_text(spec) or 'scalar'}."
        )


def add_profiles(
    builder: OpenBuilder, profiles: Sequence[Profile], values: Sequence[Profile] = ()
) -> None:
    """Add the profiles to a builder's configuration.

    Args:
        builder: makes the profiles.
        profiles: the shapes of the dynamic inputs, a mapping for each profile.
        values: the values of the inputs that hold shapes. If one of the two lists is shorter, its first entry
            is used for the missing ones.

    Raises:
        OptionError: TensorRT refuses a profile.
    """
    for index in range(max(len(profiles), len(values))):
        shapes, held = _at(profiles, index), _at(values, index)
        if builder.config.add_optimization_profile(make_profile(builder, shapes, held)) < 0:
            raise OptionError(
                f"TensorRT refuses optimization profile {index}: {dict(shapes) | dict(held)}."
            )


def _at(profiles: Sequence[Profile], index: int) -> Profile:
    if not profiles:
        return {}
    return profiles[index] if index < len(profiles) else profiles[0]


def make_profile(builder: OpenBuilder, profile: Profile, values: Profile | None = None) -> Any:
    """Make TensorRT's object for a profile.

    Args:
        builder: makes it.
        profile: the shapes of the inputs.
        values: the values of the inputs that hold shapes; these inputs get no shape, since theirs is fixed.

    Raises:
        OptionError: TensorRT refuses a shape or a value.
    """
    log, held = builder.log, values or {}
    native = made(builder.native.create_optimization_profile(), "optimization profile", log)
    for name, shapes in profile.items():
        if name not in held:
            with explained(log, f"TensorRT refuses the shapes of input '{name}'", OptionError):
                native.set_shape(name, shapes.min, shapes.opt, shapes.max)
    for name, given in held.items():
        with explained(log, f"TensorRT refuses the values of input '{name}'", OptionError):
            native.set_shape_input(name, given.min, given.opt, given.max)
    return native


def _check_fits(spec: TensorSpec, shapes: ShapeRange) -> None:
    for which in ("min", "opt", "max"):
        shape: Shape = getattr(shapes, which)
        fits = len(shape) == len(spec.dims) and all(
            not isinstance(dim, int) or dim == extent for dim, extent in zip(spec.dims, shape)
        )
        if not fits:
            raise OptionError(
                f"--shape of input '{spec.name}': {which} is {_SHAPES.text(shape)}, but in the network "
                f"it is {_dims_text(spec)}."
            )


def _is_static(spec: TensorSpec) -> bool:
    return all(isinstance(dim, int) for dim in spec.dims)


def _dims_text(spec: TensorSpec) -> str:
    return "x".join("?" if dim is None else str(dim) for dim in spec.dims)


def _example(spec: TensorSpec, batch: int) -> str:
    """A plausible shape: `batch` for a dynamic first dimension, and 224 for other dynamic dimensions."""
    extents = [
        dim if isinstance(dim, int) else batch if index == 0 else 224
        for index, dim in enumerate(spec.dims)
    ]
    return _SHAPES.text(tuple(extents))
