"""Preprocessing of images, declared in a small TOML file or on the command line.

For pixels p (uint8, or any number), in this order: resize, crop, colour order, then

    x = (p * scale - mean) / std        per channel, in float32

and the layout that the network wants. An example::

    layout = "NCHW"
    color  = "RGB"
    scale  = 0.00392156862745098
    mean   = [0.485, 0.456, 0.406]
    std    = [0.229, 0.224, 0.225]
    resize = 256          # the short side; or [height, width] exactly
    crop   = 224          # from the centre; or [height, width]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from trtbuild.errors import DataError, OptionError
from trtbuild.toml_files import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ImageSize", "Preprocess", "read_preprocess"]

ImageSize = int | tuple[int, int]

_LAYOUTS = ("NCHW", "NHWC")
_COLORS = ("RGB", "BGR", "GRAY")


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the network's input; the module's docstring has the formula.

    Attributes:
        layout: ``NCHW`` or ``NHWC``: what the network takes.
        color: ``RGB``, ``BGR`` or ``GRAY``: the order that the network takes. Images are read as RGB.
        scale: factor on every pixel, before mean and std.
        mean: one number, or one a channel (in the network's order).
        std: one number, or one a channel.
        resize: short side in pixels (bilinear), or (height, width); None leaves the size.
        crop: side of the centre square, or (height, width); None keeps everything.
        array: name of the array of images in an ``.npz`` file; None finds it.
    """

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: ImageSize | None = None
    crop: ImageSize | None = None
    array: str | None = None

    def __post_init__(self) -> None:
        _check_choice("layout", self.layout, _LAYOUTS)
        _check_choice("color", self.color, _COLORS)
        channels = 1 if self.color == "GRAY" else 3
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count not in (1, channels):
                raise OptionError(
                    f"preprocessing: '{name}' has {count} numbers; {self.color} takes 1 or {channels}."
                )
        if not all(self.std) or not np.isfinite([self.scale, *self.mean, *self.std]).all():
            raise OptionError("preprocessing: 'std' holds a zero, or a number is not finite.")

    def apply(self, pixels: np.ndarray, name: str = "image") -> np.ndarray:
        """Turn one image into the network's input.

        Args:
            pixels: (H, W), (H, W, 1) or (H, W, 3), RGB; uint8 or any other numbers.
            name: of the image, for messages.

        Returns:
            float32, (1, C, H', W') or (1, H', W', C).

        Raises:
            DataError: the image has another rank or number of channels, or is smaller than the crop.
        """
        image = _resized(_channels_last(pixels, name), self.resize, name)
        image = _colored(_cropped(image, self.crop, name), self.color)
        values = image.astype(np.float32) * np.float32(self.scale)
        values = (values - _row(self.mean)) / _row(self.std)
        ordered = values.transpose(2, 0, 1) if self.layout == "NCHW" else values
        return np.ascontiguousarray(ordered[np.newaxis], dtype=np.float32)

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON types, for the manifest and for digests."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def read_preprocess(path: Path | None, overrides: Mapping[str, Any]) -> Preprocess | None:
    """Read a TOML file and lay command-line settings over it; None when neither says anything.

    Raises:
        OptionError: the file cannot be read, or names an unknown setting or an impossible value.
    """
    settings: dict[str, Any] = {} if path is None else read_toml(path, "preprocessing")
    settings |= {name: value for name, value in overrides.items() if value is not None}
    if path is None and not settings:
        return None
    known = {field.name for field in fields(Preprocess)}
    if unknown := sorted(set(settings) - known):
        raise OptionError(
            f"preprocessing: unknown setting '{unknown[0]}' in '{path}'; "
            f"known are {', '.join(sorted(known))}."
        )
    return Preprocess(**{name: _value(name, value) for name, value in settings.items()})


def _value(name: str, value: Any) -> Any:
    try:
        if name in ("mean", "std"):
            numbers = value if isinstance(value, list | tuple) else [value]
            return tuple(float(number) for number in numbers)
        if name == "scale":
            return float(value)
        if name in ("resize", "crop"):
            return _size(value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"preprocessing: '{name}' cannot be {value!r}.") from error
    if not isinstance(value, str):
        raise OptionError(f"preprocessing: '{name}' cannot be {value!r}.")
    return value


def _size(value: Any) -> ImageSize:
    sides = [int(side) for side in (value if isinstance(value, list | tuple) else [value])]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(value)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _row(numbers: tuple[float, ...]) -> np.ndarray:
    return np.asarray(numbers, dtype=np.float32)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(
            f"preprocessing: '{name}' cannot be {value!r}; it is one of {', '.join(allowed)}."
        )


def _channels_last(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis]
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3):
        return pixels
    raise DataError(
        f"the image '{name}' has the shape {pixels.shape}; preprocessing takes (height, width) or "
        "(height, width, 1 or 3). Arrays that need none go without --preprocess."
    )


def _resized(image: np.ndarray, size: ImageSize | None, name: str) -> np.ndarray:
    if size is None:
        return image
    height, width = image.shape[:2]
    if isinstance(size, int):
        factor = size / min(height, width)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
    if size == (height, width):
        return image
    if image.dtype != np.uint8:
        raise DataError(f"resizing takes uint8 pixels, and the image '{name}' is {image.dtype}.")
    mode = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    out = np.asarray(mode.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return out[:, :, np.newaxis] if out.ndim == 2 else out


def _cropped(image: np.ndarray, size: ImageSize | None, name: str) -> np.ndarray:
    if size is None:
        return image
    height, width = (size, size) if isinstance(size, int) else size
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise DataError(
            f"the image '{name}' has {image.shape[0]}x{image.shape[1]} pixels, less than the crop "
            f"of {height}x{width}; set 'resize'."
        )
    return image[top : top + height, left : left + width]


def _colored(image: np.ndarray, color: str) -> np.ndarray:
    if color == "GRAY":
        # ITU-R BT.601 luma, as Pillow's mode L
        weights = _row((0.299, 0.587, 0.114))
        return image if image.shape[2] == 1 else (image @ weights)[:, :, np.newaxis]
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return image[:, :, ::-1] if color == "BGR" else image
