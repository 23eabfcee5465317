"""Pictures for people: a sample, and what both networks answer for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from trtbuild.options.preprocess import Preprocess

__all__ = ["LONGEST_SIDE", "Answer", "Box", "Pixels", "View", "as_pixels"]

LONGEST_SIDE = 320
"""Longest side of a picture, in pixels."""

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""A picture, uint8 ``[height, width, 3]``, RGB."""

# Values up to the first peak are shares of full brightness, beyond the second they are pixel values. Values
# between the two are neither, for example shares with noise: taken as pixel values they would be black.
_UNIT_PEAK, _LEAST_BYTE_PEAK, _BYTE_PEAK = 1.001, 2.0, 255.5


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        corners: x1, y1, x2, y2 as shares of the picture.
        label: class and score, in words.
        shared: whether the other network has this box, too.
    """

    corners: tuple[float, float, float, float]
    label: str
    shared: bool


@dataclass(frozen=True)
class Answer:
    """A network's answer for one sample: a text, boxes in its picture, or a picture."""

    text: str
    boxes: tuple[Box, ...] = ()
    picture: Pixels | None = None


@dataclass(frozen=True)
class View:
    """One sample.

    Attributes:
        picture: the network's input; None if it is not a picture.
        reference: the float network's answer.
        candidate: the answer of the network under test.
    """

    picture: Pixels | None
    reference: Answer
    candidate: Answer


def as_pixels(
    values: np.ndarray,
    preprocess: Preprocess | None = None,
    between: tuple[float, float] | None = None,
) -> Pixels | None:
    """Return one image of any layout and range as a picture; None without 1, 3 or 4 channels.

    Without `preprocess` and `between`, values from 0 to 1 are brightness, and values from 0 to 255 are pixel
    values if one exceeds 2; other values are stretched between their minimum and maximum.

    Args:
        values: ``[channels, height, width]`` or ``[height, width, channels]``.
        preprocess: how the image was made; it is undone.
        between: the values of black and full brightness, if known.
    """
    first, last = values.shape[0] in (1, 3, 4), values.shape[2] in (1, 3, 4)
    if not (first or last) or not values.size:
        return None
    image = (values.transpose(1, 2, 0) if first else values).astype(np.float64)
    image = np.nan_to_num(image, posinf=0.0, neginf=0.0)
    if preprocess is not None and preprocess.scale:
        image = (image * np.array(preprocess.std) + np.array(preprocess.mean)) / preprocess.scale
        if preprocess.color == "BGR" and image.shape[2] >= 3:
            image = image[..., [2, 1, 0]]
        image = image / _white(image)
    elif between is not None:
        image = (image - between[0]) / (between[1] - between[0])
    else:
        image = _spread(image)
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return _fitted((np.clip(image, 0.0, 1.0) * 255.0).round().astype(np.uint8))


def _white(image: np.ndarray) -> float:
    """The pixel value of white for such images: 1, 16, 255 or the largest value."""
    peak = float(image.max())
    return next((white for white in (1.0, 16.0, 255.0) if peak <= white * _UNIT_PEAK), peak)


def _spread(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    if low >= 0 and high <= _UNIT_PEAK:
        return image
    if low >= 0 and _LEAST_BYTE_PEAK < high <= _BYTE_PEAK:
        return image / 255.0
    return (image - low) / max(high - low, 1e-12)


def _fitted(pixels: Pixels) -> Pixels:
    """The picture, scaled down if a side is too long."""
    factor = LONGEST_SIDE / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    from PIL import Image  # imported here: most pictures are small enough

    size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
    small = Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BILINEAR)
    return np.asarray(small)
