"""Definitions of other packages, drawn at random: folded, pruned by 30 %, exported, quantized.

    python benchmarks/pytorch_zoo.py --count 60 --results zoo.jsonl --write zoo.md

Draws names and sizes from torchvision, timm, transformers and ultralytics, where these are installed,
with random weights. Each definition runs in a process of its own with a time limit; the page quotes the
error of each refused step. ``--only FAMILY:NAME`` runs one definition again.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from zoo_definitions import FAMILIES, shortened

from calibrators import Calibration, TensorRange
from trtbuild.cli.main import run
from trtbuild.errors import TrtbuildError
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import temporary_file
from trtbuild.passes import OptimizeOptions
from trtbuild.pytorch import export_onnx, fold_norms
from trtbuild.pytorch.float64 import relative_difference, tensors_in
from trtbuild.pytorch.inputs import bind_inputs, sample
from trtbuild.pytorch.prune import load_pruned, prune_channels, save_pruned
from trtbuild.pytorch.spec import PruneSpec
from trtbuild.quantization import insert_qdq, watched_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection
    from typing import TypeAlias

    from torch import nn

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune import PruneResult

    Sample: TypeAlias = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]

STEPS = ("fold", "prune", "export", "quantize", "build")
PACKAGES = (
    "pytorch_zoo",
    "torch_pruning",
    "torchvision",
    "timm",
    "transformers.models.auto.modeling_auto",
)
"""Imported once; packages that are not installed are skipped."""
MOST_LAYERS = 300
"""Most modules with weights in one definition, so that each takes less than a minute."""
_MADE = {"made": "and run once"}
"""Sent before the first step, so that an earlier death is not counted as a fault of a step."""
WRONG = 1e-3
"""Relative difference in float32 above which two networks count as different."""


def main() -> int:
    """Run the definitions named on the command line; return 1 if any has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="definitions of each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=600, help="limit for one definition")
    parser.add_argument("--family", choices=tuple(FAMILIES), action="append")
    parser.add_argument("--only", help="FAMILY:NAME, run in this process")
    parser.add_argument(
        "--results", type=Path, help="a line of JSON for each; those there are not run again"
    )
    parser.add_argument(
        "--build", action="store_true", help="build engines as well, which takes longest"
    )
    parser.add_argument("--write", type=Path, help="the page")
    given = parser.parse_args()
    if given.only:
        family, _, name = given.only.partition(":")
        if family not in FAMILIES or not name:
            parser.error(f"--only takes FAMILY:NAME, where FAMILY is {', '.join(FAMILIES)}")
        print(json.dumps(tried(FAMILIES[family][1](name, given.seed), builds=given.build)))
        return 0
    known, names = _read(given.results), _drawn(given.family or list(FAMILIES), given.seed)
    rows: dict[str, list[dict[str, str]]] = {family: [] for family in names}
    while open_ones := [one for one in rows if len(rows[one]) < given.count and names[one]]:
        for family in open_ones:
            label = f"{family}:{names[family].pop(0)}"
            if label not in known:
                known[label] = apart(label, given.seed, given.seconds, builds=given.build)
                print(label, known[label], flush=True)
                if given.results is not None:
                    with given.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"label": label, **known[label]}) + "\n")
            rows[family] += [known[label]] if "make" not in known[label] else []
        if given.write is not None:
            given.write.write_text(page(rows, given.seed), encoding="utf-8")
    return int(any(_faults(row) for found in rows.values() for row in found))


def _drawn(families: list[str], seed: int) -> dict[str, list[str]]:
    """Family -> names of definitions in a random order; prints the packages that are not installed."""
    names = {}
    for family in families:
        try:
            names[family] = list(FAMILIES[family][0](random.Random(seed)))  # noqa: S311 - a draw, not a secret
        except ImportError as error:
            print(f"{family} is not installed ({error})")
    return names


def _faults(row: dict[str, str]) -> list[str]:
    return [said for said in row.values() if said.startswith("FAULT")]


def _read(results: Path | None) -> dict[str, dict[str, str]]:
    """Label -> row of a results file."""
    if results is None or not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {row.pop("label"): row for row in rows}


