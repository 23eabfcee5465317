"""samples/qat: scenes have correct labels, and training with rounding wins back the build's loss."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "qat"


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("compare", "network"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(SAMPLE)
    import compare

    yield compare
    for name in ("compare", "network"):
        sys.modules.pop(name, None)


def test_scenes_say_where_their_ink_is(sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = sample.network
    images, positions = network.scenes(200, test=True)
    pixels = (positions.astype(np.float64) + 1) * (network.SIZE - 1) / 2
    ink = images[:, 0] * (images[:, 0] > 0.4)  # four times the noise: ink, nearly all of it
    each = np.arange(network.SIZE)
    centres = np.stack([ink.sum(2) @ each, ink.sum(1) @ each], 1) / ink.sum((1, 2))[:, None]
    assert np.abs(centres - pixels).max() < 1
    assert network.found(positions, positions) == 100
    step = 2 / (network.SIZE - 1)
    assert network.found(positions + np.float32([0.24, 0]) * step, positions) == 100
    assert network.found(positions + np.float32([0, 0.26]) * step, positions) == 0
    assert not np.array_equal(images, network.scenes(200)[0])


@pytest.mark.nightly
def test_the_build_loses_and_training_with_rounding_wins_it_back(
    sample: Any, tmp_path: Path
) -> None:
    found = sample.compare(tmp_path, 0)
    # two standard errors: another machine sums in another order, so it trains another network
    assert found["float: default build"] < found["float"] - 1.2
    assert found["float: trained with rounding"] > found["float: default build"] + 1.2
    assert found["float: trained with rounding"] > found["float, trained on: default build"] - 1.2
