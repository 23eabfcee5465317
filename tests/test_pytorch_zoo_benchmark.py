"""benchmarks/pytorch_zoo.py: all steps succeed, for a module of our own and for installed packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from tests.trtbuild.pytorch.prune_cases import chain  # noqa: E402
from trtbuild.pytorch import InputSpec  # noqa: E402

ALL_THE_WAY = dict.fromkeys(("fold", "prune", "export", "quantize", "build"), "ok")


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    monkeypatch.delitem(sys.modules, "pytorch_zoo", raising=False)
    import pytorch_zoo

    return pytorch_zoo


@pytest.mark.nightly
@pytest.mark.parametrize("dynamic", [{0: "batch"}, {}], ids=["any batch", "batch of two"])
def test_a_module_goes_all_the_way_and_a_refusal_is_told(zoo: Any, dynamic: dict[int, str]) -> None:
    torch.manual_seed(0)
    found = zoo.tried((chain(), [InputSpec((2, 3, 16, 16), dynamic=dynamic)]), builds=True)
    gone = float(found.pop("gone"))
    assert found == ALL_THE_WAY
    # keeping 0.7 of the channels on both sides of most weights leaves about half of the weights
    assert 0.3 < gone < 0.6
    refused = zoo.tried((chain(), [InputSpec((2, 5, 16, 16))]), builds=True)
    assert set(refused) == {*zoo.STEPS} - {"build"}
    assert all("channels" in refused[step] for step in ("fold", "prune", "export"))
    rows = {"own": [{"name": "chain", **found}, {"name": "wrong", **refused}]}
    assert "| own | 2 | 0 | 1 | 1 | 1 | 1 | 1 | 0 |" in zoo.page(rows, 0)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "label",
    ["torchvision:resnet18", "timm:convnext_atto", "transformers:ViT", "ultralytics:yolov8n"],
)
def test_a_definition_of_a_package_goes_all_the_way(zoo: Any, label: str) -> None:
    package = label.partition(":")[0]
    pytest.importorskip(package, reason=f"{package} is not installed")
    found = zoo.apart(label, 0, 600, builds=True)
    assert {step: found.get(step) for step in zoo.STEPS} == ALL_THE_WAY, found
