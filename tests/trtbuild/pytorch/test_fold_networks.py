"""Folding whole networks, trained and deep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from tests.trtbuild.pytorch.resnet20 import pixels, pretrained  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx, fold_norms  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def test_folding_resnet20_keeps_its_answers(shared: Path) -> None:
    module = pretrained(shared)
    images, labels = pixels(shared, 300)
    result = fold_norms(module, [InputSpec((2, 3, 32, 32))])

    assert len(result.report.folded) == 19
    assert not result.report.left
    assert result.report.relative_error is not None
    assert result.report.relative_error < 1e-12
    with torch.no_grad():
        before, after = module(images), result.module(images)
    assert (before.argmax(1) == after.argmax(1)).all()
    # 274 of 300 is what the data's own record says of this network on these images (91.33 %).
    assert (after.argmax(1).numpy() == labels).sum() == 274


def test_resnet20_export(shared: Path) -> None:
    module = pretrained(shared)
    result = export_onnx(module, [InputSpec((2, 3, 32, 32), dynamic={0: "batch"})])
    names = {node.name: node.op_type for node in result.model.graph}
    assert "BatchNormalization" not in names.values()
    layers = {path for path, m in module.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert {name for name, kind in names.items() if kind == "Conv"} == layers
    assert names["linear"] == "Gemm"
    assert not any(node.metadata_props for node in result.model.graph)
    covered = {a.layer for a in result.activations}
    assert "layer1.0.conv1" in covered  # only its ReLU reads it
    assert "layer1.0.conv2" not in covered  # the sum is between them


def test_fifty_layers_with_large_means() -> None:
    """|mean| >> std: the unfolded float32 network is inaccurate, so float64 is the reference."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(50):
        layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()]
    module = randomize(torch.nn.Sequential(*layers))
    for norm in module:
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean += 100
    result = fold_norms(module, [InputSpec((1, 8, 6, 6))])
    assert len(result.report.folded) == 50
