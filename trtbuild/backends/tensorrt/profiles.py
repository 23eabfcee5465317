"""Optimization profiles: the smallest, usual and largest shape of each dynamic input."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.runtime.tensorrt.engine import ShapeRange
from trtbuild.runtime.tensorrt.logger import explained, made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.model.signature import TensorSpec
    from trtbuild.runtime.tensorrt.engine import Profile, Shape
    from trtbuild.runtime.tensorrt.logger import Log

__all__ = ["add_profiles", "make_profile", "parse_shapes", "profiles_for"]

_SHAPE = re.compile(r"\d+(x\d+)*|scalar")


def parse_shapes(texts: Sequence[str]) -> list[dict[str, ShapeRange]]:
    """Read ``input=min:opt:max`` texts; the n-th for an input belongs to the n-th profile.

    One shape instead of three means that it is all of them. Shapes are written ``1x3x224x224``.

    Raises:
        OptionError: a text that cannot be read, or min, opt, max out of order.
    """
    profiles: list[dict[str, ShapeRange]] = []
    for text in texts:
        name, _, shapes = text.rpartition("=")
        parts = shapes.split(":")
        if not name or len(parts) not in (1, 3) or not all(_SHAPE.fullmatch(p) for p in parts):
            raise OptionError(
                f"--shape '{text}' cannot be read. Write input=min:opt:max, for example "
                "images=1x3x224x224:8x3x224x224:32x3x224x224."
            )
        found = [() if p == "scalar" else tuple(int(d) for d in p.split("x")) for p in parts]
        given = ShapeRange(*(found * 3 if len(found) == 1 else found))
        _check_order(name, given)
        target = next((profile for profile in profiles if name not in profile), None)
        if target is None:
            target = {}
            profiles.append(target)
        target[name] = given
    return profiles


def _check_order(name: str, given: ShapeRange) -> None:
    same_rank = len(given.min) == len(given.opt) == len(given.max)
    if not same_rank or not given.holds(given.opt):
        raise OptionError(
            f"--shape of input '{name}': min {_text(given.min)}, opt {_text(given.opt)} and max "
            f"{_text(given.max)} must have one rank and min <= opt <= max in every dimension."
        )


def profiles_for(texts: Sequence[str], inputs: Sequence[TensorSpec]) -> list[dict[str, ShapeRange]]:
    """Return complete profiles for a network: every dynamic input in each of them.

    A profile that leaves an input out takes it from the first profile. A network whose inputs are all
    static needs none.

    Raises:
        OptionError: an input is unknown, its shape does not fit, or a dynamic input has no ``--shape``.
    """
    given = parse_shapes(texts)
    specs = {spec.name: spec for spec in inputs}
    for profile in given:
        for name, shapes in profile.items():
            if name not in specs:
                raise OptionError(
                    f"--shape names the input '{name}'; the network's inputs are {', '.join(specs)}."
                )
            _check_fits(specs[name], shapes)
    dynamic = [spec for spec in inputs if not _is_static(spec)]
    if not dynamic and not given:
        return []
    missing = [spec for spec in dynamic if not given or spec.name not in given[0]]
    if missing:
        spec = missing[0]
        raise OptionError(
            f"the input '{spec.name}' has the dynamic shape {_dims_text(spec)}. Say which shapes it will "
            f"have: --shape '{spec.name}={_example(spec, 1)}:{_example(spec, 8)}:{_example(spec, 32)}'."
        )
    return [{**given[0], **profile} for profile in given]


def add_profiles(builder: Any, config: Any, profiles: Sequence[Profile], log: Log) -> None:
    """Add the profiles to a builder configuration.

    Raises:
        OptionError: TensorRT refuses one.
    """
    for index, profile in enumerate(profiles):
        native = make_profile(builder, profile, log)
        if config.add_optimization_profile(native) < 0:
            raise OptionError(f"TensorRT refuses optimization profile {index}: {dict(profile)}.")


def make_profile(builder: Any, profile: Profile, log: Log) -> Any:
    """Make TensorRT's form of a profile.

    Raises:
        OptionError: TensorRT refuses a shape.
    """
    native = made(builder.create_optimization_profile(), "optimization profile", log)
    for name, shapes in profile.items():
        with explained(log, f"TensorRT refuses the shapes of input '{name}'", OptionError):
            native.set_shape(name, shapes.min, shapes.opt, shapes.max)
    return native


def _check_fits(spec: TensorSpec, shapes: ShapeRange) -> None:
    for which in ("min", "opt", "max"):
        shape: Shape = getattr(shapes, which)
        fits = len(shape) == len(spec.dims) and all(
            not isinstance(dim, int) or dim == extent for dim, extent in zip(spec.dims, shape)
        )
        if not fits:
            raise OptionError(
                f"--shape of input '{spec.name}': {which} is {_text(shape)}, and the network says "
                f"{_dims_text(spec)}."
            )


def _is_static(spec: TensorSpec) -> bool:
    return all(isinstance(dim, int) for dim in spec.dims)


def _text(shape: Shape) -> str:
    return "x".join(str(extent) for extent in shape) or "scalar"


def _dims_text(spec: TensorSpec) -> str:
    return "x".join("?" if dim is None else str(dim) for dim in spec.dims)


def _example(spec: TensorSpec, batch: int) -> str:
    """A shape that could be meant: `batch` in front, and 224 for other dynamic dimensions."""
    extents = [
        dim if isinstance(dim, int) else batch if index == 0 else 224
        for index, dim in enumerate(spec.dims)
    ]
    return _text(tuple(extents))
