"""A reader of data in a format of your own; here one picture with many tiles of 8 x 8 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 8


def read_sheet(place: str) -> Iterator[np.ndarray]:
    """Give the rows of a sheet as batches of images, ``[tiles, 1, 8, 8]``, grey from 0 to 1.

    It is called again for every pass over the data, and gives the same batches each time.

    Args:
        place: the part of ``--data sheet:PLACE`` after the colon.
    """
    with Image.open(place) as picture:
        pixels = np.asarray(picture.convert("L"), np.float32) / 255
    for top in range(0, pixels.shape[0] - SIDE + 1, SIDE):
        row = pixels[top : top + SIDE]
        tiles = row.reshape(SIDE, -1, SIDE).swapaxes(0, 1)
        yield tiles[:, np.newaxis]
