"""The same build from Python, with PyTorch's DataLoader in the place of a function.

    python from_dataloader.py FOLDER

Needs the extra ``torch``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sentences import Sentences
from torch.utils.data import DataLoader

import trtbuild

HERE = Path(__file__).parent


def main(place: str) -> None:
    """Quantize, verify, and print the verdict."""
    built = trtbuild.quantize(
        HERE / "sentences.onnx",
        DataLoader(Sentences(seed=1, count=256), batch_size=16),
        verify_data=DataLoader(Sentences(seed=2, count=160), batch_size=16),
        task="embed",
        min_agreement=90,
        output=place,
    )
    print(built.verdict, "because", built.why)
    print(built.metrics["tensorrt_form"])
    print(built.report(Path(place) / "report.html"))


if __name__ == "__main__":
    main(sys.argv[1])