def apart(label: str, seed: int, seconds: int, *, builds: bool) -> dict[str, str]:
    """Run one definition in its own process; return step -> ``ok`` or the error.

    The process is forked from one that has imported the packages and computed nothing.
    """
    start = time.monotonic()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *PACKAGES])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, label, seed, builds))
    child.start()
    theirs.close()
    said: dict[str, str] = {"make": "the process died while the module was made"}
    try:
        while ours.poll(max(start + seconds - time.monotonic(), 0)):
            said = ours.recv()
            if said != _MADE:
                break
        else:
            said = {"late": f"took longer than {seconds} s"}
    except EOFError:
        said = {"fold": "FAULT the process died"} if said == _MADE else said
    child.kill()
    child.join()
    return {"name": label.partition(":")[2], **said, "seconds": f"{time.monotonic() - start:.0f}"}


def _answer(pipe: Connection, label: str, seed: int, builds: bool) -> None:
    """Send the results of one definition, or why it cannot be made."""
    family, _, name = label.partition(":")
    torch.set_num_threads(1)
    try:
        module, inputs = FAMILIES[family][1](name, seed)
        module.eval()
        short = shortened(copy.deepcopy(module))
        runs = said_of(lambda: same(short, short, inputs)) == "ok"
        module = short if runs else module
        same(module, module, inputs)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the package's own affair
        pipe.send({"make": f"{type(error).__name__}: {error}"[:200]})
        return
    if sum(bool(one._parameters) for one in module.modules()) > MOST_LAYERS:
        pipe.send({"make": "too many layers"})
        return
    pipe.send(_MADE)
    pipe.send(tried((module, inputs), builds=builds))


def tried(made: tuple[Any, list[Any]], *, builds: bool) -> dict[str, str]:
    """Do the steps with one module, with `builds` also an engine; return step -> ``ok`` or the error."""
    module, inputs = made
    module.eval()
    found: dict[str, str] = {}
    folded: list[nn.Module] = []
    found["fold"] = said_of(lambda: folded.append(fold_norms(module, inputs).module))
    if folded and found["fold"] == "ok":
        found["fold"] = said_of(lambda: same(module, folded[0], inputs))
    pruned: list[Any] = []
    found["prune"] = said_of(lambda: pruned.append(prune_channels(module, inputs, PruneSpec(0.3))))
    smaller = pruned[0].module if pruned else module
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        if pruned:
            found |= _what_was_cut(pruned[0], module, inputs, path.parent)
        found["export"] = said_of(lambda: export_onnx(smaller, inputs, path=path))
        if found["export"] != "ok":
            return {**found, "quantize": "nothing to quantize"}
        bound = bind_inputs(smaller, inputs)
        arguments, keywords = sample(bound, 7)
        values = dict(zip(bound.names, (*arguments, *keywords.values())))
        data = {name: value.numpy() for name, value in values.items()}
        found["export"] = _as_in_torch(path, smaller, data, (arguments, keywords))
        found["quantize"] = said_of(lambda: _quantized(path, data))
        if builds:
            found["build"] = said_of(lambda: _built(path, bound))
    return found


def _what_was_cut(
    result: PruneResult, module: nn.Module, inputs: list[Any], folder: Path
) -> dict[str, str]:
    """The share of parameters removed, and whether the saved module computes the same."""
    report = result.report
    found = {"gone": f"{1 - report.after.parameters / report.before.parameters:.2f}", "prune": "ok"}
    again = copy.deepcopy(module)
    found["prune"] = said_of(lambda: save_pruned(result.module, result.history, folder / "pruned"))
    if found["prune"] == "ok":
        found["prune"] = said_of(lambda: load_pruned(again, folder / "pruned"))
    if found["prune"] == "ok":
        found["prune"] = said_of(lambda: same(result.module, again, inputs))
    if found["prune"] == "ok" and report.achieved < 0.1:
        found["prune"] = f"{report.achieved:.0%} of the channels could go"
    return found


def same(expected: nn.Module, found: nn.Module, inputs: list[Any]) -> str:
    """``ok`` where two modules compute the same, with the same random seed."""
    arguments, keywords = sample(bind_inputs(expected, inputs), 7)
    outputs = []
    for module in (expected, found):
        torch.manual_seed(7)
        with torch.no_grad():
            outputs.append(tensors_in(module(*arguments, **keywords)))
    wanted, got = outputs
    off = relative_difference(wanted, got)
    return "ok" if off <= WRONG else f"FAULT the output differs by {off:.1e}"


