"""Make scenes of discs, squares and triangles on uneven ground, as PNG files of several sizes.

    python scenes.py FOLDER

writes ``FOLDER/calibration`` (96 scenes), ``FOLDER/test`` (96 others), and ``FOLDER/test.json`` with the
boxes of the test scenes, in COCO's format.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("disc", "square", "triangle")
NUM_IMAGES = 96


def scene(
    random: np.random.Generator, width: int, height: int
) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """Return a scene, and the kind and box (left, top, width, height) of each object in it."""
    ground = random.integers(40, 216, (3, 4, 3)).astype(np.uint8)
    image = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    found: list[tuple[int, list[int]]] = []
    for _ in range(random.integers(1, 5)):
        kind, size = (
            int(random.integers(len(KINDS))),
            int(random.integers(height // 6, height // 2)),
        )
        left = int(random.integers(2, width - size - 2))
        top = int(random.integers(2, height - size - 2))
        if any(_overlap((left, top, size, size), box) for _, box in found):
            continue
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        corner = (left + size, top + size)
        if kind == 0:
            draw.ellipse((left, top, *corner), fill=colour)
        elif kind == 1:
            draw.rectangle((left, top, *corner), fill=colour)
        else:
            draw.polygon([(left, corner[1]), corner, (left + size // 2, top)], fill=colour)
        found.append((kind, [left, top, size, size]))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.8)))
    noise = random.normal(0, random.uniform(1, 8), (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)), found


def _overlap(first: tuple[int, ...], second: list[int]) -> bool:
    return all(
        max(first[axis], second[axis])
        < min(first[axis] + first[axis + 2], second[axis] + second[axis + 2]) + 2
        for axis in (0, 1)
    )


def write(folder: Path, seed: int) -> dict[str, object]:
    """Write scenes into `folder`, and return their annotations in COCO's format."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    images, boxes = [], []
    for number in range(NUM_IMAGES):
        width, height = ((192, 128), (160, 160), (128, 176))[number % 3]
        image, found = scene(random, width, height)
        image.save(folder / f"{number:03d}.png")
        images.append(
            {"id": number, "file_name": f"{number:03d}.png", "width": width, "height": height}
        )
        boxes += [
            {"id": len(boxes) + place, "image_id": number, "category_id": kind, "bbox": box,
             "area": box[2] * box[3], "iscrowd": 0}
            for place, (kind, box) in enumerate(found)
        ]  # fmt: skip
    kinds = [{"id": number, "name": name} for number, name in enumerate(KINDS)]
    return {"images": images, "annotations": boxes, "categories": kinds}


def main(place: str) -> None:
    """Write everything into the folder `place`."""
    folder = Path(place)
    write(folder / "calibration", seed=1)
    (folder / "test.json").write_text(json.dumps(write(folder / "test", seed=2)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
