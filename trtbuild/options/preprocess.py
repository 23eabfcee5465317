"""Preprocessing of images, declared in a small TOML file or on the command line.

For pixels p (uint8, or any number), in this order: resize (and padding), crop, colour order, then

    x = (p * scale - mean) / std        per channel, in float32

and the layout that the network wants. An example::

    layout = "NCHW"
    color  = "RGB"
    scale  = 0.00392156862745098
    mean   = [0.485, 0.456, 0.406]
    std    = [0.229, 0.224, 0.225]
    resize = 256          # the short side; or [height, width] exactly
    crop   = 224          # from the centre; or [height, width]

YOLO's letterbox (the whole image, with grey borders)::

    resize    = 640       # a square; or [height, width]
    letterbox = true
    pad       = 114       # of the borders, in pixel values

Resizing is Pillow's, whose filters widen when an image shrinks (antialiasing); pixels of other types
than uint8 are resized as float32.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from trtbuild.errors import DataError, OptionError
from trtbuild.options.fields import option
from trtbuild.options.tables import make, merge, read_file, read_table, to_table
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

__all__ = ["ImageSize", "Preprocess", "read_preprocess"]

ImageSize = int | tuple[int, int]

_LONGEST_SIDE = 65_535  # pixels; the most that a JPEG has

_LARGEST, _SMALLEST = 3.4e38, 1.2e-38  # of float32, in which pixels are computed
_FILTERS = {name: name.upper() for name in ("bilinear", "bicubic", "nearest", "lanczos", "box")}
_ADDED = frozenset({"interpolation", "letterbox", "pad", "input"})


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
    sides = sides if isinstance(sides, list | tuple) else [sides]
    try:
        # true, or 16.5, is no size, although Python makes a whole number of it
        numbers = [int(side) for side in sides if isinstance(side, str) or type(side) is int]
    except ValueError:
        numbers = []
    numbers = numbers if len(numbers) == len(sides) else []
    if len(numbers) not in (1, 2) or not all(1 <= number <= _LONGEST_SIDE for number in numbers):
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
        None, "Short side in pixels, or HEIGHTxWIDTH.", metavar="SIZE", unit="pixels",
        parse=_size, when_absent="images keep their size", example="256",
    )  # fmt: skip
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box"] = option(
        "bilinear", "How images are resized, as Pillow does it."
    )
    letterbox: bool = option(
        False,
        "Resize the whole image into --resize (a square, or HEIGHTxWIDTH) and pad the rest.",
    )
    pad: float = option(114.0, "Pixel value of the letterbox's borders.")
    crop: ImageSize | None = option(
        None, "Side of the centre square, or HEIGHTxWIDTH.", metavar="SIZE", unit="pixels",
        parse=_size, when_absent="everything is kept", example="[224, 224]",
    )  # fmt: skip
    array: str | None = option(
        None, "Array of images in an .npz file.", when_absent="the one that fits"
    )
    input: str | None = option(
        None, "Input that takes the images; others take arrays as they are.", flag="--image-input",
        when_absent="the only one of rank 4",
    )  # fmt: skip

    def __post_init__(self) -> None:
        _check_choice("layout", self.layout, ("NCHW", "NHWC"))
        _check_choice("color", self.color, ("RGB", "BGR", "GRAY"))
        _check_choice("interpolation", self.interpolation, tuple(_FILTERS))
        for name in ("mean", "std"):
            self._check_count(name, len(getattr(self, name)))
        if self.letterbox and self.resize is None:
            raise OptionError("preprocessing: 'letterbox' needs 'resize', the size to fill.")
        numbers = {"scale": [self.scale], "mean": self.mean, "std": self.std, "pad": [self.pad]}
        for name, some in numbers.items():
            if not all(abs(one) <= _LARGEST for one in some):
                raise OptionError(f"preprocessing: '{name}' must be finite, and fit into float32.")
        if min(self.std) < _SMALLEST:
            raise OptionError("preprocessing: 'std' holds a number that is not above zero.")

    def _check_count(self, name: str, count: int) -> None:
        channels = 1 if self.color == "GRAY" else 3
        if count in (1, channels) or (self.color != "GRAY" and count >= 4):
            return
        more = "" if self.color == "GRAY" else ", or one for each of four and more channels"
        raise OptionError(
            f"preprocessing: '{name}' has {count} numbers; {self.color} takes 1 or {channels}{more}."
        )

    def apply(
        self, pixels: np.ndarray, name: str = "image", channels: int | None = None
    ) -> np.ndarray:
        """Turn one image into the network's input.

        Args:
            pixels: (H, W), (H, W, 1) or (H, W, 3), RGB; or (H, W, `channels`), of which BGR turns round the
                first three. uint8 or any other numbers.
            name: of the image, for messages.
            channels: what the network takes; None where it does not say.

        Returns:
            float32, (1, C, H', W') or (1, H', W', C).

        Raises:
            DataError: the image has another rank or number of channels, or is smaller than the crop.
        """
        import numpy as np

        image = self._fitted(_channels_last(pixels, name, channels), name)
        image = _colored(_cropped(image, self.crop, name), self.color, name)
        for setting, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, image.shape[2]):
                raise DataError(
                    f"the image '{name}' has {counted(image.shape[2], 'channel')}, and '{setting}' has "
                    f"{counted(len(numbers), 'number')}."
                )
        values = image.astype(np.float32) * np.float32(self.scale)
        values = (values - _row(self.mean)) / _row(self.std)
        ordered = values.transpose(2, 0, 1) if self.layout == "NCHW" else values
        return np.ascontiguousarray(ordered[None], dtype=np.float32)

    def _fitted(self, image: np.ndarray, name: str) -> np.ndarray:
        """The image in the size of `resize`, with borders where it is to be seen whole."""
        if self.resize is None:
            return image
        height, width = image.shape[:2]
        if isinstance(self.resize, int) and not self.letterbox:
            factor = self.resize / min(height, width)
            return self._resized(image, (round(height * factor), round(width * factor)), name)
        size = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if not self.letterbox:
            return self._resized(image, size, name)
        factor = min(size[0] / height, size[1] / width)
        inner = self._resized(image, (round(height * factor), round(width * factor)), name)
        return _padded(inner, size, self.pad)

    def _resized(self, image: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
        size = (max(1, size[0]), max(1, size[1]))
        if size == image.shape[:2]:
            return image
        if image.dtype.kind not in "uif":
            raise DataError(f"the image '{name}' is {image.dtype}; resizing takes numbers.")
        return _resampled(image, size, self.interpolation)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types, for the manifest and for digests.

        What newer versions have added stands there only where it is set, so that a calibration of an
        older one still counts as made with the same preprocessing.
        """
        unset = {
            f.name for f in fields(self) if f.name in _ADDED and getattr(self, f.name) == f.default
        }
        return {name: value for name, value in to_table(self).items() if name not in unset}


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


