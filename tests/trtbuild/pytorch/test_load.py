"""Modules by name, checkpoints of every form, and refusals."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trtbuild.errors import ModelError  # noqa: E402
from trtbuild.pytorch import ModuleSource, load_module  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

FACTORIES = """
import random
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)
    def forward(self, x):
        return self.bn(self.conv(x))

class Space:
    inner = Net

class RandomBuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("noise", torch.rand(4), persistent=False)
        self.register_buffer("fixed", torch.ones(4), persistent=False)

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [nn.Conv2d(3, 3, 1), {"deep": nn.Dropout()}]

class Stubborn(Net):
    def train(self, mode=True):
        return super().train(True)

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight

instance = Net()
number = 3

def factory(width=4):
    return Net(width)

def raises():
    raise RuntimeError("no weights today")

def exits():
    raise SystemExit(0)

def gives_none():
    return None
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of factories in the current directory, which is not on `sys.path`."""
    (tmp_path / "some_nets.py").write_text(FACTORIES)
    (tmp_path / "broken_nets.py").write_text("import absent_package\n")
    (tmp_path / "odd_nets.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield tmp_path
    for name in ("some_nets", "broken_nets", "odd_nets"):
        sys.modules.pop(name, None)


def load(target: str, **options: Any) -> Any:
    return load_module(ModuleSource(target, **options))


@pytest.mark.parametrize("target", ["Net", "Space.inner", "instance", "factory"])
def test_function_class_and_instance(nets: Path, target: str) -> None:
    loaded = load(f"some_nets:{target}")
    assert type(loaded.module).__name__ == "Net"
    assert not any(child.training for child in loaded.module.modules())
    assert loaded.warnings == ()


def test_arguments(nets: Path) -> None:
    assert load("some_nets:factory", arguments={"width": 7}).module.conv.out_channels == 7


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("some_nets", "is not package.module:attribute"),
        ("no_such_nets:Net", "there is no module 'no_such_nets'"),
        ("nets.py:Net", "name the module, not its file: package.module"),
        ("broken_nets:Net", "it needs 'absent_package'"),
        ("odd_nets:Net", "ZeroDivisionError"),
        ("some_nets:Nett", "has no attribute 'Nett'; it has: Hidden, Net"),
        ("some_nets:raises", 'in raises\n    raise RuntimeError("no weights today")'),
        ("some_nets:exits", "SystemExit: 0"),
        ("some_nets:gives_none", "gave a NoneType, not an nn.Module"),
        ("some_nets:number", "gave a int, not an nn.Module"),
        ("some_nets:Stubborn", "still in train mode"),
    ],
)
def test_refused_targets(nets: Path, target: str, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(target)
    assert told in str(caught.value)
    assert "trtbuild/pytorch/load.py" not in str(caught.value)


def test_random_buffers_are_noticed(nets: Path) -> None:
    warnings = load("some_nets:RandomBuffer").warnings
    assert len(warnings) == 1
    assert "'noise' is random" in warnings[0]


def test_hidden_modules_are_found_and_put_into_eval_mode(nets: Path) -> None:
    loaded = load("some_nets:Hidden")
    assert not loaded.module.blocks[0].training
    assert not loaded.module.blocks[1]["deep"].training
    text = " ".join(loaded.warnings)
    assert "'blocks[0]' is kept in a plain Python container" in text
    assert "'blocks[1]['deep']'" in text


def trained(nets: Path, target: str = "Net") -> torch.nn.Module:
    module = load(f"some_nets:{target}").module
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.full_like(tensor, 2))
    return module


def wrapped(weights: dict[str, Any], how: str) -> Any:
    prefix = how.partition(" ")[0] if "." in how else ""
    weights = {prefix + key: value for key, value in weights.items()}
    if how.endswith("wrapper"):
        return {"epoch": 3, "state_dict": weights, "optimizer": {"state": {}}}
    return {"ema": {"state_dict": weights}} if how == "nested" else weights


@pytest.mark.parametrize(
    "how", ["plain", "wrapper", "nested", "module. prefix", "_orig_mod. prefix",
            "module._orig_mod. prefix", "module. wrapper"],
)  # fmt: skip
def test_checkpoints(nets: Path, how: str) -> None:
    torch.save(wrapped(trained(nets).state_dict(), how), "w.pt")
    loaded = load("some_nets:Net", weights=nets / "w.pt")
    assert (loaded.module.conv.weight == 2).all()
    assert loaded.checkpoint.num_loaded == 7


@pytest.mark.parametrize("legacy", [True, False])
def test_checkpoint_formats(nets: Path, legacy: bool) -> None:
    weights = trained(nets).state_dict()
    torch.save(weights, "w.pt", _use_new_zipfile_serialization=not legacy)
    assert (load("some_nets:Net", weights=nets / "w.pt").module.conv.bias == 2).all()


def test_safetensors(nets: Path) -> None:
    save = pytest.importorskip("safetensors.torch")
    save.save_file(trained(nets).state_dict(), "w.safetensors")
    assert (load("some_nets:Net", weights=nets / "w.safetensors").module.conv.bias == 2).all()


def test_safetensors_of_tied_weights(nets: Path) -> None:
    save = pytest.importorskip("safetensors.torch")
    save.save_model(trained(nets, "Tied"), "w.safetensors")
    module = load("some_nets:Tied", weights=nets / "w.safetensors").module
    assert module.a.weight is module.b.weight
    assert (module.b.weight == 2).all()


def test_a_prefix_is_not_cut_off_when_the_keys_fit_with_it(nets: Path) -> None:
    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = torch.nn.Linear(2, 2)

    (nets / "outer_nets.py").write_text("instance = None\n")
    sys.modules["outer_nets"] = type(sys)("outer_nets")
    sys.modules["outer_nets"].Outer = Outer  # type: ignore[attr-defined]
    try:
        torch.save(Outer().state_dict(), "w.pt")
        assert load("outer_nets:Outer", weights=nets / "w.pt").checkpoint.prefix == ""
    finally:
        del sys.modules["outer_nets"]


def test_num_batches_tracked_may_be_absent(nets: Path) -> None:
    weights = trained(nets).state_dict()
    del weights["bn.num_batches_tracked"]
    torch.save(weights, "w.pt")
    assert load("some_nets:Net", weights=nets / "w.pt").checkpoint.missing == ()


def test_keys_that_do_not_match_are_listed_with_the_nearest_name(nets: Path) -> None:
    weights = trained(nets).state_dict()
    weights["conv1.weight"] = weights.pop("conv.weight")
    weights["head.bias"] = torch.zeros(3)
    torch.save(weights, "w.pt")
    with pytest.raises(ModelError) as caught:
        load("some_nets:Net", weights=nets / "w.pt")
    text = str(caught.value)
    assert "missing in the file (1): 'conv.weight' (nearest: 'conv1.weight')" in text
    assert "unknown to the module (2): 'conv1.weight' (nearest: 'conv.weight'), 'head.bias'" in text


def test_missing_and_unexpected_keys_are_allowed_by_pattern(nets: Path) -> None:
    weights = trained(nets).state_dict()
    del weights["conv.bias"]
    weights["head.bias"] = torch.zeros(3)
    torch.save(weights, "w.pt")
    loaded = load(
        "some_nets:Net",
        weights=nets / "w.pt",
        allow_missing=("conv.*",),
        allow_unexpected=("head.*",),
    )
    assert loaded.checkpoint.missing == ("conv.bias",)
    assert loaded.checkpoint.unexpected == ("head.bias",)
    assert (loaded.module.conv.weight == 2).all()


def test_shapes_that_do_not_match(nets: Path) -> None:
    torch.save(trained(nets).state_dict(), "w.pt")
    with pytest.raises(
        ModelError, match=r"'conv.weight': \[4, 3, 3, 3\] in the file, \[8, 3, 3, 3\]"
    ):
        load("some_nets:factory", arguments={"width": 8}, weights=nets / "w.pt")


def test_what_is_odd_about_the_weights_is_told(nets: Path) -> None:
    weights = {
        k: v.half() if v.is_floating_point() else v for k, v in trained(nets).state_dict().items()
    }
    weights["conv.weight"][0] = float("nan")
    torch.save(weights, "w.pt")
    text = " ".join(load("some_nets:Net", weights=nets / "w.pt").warnings)
    assert "torch.float16 in the file, torch.float32 in the module" in text
    assert "conv.weight: NaN or infinite values" in text


class Malicious:
    """Runs a command when unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_a_malicious_pickle_runs_nothing(nets: Path) -> None:
    (nets / "w.pt").write_bytes(pickle.dumps({"conv.weight": Malicious()}))
    with pytest.raises(ModelError, match="nothing of it was run"):
        load("some_nets:Net", weights=nets / "w.pt")
    torch.save({"state_dict": Malicious()}, "w2.pt")
    with pytest.raises(ModelError, match=r"mkdir.*--trust-checkpoint"):
        load("some_nets:Net", weights=nets / "w2.pt")
    assert not (nets / "ran").exists()


