"""Make lines of text as images of 32 x 160 pixels, in the font that Pillow brings.

    python lines.py FOLDER

writes ``FOLDER/calibration`` (128 lines) and ``FOLDER/test`` (128 others), as PNG files with the text in
their names.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ALPHABET = string.digits + string.ascii_uppercase
HEIGHT, WIDTH = 32, 160
NUM_LINES = 128


def line(random: np.random.Generator) -> tuple[Image.Image, str]:
    """Return the grey image of a line, and its text."""
    text = "".join(random.choice(list(ALPHABET), random.integers(4, 9)))
    font = ImageFont.load_default(int(random.integers(17, 24)))
    ground, ink = int(random.integers(150, 256)), int(random.integers(0, 90))
    image = Image.new("L", (WIDTH, HEIGHT), ground)
    left, top, right, bottom = font.getbbox(text)
    x = random.integers(2, max(3, WIDTH - int(right - left) - 2))
    y = random.integers(1, max(2, HEIGHT - int(bottom - top) - 1))
    ImageDraw.Draw(image).text((int(x) - left, int(y) - top), text, font=font, fill=ink)
    image = image.rotate(random.uniform(-2, 2), Image.Resampling.BILINEAR, fillcolor=ground)
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.9)))
    noise = random.normal(0, random.uniform(1, 14), (HEIGHT, WIDTH))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)), text


def main(place: str) -> None:
    """Write everything into the folder `place`."""
    for seed, part in enumerate(("calibration", "test"), start=1):
        folder, random = Path(place) / part, np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(NUM_LINES):
            image, text = line(random)
            image.save(folder / f"{number:03d}-{text}.png")


if __name__ == "__main__":
    main(sys.argv[1])
