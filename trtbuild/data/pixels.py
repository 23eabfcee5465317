"""Reads the pixels of an image file, with the values that the file holds.

Pillow is imported when a file is read: data in arrays does not need it.
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trtbuild.errors import first_line
from trtbuild.model.file_kinds import LFS_POINTER, is_lfs_pointer

if TYPE_CHECKING:
    from PIL import Image, ImageFile

__all__ = ["ImageFacts", "decode_image", "image_facts", "image_pixels", "images_as_rows"]

# Modes with one number per pixel that NumPy reads unchanged: 16 and 32 bits, and floats.
_DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
_SIXTEEN_BITS = re.compile(r"^(?!BGR).*;16[BLN]?$")  # "BGR;16" is three colours in 16 bits
_JPEG = b"\xff\xd8"
_EIGHT, _SIXTEEN = "8 bits", "16 bits"
# Grey with transparency, and black and white.
_GREY = frozenset({"LA", "La", "1"})


def decode_image(content: bytes, channels: int | None = None) -> np.ndarray:
    """Return the pixels of an image file.

    Eight bits per channel give uint8, 16 bits uint16; 32-bit integers and floats keep their type.
    Colours are RGB; transparency is kept only if four channels are wanted.

    Args:
        content: content of the file.
        channels: channels of the network's input; None if not known.

    Returns:
        (H, W), (H, W, 3) or (H, W, 4).

    Raises:
        ValueError: the file is not a readable image, for whatever reason.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return _pixels(image, content, channels)
    except MemoryError as error:
        raise ValueError("it does not fit into memory") from error
    except UnidentifiedImageError as error:
        other = LFS_POINTER if is_lfs_pointer(content) else "not an image of a known format"
        raise ValueError(f"it is {other}") from error
    except Exception as error:  # decoders of damaged bytes raise anything
        raise ValueError(first_line(error)) from error


class ImageFacts(NamedTuple):
    """Facts about an image file that are known without decoding it.

    Attributes:
        depth: depth of its pixels, in a few words; empty if it cannot be read.
        has_more: whether there are more images after the first, as in an animation or a document.
    """

    depth: str = ""
    has_more: bool = False


def image_facts(content: bytes) -> ImageFacts:
    """Return the facts about an image file; unreadable files are reported when they are decoded.

    Data that cameras append to a JPEG image, such as a depth map, does not count as an image.
    """
    if content.startswith(_JPEG):
        return ImageFacts(_EIGHT)
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as image:
        return ImageFacts(_depth(image), int(getattr(image, "n_frames", 1)) > 1)
    return ImageFacts()


def _depth(image: ImageFile.ImageFile) -> str:
    if image.mode in _DEEP:
        return {"I": "32 bits", "F": "floats"}.get(image.mode, _SIXTEEN)
    return _SIXTEEN if _has_sixteen_bits(image) else _EIGHT


def image_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image in memory, ``[height, width, 1 or 3]``.

    Colours are RGB, without transparency; 16 and 32-bit numbers, and floats, keep their values.
    """
    as_it_is = image.mode in ("L", "RGB") or image.mode in _DEEP
    mode = "L" if image.mode in _GREY else "RGB"
    pixels = np.asarray(image if as_it_is else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def images_as_rows(images: np.ndarray) -> np.ndarray:
    """Return one image or several as ``[images, height, width, channels]``.

    Args:
        images: ``[height, width]``, ``[height, width, 1, 3 or 4]``, or ``[images, height, width]``; other
            arrays are returned unchanged.
    """
    if images.ndim == 2:
        return images[np.newaxis, :, :, np.newaxis]
    if images.ndim == 3:
        is_one = images.shape[2] in (1, 3, 4)
        return images[np.newaxis] if is_one else images[..., np.newaxis]
    return images


def _pixels(image: ImageFile.ImageFile, content: bytes, channels: int | None) -> np.ndarray:
    if image.mode in _DEEP:
        values = np.asarray(image)
        return values.astype(values.dtype.newbyteorder("="))
    wanted = "RGBA" if channels == 4 and image.has_transparency_data else "RGB"
    if _is_deep_ppm(image):
        raise ValueError(
            "16 bits per channel are read from PNG, TIFF and gray PPM files only; convert it"
        )
    if _has_sixteen_bits(image):
        return _sixteen_bits(image, content)[:, :, : len(wanted)]
    if image.mode in _GREY and wanted == "RGB":
        return np.asarray(image.convert("L"))
    return np.asarray(image if image.mode in ("L", wanted) else image.convert(wanted))


def _is_deep_ppm(image: ImageFile.ImageFile) -> bool:
    """Whether a PPM file has more than 8 bits per colour; Pillow gives only the upper 8."""
    return (
        image.format == "PPM"
        and image.mode == "RGB"
        and any(
            isinstance(argument, int) and argument > 255
            for tile in image.tile
            for argument in (tile[3] if isinstance(tile[3], tuple) else ())
        )
    )


def _has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    return any(_SIXTEEN_BITS.search(_raw_mode(tile[3])) for tile in image.tile)


def _raw_mode(arguments: object) -> str:
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _sixteen_bits(image: ImageFile.ImageFile, content: bytes) -> np.ndarray:
    """The values of 16-bit colours, although Pillow gives only their upper bytes.

    The file is read again in the other byte order: Pillow then gives the lower bytes as the upper ones.
    """
    from PIL import Image

    upper = np.asarray(image).astype(np.uint16)
    with Image.open(io.BytesIO(content)) as again:
        if not all(re.fullmatch(r"RGBA?;16[BL]", _raw_mode(tile[3])) for tile in again.tile):
            raise ValueError("16 bits per channel are read from gray, RGB and RGBA images only")
        for place, tile in enumerate(again.tile):
            other = _in_other_order(tile[3])
            # before Pillow 11 a tile is a plain tuple
            named = hasattr(tile, "_replace")
            again.tile[place] = tile._replace(args=other) if named else (*tile[:3], other)
        lower = np.asarray(again)
    together: np.ndarray = upper * np.uint16(256) + lower
    return together


def _in_other_order(arguments: tuple[object, ...] | str) -> tuple[object, ...] | str:
    mode = _raw_mode(arguments)
    other = mode[:-1] + ("L" if mode.endswith("B") else "B")
    return (other, *arguments[1:]) if isinstance(arguments, tuple) else other
