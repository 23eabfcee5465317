"""samples/qat: spreading the channels changes no score; the four ways come out as the README says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def test_sizes_of_channels_do_not_change_the_scores(sample: Any) -> None:
    torch.manual_seed(0)
    module = sample.network.Mobile().double().eval()
    image = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = module(image)
        sample.network.spread(module)
        after = module(image)
    # a product and its quotient in float64, some 1e-16 for each of 20 layers
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12 * before.abs().max().item())
    ratio = module.norm.weight.max() / module.norm.weight.min()
    assert 8 < ratio < 128


@pytest.mark.nightly
def test_the_comparison(sample: Any, tmp_path: Path) -> None:
    found = sample.compare(tmp_path)
    assert found["float"] > 97
    # five images: another machine sums in another order
    assert found["ranges by their effect (the default)"] >= found["float"] - 1
    assert found["trained with rounding"] >= found["minmax"] - 1
    assert found["minmax"] < found["float"]