def test_a_trusted_checkpoint_may_hold_anything(nets: Path) -> None:
    content = {"args": argparse.Namespace(lr=1), "model": trained(nets).state_dict()}
    torch.save(content, "w.pt")
    with pytest.raises(ModelError, match=r"argparse\.Namespace"):
        load("some_nets:Net", weights=nets / "w.pt")
    loaded = load("some_nets:Net", weights=nets / "w.pt", trust_checkpoint=True)
    assert loaded.checkpoint.wrapper == "model"


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file\n", b"PK\x03\x04 cut off"])
def test_files_that_are_no_checkpoints(nets: Path, content: bytes) -> None:
    (nets / "w.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"'.*w\.pt'"):
        load("some_nets:Net", weights=nets / "w.pt")
    with pytest.raises(ModelError, match="is not a file"):
        load("some_nets:Net", weights=nets / "absent.pt")


def test_a_checkpoint_without_tensors(nets: Path) -> None:
    torch.save([1, 2], "w.pt")
    with pytest.raises(ModelError, match="holds a list without weights"):
        load("some_nets:Net", weights=nets / "w.pt")


@pytest.mark.parametrize(
    ("raw", "averaged"), [("model", "ema"), ("state_dict", "state_dict_ema"), ("net", "swa_net")]
)
def test_raw_and_averaged_weights_are_both_named(nets: Path, raw: str, averaged: str) -> None:
    weights = trained(nets).state_dict()
    ones = {key: torch.ones_like(value) for key, value in weights.items()}
    torch.save({raw: ones, averaged: weights}, "w.pt")
    loaded = load("some_nets:Net", weights=nets / "w.pt")
    assert (loaded.module.conv.weight == 2).all()
    assert f"'{averaged}' was loaded, and not '{raw}'" in " ".join(loaded.warnings)
    chosen = load("some_nets:Net", weights=nets / "w.pt", weights_key=raw)
    assert (chosen.module.conv.weight == 1).all()
    assert chosen.warnings == ()
    with pytest.raises(ModelError, match=rf"no weights under 'other'.*'{raw}', '{averaged}'"):
        load("some_nets:Net", weights=nets / "w.pt", weights_key="other")


def test_equal_sets_of_weights_need_no_word(nets: Path) -> None:
    weights = trained(nets).state_dict()
    torch.save({"model": weights, "ema": dict(weights)}, "w.pt")
    assert load("some_nets:Net", weights=nets / "w.pt").warnings == ()


def test_prefixes_are_cut_from_each_key_and_told(nets: Path) -> None:
    weights = trained(nets).state_dict()
    mixed = {("module." if "conv" in key else "") + key: value for key, value in weights.items()}
    torch.save({**mixed, "n_averaged": torch.tensor(3)}, "w.pt")
    loaded = load("some_nets:Net", weights=nets / "w.pt")
    assert (loaded.module.conv.weight == 2).all()
    assert "'module.' from 2 keys" in " ".join(loaded.warnings)


def test_a_prefix_is_asked_for(nets: Path) -> None:
    weights = {f"student.{key}": value for key, value in trained(nets).state_dict().items()}
    weights["teacher.conv.weight"] = torch.zeros(4, 3, 3, 3)
    torch.save(weights, "w.pt")
    with pytest.raises(ModelError, match=r"--weights-prefix student\."):
        load("some_nets:Net", weights=nets / "w.pt")
    loaded = load("some_nets:Net", weights=nets / "w.pt", weights_prefix="student.")
    assert (loaded.module.conv.weight == 2).all()
    assert loaded.checkpoint.prefix == "student."


def test_shards_npz_and_folders(nets: Path) -> None:
    save = pytest.importorskip("safetensors.torch")
    weights = trained(nets).state_dict()
    parts = {"a.safetensors": list(weights)[:3], "b.safetensors": list(weights)[3:]}
    for name, keys in parts.items():
        save.save_file({key: weights[key] for key in keys}, name)
    places = {key: name for name, keys in parts.items() for key in keys}
    index = nets / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    np.savez("w.npz", **{key: value.numpy() for key, value in weights.items()})
    for path in (index, nets, nets / "w.npz"):
        assert (load("some_nets:Net", weights=path).module.conv.weight == 2).all()
    (nets / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"b\.safetensors' is not a file"):
        load("some_nets:Net", weights=index)
    with pytest.raises(ModelError, match="holds neither what"):
        load("some_nets:Net", weights=nets.parent)


@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "quantized", "meta"])
def test_tensors_without_plain_storage(nets: Path, kind: str) -> None:
    weights = trained(nets).state_dict()
    weight = weights["conv.weight"]
    weights["conv.weight"] = {
        "sparse": weight.to_sparse,
        "quantized": lambda: torch.quantize_per_tensor(weight, 0.5, 0, torch.qint8),
        "meta": lambda: weight.to("meta"),
    }[kind]()
    torch.save(weights, "w.pt")
    if kind == "meta":
        with pytest.raises(ModelError, match=r"'conv\.weight'.*no values"):
            load("some_nets:Net", weights=nets / "w.pt")
        return
    loaded = load("some_nets:Net", weights=nets / "w.pt")
    assert (loaded.module.conv.weight == 2).all()
    assert f"1 {kind} tensors" in " ".join(loaded.warnings)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_masks_and_weight_norm_in_a_file_of_a_plain_module(nets: Path) -> None:
    masked = trained(nets)
    torch.nn.utils.prune.random_unstructured(masked.conv, "weight", 0.5)
    torch.save(masked.state_dict(), "masked.pt")
    found = load("some_nets:Net", weights=nets / "masked.pt").module.conv.weight
    assert torch.equal(found, masked.conv.weight)
    for wrap in (torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm):
        normed = load("some_nets:Net").module
        wrap(normed.conv)
        torch.save(normed.state_dict(), "normed.pt")
        plain = load("some_nets:Net", weights=nets / "normed.pt").module.conv.weight
        torch.testing.assert_close(plain, normed.conv.weight)


def test_figures_of_numpy_beside_the_weights_need_no_trust(nets: Path) -> None:
    figures = {"best": np.float64(3), "curve": np.ones(3, np.float32), "from": nets}
    torch.save({"state_dict": trained(nets).state_dict(), **figures}, "w.pt")
    assert (load("some_nets:Net", weights=nets / "w.pt").module.conv.weight == 2).all()


def test_a_web_page_is_no_checkpoint_to_trust(nets: Path) -> None:
    (nets / "w.pt").write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="is not a checkpoint") as caught:
        load("some_nets:Net", weights=nets / "w.pt")
    assert "trust" not in str(caught.value)


def test_nothing_loaded_is_an_error(nets: Path) -> None:
    torch.save({"head.bias": torch.zeros(3)}, "w.pt")
    with pytest.raises(ModelError, match="nothing was loaded"):
        load("some_nets:Net", weights=nets / "w.pt", allow_missing=("*",), allow_unexpected=("*",))
