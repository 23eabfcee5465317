"""Put the quickstart's images on two sheets, ``calibration.png`` and ``test.png``, for the reader plug-in.

python make_sheet.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

QUICKSTART = Path(__file__).resolve().parent.parent / "quickstart"
COLUMNS = 20


def main(place: str) -> None:
    """Write both sheets into the folder `place`."""
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("calibration", "test"):
        images = np.load(QUICKSTART / f"{part}.npz")["image"]
        rows = len(images) // COLUMNS
        tiles = images[: rows * COLUMNS].reshape(rows, COLUMNS, 8, 8).swapaxes(1, 2)
        pixels = (tiles.reshape(rows * 8, -1) * (255 / 16)).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{part}.png")


if __name__ == "__main__":
    main(sys.argv[1])