def _as_in_torch(
    path: Path, module: nn.Module, data: Mapping[str, np.ndarray], given: Sample
) -> str:
    """``ok`` where ONNX Runtime computes the same as the module."""
    arguments, keywords = given
    with torch.no_grad():
        wanted = tensors_in(module(*arguments, **keywords))
    off = relative_difference(wanted, [torch.from_numpy(one) for one in _run(path, data)])
    return "ok" if off <= WRONG else f"FAULT the output differs by {off:.1e}"


def _quantized(path: Path, data: Mapping[str, np.ndarray]) -> str:
    """``ok`` where Q/DQ for TensorRT, with made-up ranges, give a network that runs."""
    artifact = prepare(load(path), OptimizeOptions(check=False))
    wanted = watched_tensors(artifact.model, artifact.request)
    ranges = {name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 1000, 0) for name in wanted}
    placed = (
        insert_qdq(artifact.with_calibration(Calibration("minmax", ranges))) if wanted else artifact
    )
    if placed.quantized is None:
        return "nothing runs in INT8"
    with temporary_file(placed.whole(placed.quantized)) as file:
        found = _run(file, data)
    return (
        "ok" if all(np.isfinite(one).all() for one in found) else "FAULT the output is not finite"
    )


def _built(path: Path, bound: BoundInputs) -> str:
    """``ok`` where an engine for ONNX Runtime was built and compared, else the exit code."""
    draws = [sample(bound, seed) for seed in range(4)]
    batches = [(*arguments, *keywords.values()) for arguments, keywords in draws]
    data = {name: np.concatenate(parts) for name, parts in zip(bound.names, zip(*batches))}
    np.savez(path.with_suffix(".npz"), **data)
    line = [
        "engine",
        str(path),
        "--int8",
        "--data",
        str(path.with_suffix(".npz")),
        "--effort",
        "fast",
    ]
    line += ["--backend", "onnxruntime", "--no-latency", "-o", str(path.parent), "-q"]
    code = run(line)
    return "ok" if code in (0, 1, 5) else f"{'FAULT ' if code == 4 else ''}exit code {code}"


def _run(path: Path, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of one batch in ONNX Runtime, without optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    found: list[np.ndarray] = session.run(None, {n: v for n, v in values.items() if n in names})
    return found


def said_of(step: Callable[[], Any]) -> str:
    """``ok``, the step's own answer, or its error; an error that is no `TrtbuildError` is a fault."""
    try:
        said = step()
    except TrtbuildError as error:
        return str(error).splitlines()[0][:160]
    except Exception as error:  # noqa: BLE001 - counted
        return f"FAULT {type(error).__name__}: {str(error)[:120]}"
    return said if isinstance(said, str) else "ok"


def page(rows: dict[str, list[dict[str, str]]], seed: int) -> str:
    """The page with the counts, and the error of each refused step."""
    text = [
        "# Definitions of other packages",
        "",
        "Drawn at random, with random weights and without blocks that repeat the one before them: norms",
        "folded, 30 % of the channels removed, saved and loaded again, exported, quantized. Every step is",
        "compared with the module before it; a sentence is a refusal, `FAULT` a bug.",
        f"Seed {seed}, torch {torch.__version__}.",
        "",
        f"| package | drawn | too slow | {' | '.join(STEPS)} | faults |",
        f"| {' | '.join(['---'] * (len(STEPS) + 4))} |",
    ]
    for family, found in rows.items():
        ran = [row for row in found if "late" not in row]
        counts = [str(sum(row.get(step) == "ok" for row in ran)) for step in STEPS]
        faults = sum(len(_faults(row)) for row in found)
        text.append(
            f"| {family} | {len(found)} | {len(found) - len(ran)} | {' | '.join(counts)} | {faults} |"
        )
    text += ["", "| definition | step | what was said |", "| --- | --- | --- |"]
    for family, found in rows.items():
        for row in found:
            said = [(step, row[step]) for step in STEPS if row.get(step, "ok") != "ok"]
            text += [f"| {family} {row['name']} | {step} | {words(why)} |" for step, why in said]
    pruned = [
        f"{family} {row['name']} {row['gone']}"
        for family, found in rows.items()
        for row in found
        if "gone" in row
    ]
    text += ["", "Share of the parameters that went: " + ", ".join(pruned) + ".", ""]
    return "\n".join(text)


def words(said: str) -> str:
    """A sentence for a cell of a table."""
    return said.replace("|", "/").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
