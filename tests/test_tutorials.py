"""The shell blocks of the tutorials run as written, each in a folder with the files that its page names.

The classifier's network is the page's own. The others are real networks that are not part of the project;
small networks of the same kind replace them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.networks.network import from_text, sentence_embedding

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parent.parent
PAGES = {page.stem.removeprefix("tutorial-"): page for page in PROJECT.glob("docs/tutorial-*.md")}

DETECTOR = """detector (float[1, 3, 240, 320] input) => (float[1, 300, 2] scores, float[1, 300, 4] boxes) {
    found = Conv <kernel_shape = [16, 16], strides = [16, 16]> (input, w)
    last = Transpose <perm = [0, 2, 3, 1]> (found)
    shape = Constant <value_ints = [1, 300, 6]> ()
    each = Reshape (last, shape)
    sizes = Constant <value_ints = [2, 2, 2]> ()
    logits, low, size = Split <axis = 2> (each, sizes)
    scores = Softmax <axis = 2> (logits)
    place = Sigmoid (low)
    extent = Sigmoid (size)
    corner = Mul (place, half)
    part = Mul (extent, half)
    other = Add (corner, part)
    boxes = Concat <axis = 2> (corner, other) }"""


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def classifier(folder: Path) -> None:
    shutil.copytree(PROJECT / "samples", folder / "samples")


def detector(folder: Path) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.1, (6, 3, 16, 16)).astype(np.float32)
    network = from_text(DETECTOR, {"w": weight.shape})
    network.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    onnx.save(network, folder / "ultraface_rfb320.onnx")
    for name, count in (("photos", 12), ("others", 8)):
        (folder / name).mkdir()
        for number in range(count):
            coarse = random.integers(0, 256, (15, 20, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{number}.png")
    first, *rest = blocks(PAGES["detector"], "toml")[0].splitlines(keepends=True)
    (folder / first.removeprefix("# ").strip()).write_text("".join(rest))


def ocr(folder: Path) -> None:
    sample = PROJECT / "samples" / "ocr"
    shutil.copyfile(sample / "lines.onnx", folder / "ppocrv4_rec.onnx")
    subprocess.run([sys.executable, sample / "lines.py", folder / "images"], check=True)
    for part, name in (("calibration", "lines"), ("test", "others")):
        files = sorted((folder / "images" / part).glob("*.png"))
        pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files]) / 255
        np.savez(folder / f"{name}.npz", pixels[:, None])


def transformer(folder: Path) -> None:
    onnx.save(sentence_embedding(), folder / "minilm.onnx")
    random = np.random.default_rng(0)
    ids = random.integers(1, 1000, (64, 64))
    mask = np.arange(64) < random.integers(4, 64, 64)[:, None]
    tokens = {"input_ids": ids * mask, "attention_mask": mask.astype(np.int64)}
    np.savez(folder / "others.npz", **{name: array[32:] for name, array in tokens.items()})
    np.savez(folder / "few.npz", **{name: array[:32] for name, array in tokens.items()})
    # the page's own function needs a tokenizer from the network; tests/test_docs_code.py runs it
    (folder / "sentences.py").write_text(
        "import numpy as np\n\n\ndef calibration():\n    yield dict(np.load('few.npz'))\n"
    )


FOLDERS: dict[str, Callable[[Path], None]] = {
    "classifier": classifier,
    "detector": detector,
    "ocr": ocr,
    "transformer": transformer,
}


def test_every_tutorial_has_what_it_names() -> None:
    assert sorted(PAGES) == sorted(FOLDERS)


@pytest.mark.nightly
@pytest.mark.parametrize("name", FOLDERS)
def test_the_commands_of_a_tutorial_run(name: str, tmp_path: Path) -> None:
    FOLDERS[name](tmp_path)
    # the replacement network may miss a limit (1); a wrong command exits with 2 or more
    allowed = 0 if name == "classifier" else 1
    head = f"""set -e
trtbuild() {{ "{sys.executable}" -m trtbuild "$@" || test $? -le {allowed}; }}
"""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    for block in blocks(PAGES[name], "sh"):
        command = ["bash", "-c", head + block]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    if name == "classifier":
        assert (tmp_path / "repository" / "digits" / "config.pbtxt").is_file()
