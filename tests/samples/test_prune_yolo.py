"""samples/prune_yolo: with a rewrite, C2f is pruned, keeps the graph attributes, is saved and loaded."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from trtbuild.cli.main import run  # noqa: E402
from trtbuild.errors import ModelError  # noqa: E402
from trtbuild.plugins import BLOCK_REWRITE  # noqa: E402
from trtbuild.pytorch import InputSpec  # noqa: E402
from trtbuild.pytorch.prune import load_pruned, prune_channels, save_pruned  # noqa: E402
from trtbuild.pytorch.spec import PruneSpec  # noqa: E402

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "prune_yolo"
IMAGE = [InputSpec((1, 3, 32, 32))]


@pytest.fixture
def yolo(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SAMPLE)
    monkeypatch.delitem(sys.modules, "yolo_blocks", raising=False)
    import yolo_blocks

    return yolo_blocks


def network(yolo: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomize(yolo.Net())


def test_the_rewrite_computes_the_same(yolo: Any) -> None:
    module = network(yolo)
    result = prune_channels(module, IMAGE, PruneSpec(0.0), rewrites=[yolo.split_c2f])
    sample = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        # Float32 sums of up to 288 products of values near 1, in another order: 288 * 2**-24 a layer.
        torch.testing.assert_close(result.module(sample), module(sample), rtol=0, atol=1e-4)
    assert "'model.1' was rewritten by 'yolo_blocks:split_c2f'" in result.report.notes[0]


def test_it_prunes_keeps_the_graph_attributes_and_loads(yolo: Any, tmp_path: Path) -> None:
    rewrites = [yolo.split_c2f]
    result = prune_channels(network(yolo), IMAGE, PruneSpec(0.5, round_to=4), rewrites=rewrites)
    widths = {w.path: (w.before, w.after) for w in result.report.widths}
    assert widths["model.1.cv0.conv"] == widths["model.1.cv1.conv"] == (16, 8)
    assert widths["model.1.cv2.conv"] == (32, 16)
    block = result.module.model[1]
    assert (block.i, block.f, block.type) == (1, -1, "C2f")
    save_pruned(result.module, result.history, tmp_path / "pruned")
    torch.manual_seed(99)
    with pytest.raises(
        ModelError, match=r"rewritten by 'yolo_blocks:split_c2f', which is not installed"
    ):
        load_pruned(yolo.Net().eval(), tmp_path / "pruned")
    loaded = load_pruned(yolo.Net().eval(), tmp_path / "pruned", rewrites=rewrites)
    sample = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sample), result.module(sample), rtol=0, atol=0)


def test_without_the_plug_in_both_halves_lose_the_same_channels(yolo: Any) -> None:
    result = prune_channels(network(yolo), IMAGE, PruneSpec(0.5, round_to=4))
    assert not any("rewritten" in note for note in result.report.notes)
    assert result.module.model[1].cv1.conv.out_channels == 16
    gone = {path: indices for path, _, indices in result.history.cuts}["model.1.cv1.conv"]
    assert [i + 16 for i in gone if i < 16] == [i for i in gone if i >= 16]


def test_a_wrong_rewrite_is_refused(yolo: Any) -> None:
    def wrong(block: torch.nn.Module) -> torch.nn.Module | None:
        return torch.nn.ReLU() if isinstance(block, torch.nn.SiLU) else None

    with pytest.raises(ModelError, match="computes something else"):
        prune_channels(network(yolo), IMAGE, PruneSpec(0.5), rewrites=[wrong])


def test_an_installed_plug_in_works_on_the_command_line(
    yolo: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point = EntryPoint("c2f", "yolo_blocks:split_c2f", BLOCK_REWRITE.group)
    monkeypatch.setattr(
        "trtbuild.plugins.entry_points",
        lambda group: [point] if group == BLOCK_REWRITE.group else [],
    )
    target = ["yolo_blocks:Net", "--input", "1x3x32x32"]
    assert run(["prune", *target, "--prune", "0.5", "-o", str(tmp_path / "p"), "-q"]) == 0
    exported = ["--weights", str(tmp_path / "p"), "-o", str(tmp_path / "m.onnx"), "-q"]
    assert run(["export", *target, *exported]) == 0
