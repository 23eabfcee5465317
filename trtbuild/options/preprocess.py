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

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trtbuild.errors import DataError, OptionError
from trtbuild.options.fields import option
from trtbuild.options.values import make, merge, read_file, read_table, to_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

__all__ = ["ImageSize", "Preprocess", "read_preprocess"]

ImageSize = int | tuple[int, int]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(
            f"cannot be '{text}'; write one number or one a channel: 0.5,0.5,0.5"
        ) from error


def _size(given: Any) -> ImageSize:
    """A side, or height and width: ``256``, ``224x224``, ``[224, 224]``."""
    sides = given.split("x") if isinstance(given, str) else given
    try:
        numbers = [int(side) for side in (sides if isinstance(sides, list | tuple) else [sides])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ValueError(f"cannot be {given!r}; write for example 256 or 224x224")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the network's input; the module's docstring has the formula."""

    layout: Literal["NCHW", "NHWC"] = option("NCHW", "Layout that the network takes.")
    color: Literal["RGB", "BGR", "GRAY"] = option(
        "RGB", "Colour order that the network takes; images are read as RGB."
    )
    scale: float = option(1.0, "Factor on every pixel, before mean and std.")
    mean: tuple[float, ...] = option(
        (0.0,), "One number or one a channel, in the network's order: 0.485,0.456,0.406.",
        separator=",", parse=_number,
    )  # fmt: skip
    std: tuple[float, ...] = option(
        (1.0,), "One number or one a channel.", separator=",", parse=_number
    )
    resize: ImageSize | None = option(
        None, "Short side in pixels (bilinear), or HEIGHTxWIDTH.", metavar="SIZE", unit="pixels",
        parse=_size, when_absent="images keep their size", example="256",
    )  # fmt: skip
    crop: ImageSize | None = option(
        None, "Side of the centre square, or HEIGHTxWIDTH.", metavar="SIZE", unit="pixels",
        parse=_size, when_absent="everything is kept", example="[224, 224]",
    )  # fmt: skip
    array: str | None = option(
        None, "Array of images in an .npz file.", when_absent="the one that fits"
    )

    def __post_init__(self) -> None:
        _check_choice("layout", self.layout, ("NCHW", "NHWC"))
        _check_choice("color", self.color, ("RGB", "BGR", "GRAY"))
        channels = 1 if self.color == "GRAY" else 3
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count not in (1, channels):
                raise OptionError(
                    f"preprocessing: '{name}' has {count} numbers; {self.color} takes 1 or {channels}."
                )
        numbers = (self.scale, *self.mean, *self.std)
        if not all(self.std) or not all(math.isfinite(number) for number in numbers):
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
        import numpy as np

        image = _resized(_channels_last(pixels, name), self.resize, name)
        image = _colored(_cropped(image, self.crop, name), self.color)
        values = image.astype(np.float32) * np.float32(self.scale)
        values = (values - _row(self.mean)) / _row(self.std)
        ordered = values.transpose(2, 0, 1) if self.layout == "NCHW" else values
        return np.ascontiguousarray(ordered[None], dtype=np.float32)

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON types, for the manifest and for digests."""
        return to_table(self)


def read_preprocess(path: Path | None, overrides: Mapping[str, Any]) -> Preprocess | None:
    """Read a TOML file and lay other settings over it; None when neither says anything.

    Raises:
        OptionError: the file cannot be read, or names an unknown setting or an impossible value.
    """
    values = {} if path is None else read_file(Preprocess, path, "preprocessing")
    values = merge(values, read_table(Preprocess, overrides, "preprocessing"))
    return None if path is None and not values else make(Preprocess, values)


def _row(numbers: tuple[float, ...]) -> np.ndarray:
    import numpy as np

    return np.asarray(numbers, dtype=np.float32)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(
            f"preprocessing: '{name}' cannot be {value!r}; it is one of {', '.join(allowed)}."
        )


def _channels_last(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3):
        return pixels
    raise DataError(
        f"the image '{name}' has the shape {pixels.shape}; preprocessing takes (height, width) or "
        "(height, width, 1 or 3). Arrays that need none go without --preprocess."
    )


def _resized(image: np.ndarray, size: ImageSize | None, name: str) -> np.ndarray:
    if size is None:
        return image
    import numpy as np

    height, width = image.shape[:2]
    if isinstance(size, int):
        factor = size / min(height, width)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
    if size == (height, width):
        return image
    if image.dtype != np.uint8:
        raise DataError(f"resizing takes uint8 pixels, and the image '{name}' is {image.dtype}.")
    from PIL import Image

    mode = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    out = np.asarray(mode.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return out[:, :, None] if out.ndim == 2 else out


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
        return image if image.shape[2] == 1 else (image @ weights)[:, :, None]
    import numpy as np

    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return image[:, :, ::-1] if color == "BGR" else image
