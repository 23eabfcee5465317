"""The sample does what it claims: half of the channels, and hardly an image lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")
pytest.importorskip("sklearn")

from trtbuild.cli.main import run  # noqa: E402
from trtbuild.options.measure import MeasureOptions  # noqa: E402

if TYPE_CHECKING:
    from types import ModuleType

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "digits_pytorch"


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SAMPLE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    import compress

    yield compress
    torch.set_num_threads(threads)
    for name in ("compress", "network"):
        sys.modules.pop(name, None)


def test_the_sample_halves_the_network_and_keeps_its_accuracy(
    sample: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = MeasureOptions(warmup_ms=1, duration_ms=20)  # no limit is on latency
    monkeypatch.setattr(sample, "MeasureOptions", lambda **_: short)
    steps = {step.name: step for step in sample.compress(tmp_path, epochs=5)}
    dense, tuned, int8 = steps["dense"], steps["fine-tuned"], steps["INT8"]
    # One image is 0.19 points: the limits are five images and two.
    assert tuned.top1 >= dense.top1 - 1.0
    assert int8.top1 >= steps["folded"].top1 - 0.5
    assert int8.top1 >= tuned.top1 - 0.5
    assert int8.macs <= 0.3 * dense.macs
    assert steps["half of the channels"].top1 < 60
    assert int8.path.stat().st_size < 0.25 * dense.path.stat().st_size

    monkeypatch.chdir(SAMPLE)
    output = tmp_path / "digits.onnx"
    line = f"export network:Digits --weights {tmp_path / 'pruned'} --input 1x1x8x8 --dynamic batch"
    assert run([*line.split(), "-o", str(output), "--quiet"]) == 0
    assert output.stat().st_size < 0.3 * dense.path.stat().st_size
