"""Compression in rounds: limits, the kept result, resuming an interrupted run, and wrong functions."""

from __future__ import annotations

import copy
import json
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from tests.command import trtbuild  # noqa: E402
from tests.json_documents import valid_output  # noqa: E402
from trtbuild import OptionError, compress  # noqa: E402
from trtbuild.cli.main import run  # noqa: E402
from trtbuild.jobs.compress.plan import Kind, is_due, plan_steps, ruling_of, verdict_of  # noqa: E402
from trtbuild.jobs.compress.record import Compression, CompressionPoint, CompressionStep  # noqa: E402
from trtbuild.pytorch import InputSpec  # noqa: E402
from trtbuild.pytorch.inputs import bind_inputs  # noqa: E402
from trtbuild.pytorch.prune import prune_channels  # noqa: E402
from trtbuild.pytorch.session_module import SessionModule  # noqa: E402
from trtbuild.pytorch.sparsity import two_four_mask  # noqa: E402
from trtbuild.pytorch.spec import PruneSpec  # noqa: E402
from trtbuild.pytorch.training import evaluated, trained  # noqa: E402
from trtbuild.result import EngineResult  # noqa: E402
from trtbuild.runtime.onnxruntime import open_session  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

# `calls` lists the trainings in this process; training number `stop_at` is interrupted half-way.
SOURCE = """
import numpy as np
import torch
from torch import nn

calls, stop_at, teachers = [], None, []

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )

class Pair(nn.Sequential):
    def forward(self, x):
        return super().forward(x.view(2, 1, 8, 8))

def pair():
    return Pair(*net())

def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32))

def step(module, wanted):
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    for rows in torch.randperm(64).split(16):
        loss = nn.functional.mse_loss(module(images()[rows]), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

def train(module, teacher=None):
    calls.append("train")
    if len(calls) == stop_at:
        raise KeyboardInterrupt
    teachers.append(teacher)
    step(module, torch.zeros(64, 10))

def epoch(module, epoch, epochs):
    calls.append((epoch, epochs))
    if len(calls) == stop_at:
        step(module, torch.ones(64, 10))
        raise KeyboardInterrupt
    step(module, torch.zeros(64, 10))
    return 0.5

def evaluate(module):
    # how near the answers are to those of the network as made
    with torch.no_grad():
        wanted = net().eval()(images())
        return 100 - 100 * float((module(images()) - wanted).abs().mean())

def drifts(module):
    calls.append("judged")
    return 90 + len(calls)

def fails(module):
    raise RuntimeError("no data today")

def nan(module):
    next(module.parameters()).data.fill_(float("nan"))

def nothing(module):
    pass

def other(module):
    return nn.Identity()

def narrower(module):
    module[8] = nn.Linear(16, 3)

def wider(module):
    module.more = nn.Linear(1, 1)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "compress_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import compress_nets

    np.savez("data.npz", x=compress_nets.images().numpy())
    yield compress_nets
    sys.modules.pop("compress_nets", None)


ASKED = "compress_nets:net --input 2x1x8x8 --dynamic batch --evaluate compress_nets:evaluate"
COMPRESS = f"compress {ASKED} --backend onnxruntime --no-latency --no-int8 --prune-steps 2"


def test_an_interrupted_run_goes_on_and_ends_the_same(nets, tmp_path, capsys) -> None:
    line = [*COMPRESS.split(), "--prune", "0.5", "--max-drop", "99", "--train",
            "compress_nets:epoch", "--epochs", "2", "--json", "-q"]  # fmt: skip
    assert run([*line, "-o", "whole"]) == 0
    whole = valid_output(line, capsys.readouterr().out)
    assert nets.calls == [(0, 2), (1, 2), (0, 2), (1, 2)]
    assert [point["stage"] for point in whole["done"][-1]["points"]] == ["folded"]
    first, last = whole["done"][0]["points"][0], whole["done"][-1]["points"][0]
    assert 0.2 * first["macs"] < last["macs"] < 0.4 * first["macs"]
    module = prune_channels(nets.net(), [InputSpec((2, 1, 8, 8))], PruneSpec(0.5)).module
    assert (
        load_file(tmp_path / "whole/module/weights.safetensors")["3.weight"].shape
        == module[3].weight.shape
    )
    assert whole["met"] is True
    assert whole["chosen"] == 2

    nets.calls.clear()
    nets.stop_at = 4
    assert run([*line, "-o", "parts"]) == 130
    so_far = json.loads((tmp_path / "parts/compression.json").read_text())
    assert [one["step"] for one in so_far["done"]][-1] == "train 2, epoch 1 of 2"
    capsys.readouterr()
    nets.stop_at = None
    nets.calls.clear()
    assert run([*line, "-o", "parts"]) == 0
    assert nets.calls == [(1, 2)]
    assert json.loads(capsys.readouterr().out)["chosen"] == 2
    folders = [tmp_path / name / "module" for name in ("whole", "parts")]
    one, other = (load_file(folder / "weights.safetensors") for folder in folders)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

    nets.calls.clear()  # a finished run does nothing more
    assert run([*line, "-o", "parts"]) == 0
    assert nets.calls == []


def test_a_budget_that_cannot_be_met_keeps_what_meets_it(
    nets, tmp_path, capsys, monkeypatch
) -> None:
    def below(result: EngineResult, *, is_evaluated: bool) -> tuple[str, ...]:
        return (f"the limit judges it: {is_evaluated}",)

    monkeypatch.setattr(EngineResult, "below_floor_if", below)
    line = [
        *COMPRESS.replace("--no-int8", "--data data.npz --effort fast").split(),
        "--prune",
        "0.5",
    ]
    said = trtbuild(capsys, *line, "--train", "compress_nets:train", "--teacher", "--max-drop", "0.5",
                    "--no-restore", "--report", "page.html", "-o", "out")  # fmt: skip
    assert said.code == 1
    told = " ".join(said.out.split())
    assert "DO NOT SHIP: the budget cannot be met: the trained module of round 1 loses" in told
    assert "kept is the module as loaded, with 100% of the multiply-accumulates" in told
    assert "compress: build 0: 7 of 8, " in said.err
    record = json.loads((tmp_path / "out/compression.json").read_text())
    assert record["met"] is False
    assert record["verdict"] == "DO NOT SHIP"
    assert record["done"][-1]["below_floor"] == ["the limit judges it: True"]
    assert "build 0: the limit judges it: True" in told
    assert record["chosen"] == 0
    assert not any("least squares" in note for done in record["done"] for note in done["notes"])
    stages = [point["stage"] for done in record["done"] for point in done["points"]]
    build = ["folded", "weights", "form", "engine"]
    assert stages == ["loaded", "folded", "pruned", "tuned", *build]
    assert (tmp_path / "out" / record["done"][-1]["points"][-1]["path"]).is_file()
    macs = [done["points"][0]["macs"] for done in record["done"]]
    assert 0.45 < macs[1] / macs[0] <= 0.4**0.5  # widths of 16 go by four
    assert "evaluation over MACs" in (tmp_path / "page.html").read_text()
    (teacher,) = nets.teachers
    assert teacher[0].weight.shape[0] == 16


def test_two_four_zeros_hold_through_the_training(nets, tmp_path) -> None:
    line = [*COMPRESS.split()[:-2], "--sparsity", "2:4", "--train", "compress_nets:train"]
    assert run([*line, "-o", "out", "-q"]) == 0
    weight = load_file(tmp_path / "out/module/weights.safetensors")["3.weight"]
    assert torch.equal(weight, weight * two_four_mask(weight, 1))
    assert (weight == 0).float().mean() == 0.5


def test_what_was_tuned_loads_as_weights_and_goes_on_after_an_epoch(nets, tmp_path, capsys) -> None:
    line = [
        "tune",
        *ASKED.split(),
        "--train",
        "compress_nets:epoch",
        "--epochs",
        "3",
        "-o",
        "out",
        "-q",
    ]
    nets.stop_at = 3
    assert run(line) == 130
    nets.stop_at = None
    nets.calls.clear()
    assert run(line) == 0
    assert nets.calls == [(2, 3)]
    assert sorted(path.name for path in (tmp_path / "out/0").iterdir()) == ["train-3"]
    export = (
        f"export {ASKED.split(' --evaluate', maxsplit=1)[0]} --weights out/module -o net.onnx -q"
    )
    assert run(export.split()) == 0
    changed = trtbuild(capsys, *line, "--train-seed", "1")
    assert "differs in seed" in changed.sentence
    assert run([*line, "--train-seed", "1", "--fresh"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--train compress_nets:fails", "'compress_nets:fails' raised RuntimeError: no data today"),
        ("--train compress_nets:nan", "left NaN or infinite values in '0.weight'"),
        ("--train compress_nets:other", "returned a Identity"),
        ("--train compress_nets:narrower", "made [3] of '8.bias', which was [10]"),
        ("--train compress_nets:wider", "added 'more.bias'"),
        ("--train compress_nets:nowhere", "has no 'nowhere'"),
        ("--train compress_nets:stop_at", "not a function"),
        ("--train compress_nets:nothing --teacher best.pt", "no parameter 'teacher'"),
        ("--train compress_nets:nothing --evaluate compress_nets:nothing", "finite number"),
        ("--train compress_nets:nothing --evaluate compress_nets:fails", "raised RuntimeError"),
        ("--train compress_nets:nothing --max-drop 100", "which is everything"),
        ("--train compress_nets:nothing --max-drop nan", "--max-drop is at least 0, not nan"),
        ("--train compress_nets:nothing --max-stage-drop tuned=nan", "is not STAGE=POINTS"),
        ("--train compress_nets:nothing --max-stage-drop tuned=-1", "is not STAGE=POINTS"),
        ("--train compress_nets:nothing --max-stage-drop early=1", "knows no stage 'early'"),
        ("--train compress_nets:nothing --max-stage-drop form=1", "no such stage; it has tuned"),
        ("", "nothing trains the module"),
    ],
)
def test_a_wrong_function_is_said_in_a_sentence(nets, capsys, options, said) -> None:
    torch.save(nets.net().state_dict(), "best.pt")
    found = trtbuild(capsys, "tune", *ASKED.split(), *options.split())
    assert said in found.sentence


def test_a_training_that_does_nothing_and_an_evaluation_that_drifts_are_told(nets) -> None:
    options = {
        "prune": 0.5,
        "int8": False,
        "latency": False,
        "backend": "onnxruntime",
        "input": "2x1x8x8",
    }
    data = nets.images().numpy()
    found = compress("compress_nets:pair", nets.nothing, nets.drifts, data, **options, output="out")
    notes = [note for done in found.record.done for note in done.notes]
    assert any("by least squares on 64 samples" in note for note in notes)
    assert any("it should judge the same data every time" in note for note in notes)
    assert "the training changed no weight." in notes
    small = prune_channels(nets.net(), [InputSpec((2, 1, 8, 8))], PruneSpec(0.5)).module
    with pytest.raises(OptionError, match="was pruned before"):
        compress(small, nets.nothing, nets.drifts, **options, output="again")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def averaged(module):
    copied = torch.optim.swa_utils.AveragedModel(module)
    with torch.no_grad():
        module[0].weight.mul_(2)
    copied.update_parameters(module)
    return copied


def in_inference_mode(module):
    with torch.inference_mode():
        for one in module.parameters():
            one.data = one.data * 2


def careless(module):
    module.half()
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    os.chdir("/")


@pytest.mark.parametrize("train", [averaged, in_inference_mode, careless])
def test_what_a_training_leaves_behind_does_not_matter(train, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    dense = small()
    try:
        found = trained(train, train.__name__, small())
        left = torch.get_default_dtype(), torch.is_grad_enabled(), os.getcwd()  # noqa: PTH109
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert left == (torch.float32, True, str(tmp_path))
    assert type(found) is nn.Sequential
    assert found[0].weight.dtype is torch.float32
    factor = 1 if train is careless else 2
    torch.testing.assert_close(found[0].weight, factor * dense[0].weight, rtol=1e-3, atol=0)
    found(torch.ones(3, 2)).sum().backward()


def test_weights_without_values_are_refused() -> None:
    with pytest.raises(OptionError, match=r"left '0\.weight' without values"):
        trained(lambda module: module.to("meta") and None, "meta", small())


def test_an_evaluation_that_trains_does_not_change_what_it_judges() -> None:
    def judge(module):
        module.train()
        return float(module.double()(torch.ones(4, 2).double()).sum())

    module = small()
    before = copy.deepcopy(module.state_dict())
    evaluated(judge, "judge", module, "module")
    assert all(one.equal(before[name]) for name, one in module.state_dict().items())
    assert module[0].weight.dtype is torch.float32


def test_masks_of_minus_infinity_are_no_failure_of_the_training() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    assert trained(lambda one: one.weight.data.mul_(2), "double", module) is module


def test_what_compress_lacks_is_said_before_anything_is_done(nets, tmp_path, capsys) -> None:
    train = ["--train", "compress_nets:train"]
    assert "--prune-macs" in trtbuild(capsys, "compress", *ASKED.split(), *train).sentence
    asked = ["compress", *ASKED.split(), *train, "--prune", "0.5"]
    assert "--data" in trtbuild(capsys, *asked).sentence
    without = [word for word in asked if "evaluate" not in word]
    assert "--evaluate" in trtbuild(capsys, *without).sentence
    unbuilt = [*asked, "--no-int8", "--max-stage-drop", "engine=1"]
    assert "no such stage; it has pruned, tuned" in trtbuild(capsys, *unbuilt).sentence
    assert not (tmp_path / "compressed").exists()


def point(stage: str, number: int, lost: float, limit: float | None = None) -> CompressionPoint:
    return CompressionPoint(stage, number, "", 90 - lost, lost, limit, 10, 100 // (number + 1), 40)


def test_steps_that_serve_no_more_are_left_out() -> None:
    steps = plan_steps(2, sparse=True, epochs=None, builds=True)
    kinds = [Kind.LOADED, Kind.PRUNE, Kind.TRAIN, Kind.PRUNE, Kind.TRAIN, Kind.SPARSE, Kind.TRAIN]
    assert [step.kind for step in steps] == [*kinds, *[Kind.BUILD] * 4]
    assert [step.round for step in steps][-4:] == [3, 2, 1, 0]
    record = Compression("net", {}, tuple(step.name for step in steps))

    def due(record: Compression) -> str:
        return next(s.name for s in steps if not record.has(s.name) and is_due(s, record))

    def after(record: Compression, step: str, *points: CompressionPoint) -> Compression:
        return record.having(CompressionStep(step, 0.0, points))

    record = after(record, "loaded 0", point("loaded", 0, 0.0))
    record = after(record, "prune 1", point("pruned", 1, 50.0))
    assert due(record) == "train 1"
    record = after(record, "train 1", point("tuned", 1, 0.5, 1.0))
    record = after(record, "prune 2", point("pruned", 2, 50.0))
    record = after(record, "train 2", point("tuned", 2, 2.0, 1.0))
    assert due(record) == "2:4 3"  # from round 1
    record = after(record, "2:4 3", point("sparse", 3, 3.0))
    record = after(record, "train 3", point("tuned", 3, 0.9, 1.0))
    assert due(record) == "build 3"
    done = after(record, "build 3", point("folded", 3, 0.9), point("engine", 3, 1.0, 1.0))
    assert verdict_of(done, steps)[0] is False  # round 2 was not reached
    missed = after(record, "build 3", point("folded", 3, 0.9), point("engine", 3, 1.2, 1.0))
    assert due(missed) == "build 1"  # round 2 had lost too much before
    missed = after(missed, "build 1", point("folded", 1, 0.5), point("engine", 1, 0.6, 1.0))
    assert all(not is_due(step, missed) for step in steps if not missed.has(step.name))
    assert "kept is round 1, with 50%" in verdict_of(missed, steps)[1]


@pytest.mark.parametrize(
    ("trained", "engine", "below", "word", "said"),
    [
        (1.0, 1.0, (), "SHIP", "everything was reached"),
        (1.0, 0.1, (), "DO NOT SHIP", "the engine of round 1 loses 0.5"),
        (1.0, 1.0, ("it is blind",), "NOT JUDGED", "was reached: the engine of round 1 loses 0.5"),
        (1.0, 1.0, ("it is blind",), "NOT JUDGED", "but it is blind"),
        (1.0, None, (), "NOT JUDGED", "no limit is on the engine of round 1"),
        (None, None, (), "NOT JUDGED", "no limit was set"),
    ],
)
def test_what_is_shipped_was_judged_itself(trained, engine, below, word, said) -> None:
    steps = plan_steps(1, sparse=False, epochs=None, builds=True)
    built = (point("folded", 1, 0.5), point("engine", 1, 0.5, engine))
    done = (
        CompressionStep("loaded 0", 0.0, (point("loaded", 0, 0.0), point("folded", 0, 0.0))),
        CompressionStep("prune 1", 0.0, (point("pruned", 1, 50.0),)),
        CompressionStep("train 1", 0.0, (point("tuned", 1, 0.5, trained),)),
        CompressionStep("build 1", 0.0, built, below_floor=below),
        CompressionStep("build 0", 0.0, (point("folded", 0, 0.0), point("engine", 0, 0.0))),
    )
    record = Compression("net", {}, tuple(step.name for step in steps), done)
    ruling = ruling_of(record, steps)
    assert ruling.word == word
    assert said in ruling.why


def test_a_round_that_is_out_of_reach_leaves_what_came_before() -> None:
    steps = plan_steps(1, sparse=False, epochs=None, builds=True)
    record = Compression("net", {}, tuple(step.name for step in steps))
    record = record.having(CompressionStep("loaded 0", 0.0, (point("loaded", 0, 0.0),)))
    why = (
        "the budget cannot be met: with 90% of the channels of every layer gone, too much is left."
    )
    record = record.having(CompressionStep("prune 1", 0.0, notes=(why,)))
    assert [step.name for step in steps if not record.has(step.name) and is_due(step, record)] == [
        "build 0"
    ]
    record = record.having(CompressionStep("build 0", 0.0, (point("folded", 0, 0.0),)))
    met, said = verdict_of(record, steps)
    assert met is False
    assert "round 1 is out of reach, with 90% of the channels" in said
    assert "kept is the module as loaded" in said


def test_a_budget_of_latency_goes_by_what_is_measured() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3)
    )
    inputs = [InputSpec((1, 3, 12, 12))]
    asked = []

    def share(candidate: nn.Module) -> float:
        asked.append(candidate[0].out_channels)
        return candidate[0].out_channels / 64

    spec = PruneSpec(latency=0.5, ratio=0.0)
    pruned = prune_channels(module, inputs, spec, latency=share)
    assert asked
    assert 0.4 * 64 <= pruned.module[0].out_channels <= 0.5 * 64
    with pytest.raises(Exception, match="needs a measurement"):
        prune_channels(module, inputs, spec)


def test_a_session_stands_for_its_module_at_any_batch(nets, tmp_path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()).eval()
    path = tmp_path / "four.onnx"
    inputs = [InputSpec((4, 1, 8, 8))]
    from trtbuild.pytorch import export_onnx

    export_onnx(module, inputs, path=path)
    bound = bind_inputs(module, inputs)
    images = torch.randn(10, 1, 8, 8)
    network = SessionModule(open_session(path), bound, {"a": module(images[:4]), "b": None})
    with torch.no_grad():
        found = network(images)
        torch.testing.assert_close(found["a"], module(images), rtol=0, atol=1e-5)
    assert found["b"] is None


def test_one_call_from_python_takes_objects(nets, tmp_path) -> None:
    module = nets.net()
    data = [nets.images()[start : start + 16] for start in range(0, 64, 16)]
    found = compress(
        module, nets.train, nets.evaluate, data, prune=0.5, max_drop=99, latency=False, effort="fast",
        backend="onnxruntime", output=tmp_path / "small",
    )  # fmt: skip
    assert found.verdict == "SHIP"
    assert found.engine.is_file()
    assert found.int8_model.is_file()
    assert found.report(tmp_path / "page.html").is_file()
    assert module[0].weight.shape[0] == 16  # it is unchanged
    assert load_file(found.module / "weights.safetensors")["0.weight"].shape[0] == 8
    with torch.no_grad():
        module[0].weight.mul_(2)  # another module is another run
    again = {
        "prune": 0.5,
        "max_drop": 99,
        "latency": False,
        "effort": "fast",
        "backend": "onnxruntime",
    }
    with pytest.raises(OptionError, match="differs in weights"):
        compress(module, nets.train, nets.evaluate, data, **again, output=tmp_path / "small")
    with pytest.raises(OptionError, match="trtbuild compress --help-all"):
        compress(module, nets.train, nets.evaluate, data, surprising=1)