def _channels_last(pixels: np.ndarray, name: str, channels: int | None) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, channels):
        return pixels
    counts = "1 or 3" if channels in (None, 1, 3) else f"1, 3 or {channels}"
    hint = "Arrays that need none go without --preprocess."
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4, channels):
        hint = "These pixels are channels first; bring the channels to the end: array.transpose(0, 2, 3, 1)."
    raise DataError(
        f"the image '{name}' has the shape {pixels.shape}; preprocessing takes (height, width) or "
        f"(height, width, {counts}). {hint}"
    )


def _resampled(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    import numpy as np
    from PIL import Image

    how = Image.Resampling[_FILTERS[interpolation]]
    height, width = size
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), how))
    # a channel at a time: Pillow would take a fourth one for transparency, and resizes no other deep pixels
    values = image if image.dtype == np.uint8 else image.astype(np.float32)
    planes = [
        Image.fromarray(np.ascontiguousarray(values[:, :, channel])).resize((width, height), how)
        for channel in range(image.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _padded(image: np.ndarray, size: tuple[int, int], value: float) -> np.ndarray:
    """The image in the centre of a larger one; of an odd border the larger half is right and below."""
    import numpy as np

    fits = image.dtype.kind == "f" or (
        value % 1 == 0 and np.iinfo(image.dtype).min <= value <= np.iinfo(image.dtype).max
    )
    dtype = image.dtype if fits else np.dtype(np.float32)
    whole = np.full((*size, image.shape[2]), value, dtype)
    top, left = (size[0] - image.shape[0]) // 2, (size[1] - image.shape[1]) // 2
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole


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


def _colored(image: np.ndarray, color: str, name: str) -> np.ndarray:
    import numpy as np

    channels = image.shape[2]
    if color == "GRAY":
        if channels not in (1, 3):
            raise DataError(
                f"the image '{name}' has {channels} channels, of which no GRAY is made."
            )
        # ITU-R BT.601 luma, as Pillow's mode L
        weights = _row((0.299, 0.587, 0.114))
        return image if channels == 1 else (image @ weights)[:, :, None]
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    if color == "RGB":
        return image
    if channels > 4:
        raise DataError(
            f"the image '{name}' has {channels} channels; so their BGR order is not known."
        )
    return image[:, :, [2, 1, 0, *range(3, channels)]]
