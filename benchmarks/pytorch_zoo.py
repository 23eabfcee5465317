"""Definitions of other packages, drawn at random: folded, pruned by 30 %, exported, built.

    python benchmarks/pytorch_zoo.py --count 8 --seed 0 --write docs/pytorch-zoo.md

Draws names and sizes from torchvision, timm, transformers and ultralytics, where those are installed,
with random weights. Each definition runs in a process of its own with a limit of time; of a step that is
refused the page has the sentence that was said. ``--only FAMILY:NAME`` runs one definition again.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = ("fold", "prune", "export", "build")
TOO_LARGE = "too large"
LARGEST = 30_000_000
"""Parameters; larger definitions are drawn again."""
DRAWS = 4
"""Batches of two samples that the build gets."""

SEGMENTERS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
YOLOS = (
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-cls", "yolov8n-seg", "yolov8n-pose",
    "yolov8n-ghost", "yolov9t", "yolov10n", "yolo11n", "yolo12n",
)  # fmt: skip
LANGUAGE = {
    "Albert": {"embedding_size": 16}, "Bert": {}, "DistilBert": {}, "Electra": {"embedding_size": 16},
    "GPT2": {}, "Llama": {}, "Mistral": {"num_key_value_heads": 2}, "Qwen2": {"num_key_value_heads": 2},
    "Roberta": {}, "OPT": {"word_embed_proj_dim": 32, "ffn_dim": 64}, "MPNet": {}, "Phi": {},
}  # fmt: skip
"""Transformers of language, with what the common numbers of a configuration do not say."""


def main() -> int:
    """Run what the command line asks for; 0 whatever the counts are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="definitions of each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=600, help="limit for one definition")
    parser.add_argument("--family", choices=tuple(FAMILIES), action="append")
    parser.add_argument("--only", help="FAMILY:NAME, run in this process")
    parser.add_argument("--write", type=Path, help="the page")
    given = parser.parse_args()
    if given.only:
        family, _, name = given.only.partition(":")
        print(json.dumps(tried(FAMILIES[family][1](name, given.seed))))
        return 0
    rows: dict[str, list[dict[str, str]]] = {}
    for family in given.family or FAMILIES:
        try:
            names = FAMILIES[family][0](random.Random(given.seed))  # noqa: S311 - a draw, not a secret
        except ImportError as error:
            print(f"{family} is not installed ({error})")
            continue
        rows[family] = []
        for name in names:
            row = apart(f"{family}:{name}", given.seed, given.seconds)
            if row.get("make") == TOO_LARGE:
                continue
            rows[family].append(row)
            print(row, flush=True)
            if len(rows[family]) == given.count:
                break
        if given.write is not None:
            given.write.write_text(page(rows, given.seed), encoding="utf-8")
    return 0


def apart(label: str, seed: int, seconds: int) -> dict[str, str]:
    """Run one definition in a process of its own; step -> ``ok`` or what was said."""
    start = time.monotonic()
    command = [sys.executable, __file__, "--only", label, "--seed", str(seed)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        said = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {}
        if not said:
            said = {"make": (ran.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    except subprocess.TimeoutExpired:
        said = {"make": f"took longer than {seconds} s"}
    return {"name": label.partition(":")[2], **said, "seconds": f"{time.monotonic() - start:.0f}"}


def tried(made: tuple[Any, list[Any]]) -> dict[str, str]:
    """Do the steps with one module; step -> ``ok`` or what was said."""
    import numpy as np

    from trtbuild.cli.main import run
    from trtbuild.pytorch import export_onnx, fold_norms
    from trtbuild.pytorch.prune import prune_channels
    from trtbuild.pytorch.spec import PruneSpec

    module, inputs = made
    module.eval()
    found: dict[str, str] = {}
    found["fold"] = said_of(lambda: fold_norms(module, inputs))
    pruned: list[Any] = []
    found["prune"] = said_of(lambda: pruned.append(prune_channels(module, inputs, PruneSpec(0.3))))
    if pruned:
        report = pruned[0].report
        found["gone"] = f"{1 - report.after.parameters / report.before.parameters:.2f}"
        if report.achieved < 0.1:
            found["prune"] = f"{report.achieved:.0%} of the channels could go"
    smaller = pruned[0].module if pruned else module
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        found["export"] = said_of(lambda: export_onnx(smaller, inputs, path=path))
        if found["export"] != "ok":
            return {**found, "build": "nothing to build"}
        np.savez(path.with_suffix(".npz"), **drawn_data(smaller, inputs))
        line = [
            "engine",
            str(path),
            "--int8",
            "--data",
            str(path.with_suffix(".npz")),
            "--effort",
            "fast",
        ]
        line += ["--backend", "onnxruntime", "--no-latency", "-o", folder, "-q"]
        code = run(line)
        found["build"] = "ok" if code in (0, 1, 5) else f"exit code {code}"
    return found


def drawn_data(module: Any, inputs: list[Any]) -> dict[str, Any]:
    """`DRAWS` batches of what a module takes, by the names of its inputs."""
    import numpy as np

    from trtbuild.pytorch.inputs import bind_inputs, sample

    bound = bind_inputs(module, inputs)
    draws = [sample(bound, seed) for seed in range(DRAWS)]
    batches = [(*arguments, *keywords.values()) for arguments, keywords in draws]
    return {name: np.concatenate(parts) for name, parts in zip(bound.names, zip(*batches))}


def said_of(step: Callable[[], Any]) -> str:
    """``ok``, or the sentence of the error; another error than one of ours is a fault."""
    from trtbuild.errors import TrtbuildError

    try:
        step()
    except TrtbuildError as error:
        return str(error).splitlines()[0][:160]
    except Exception as error:  # noqa: BLE001 - counted
        return f"FAULT {type(error).__name__}: {str(error)[:120]}"
    return "ok"


def fits(module: Any) -> bool:
    """Whether a definition is small enough."""
    return sum(parameter.numel() for parameter in module.parameters()) <= LARGEST


def torchvision_names(draw: random.Random) -> Iterator[str]:
    """Classifiers and segmenters in a random order."""
    import torchvision

    names = [*torchvision.models.list_models(module=torchvision.models), *SEGMENTERS]
    yield from draw.sample(names, len(names))


def torchvision_module(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A module of torchvision, and its input."""
    import torch
    import torchvision

    torch.manual_seed(seed)
    options: dict[str, Any] = {"weights": None}
    if name in SEGMENTERS:
        options["weights_backbone"] = None
    if name.startswith(("googlenet", "inception")):
        options |= {"aux_logits": False, "init_weights": False}
    size = 224 if name.startswith("maxvit") else 96 if name.startswith("inception") else 64
    if name.startswith("vit"):
        options["image_size"] = size
    module = torchvision.models.get_model(name, **options)
    refuse_large(module)
    return module, image(size)


def timm_names(draw: random.Random) -> Iterator[str]:
    """One of each family of timm, the families in a random order."""
    import timm

    families = draw.sample(timm.list_modules(), len(timm.list_modules()))
    for family in families:
        names = timm.list_models(module=family)
        if names:
            yield draw.choice(names)


def timm_module(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A module of timm, and its input: 64 x 64 where it takes that, else the size that it was made for."""
    import timm
    import torch

    torch.manual_seed(seed)
    options: dict[str, Any] = {"pretrained": False, "num_classes": 10}
    try:
        module = timm.create_model(name, img_size=64, **options)
        refuse_large(module)
        return module, image(64)
    except TypeError:
        module = timm.create_model(name, **options)
        refuse_large(module)
        fixed = module.default_cfg.get("fixed_input_size")
        return module, image(module.default_cfg["input_size"][-1] if fixed else 96)


def transformers_names(draw: random.Random) -> Iterator[str]:
    """Configurations in a random order; the sizes are drawn by name and seed."""
    import transformers  # noqa: F401 - whether it is there

    names = [*LANGUAGE, "ViT", "Segformer", "ConvNext"]
    yield from draw.sample(names, len(names))


def transformers_module(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A small module of transformers, and its input."""
    import torch
    import transformers
    from torch import nn

    from trtbuild.pytorch import InputSpec

    torch.manual_seed(seed)
    draw = random.Random(f"{name}{seed}")  # noqa: S311
    heads, depth = draw.choice((2, 4)), draw.choice((1, 2))
    pictures = {
        "ViT": {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_attention_heads": heads,
                "intermediate_size": 64, "num_hidden_layers": depth},
        "Segformer": {"hidden_sizes": [16, 32, 32, 64], "depths": [depth] * 4, "decoder_hidden_size": 32},
        "ConvNext": {"hidden_sizes": [16, 32, 32, 64], "depths": [depth] * 4},
    }  # fmt: skip
    common = {
        "vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
        "num_hidden_layers": depth, "use_cache": False, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    wish = pictures.get(name) or {**common, **LANGUAGE[name]}
    config = getattr(transformers, f"{name}Config")(**wish)
    network = getattr(transformers, f"{name}Model")(config)

    class States(nn.Module):
        """The last hidden states alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x).last_hidden_state

    if name in pictures:
        return States(), image(32 if name == "ViT" else 64)
    return States(), [InputSpec((2, 9), dtype="int64", low=2, high=90, dynamic={0: "batch"})]


def ultralytics_names(draw: random.Random) -> Iterator[str]:
    """YOLO definitions in a random order."""
    import ultralytics  # noqa: F401 - whether it is there

    yield from draw.sample(YOLOS, len(YOLOS))


def ultralytics_module(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A YOLO as its own exporter sets it, and its input."""
    import torch
    from ultralytics.nn import tasks

    torch.manual_seed(seed)
    kind = name.rpartition("-")[2]
    kinds = {"cls": "ClassificationModel", "seg": "SegmentationModel", "pose": "PoseModel"}
    module = getattr(tasks, kinds.get(kind, "DetectionModel"))(f"{name}.yaml", verbose=False)
    for child in module.modules():
        if hasattr(child, "export"):
            child.export, child.format, child.dynamic = True, "onnx", False
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module, image(64, dynamic=False)


def refuse_large(module: Any) -> None:
    """Stop here where a definition has more parameters than the limit."""
    if not fits(module):
        raise SystemExit(TOO_LARGE)


def image(size: int, *, dynamic: bool = True) -> list[Any]:
    """A batch of pictures, of any number of them or of two."""
    from trtbuild.pytorch import InputSpec

    return [InputSpec((2, 3, size, size), dynamic={0: "batch"} if dynamic else {})]


FAMILIES: dict[str, tuple[Callable[[random.Random], Iterator[str]], Callable[[str, int], Any]]] = {
    "torchvision": (torchvision_names, torchvision_module),
    "timm": (timm_names, timm_module),
    "transformers": (transformers_names, transformers_module),
    "ultralytics": (ultralytics_names, ultralytics_module),
}


def page(rows: dict[str, list[dict[str, str]]], seed: int) -> str:
    """The page with the counts, and what was said where a step was refused."""
    import torch

    text = [
        "# Definitions of other packages",
        "",
        "Drawn at random, with random weights: norms folded, 30 % of the channels removed, exported and",
        "built for ONNX Runtime. Every step holds its result against the module; a sentence is a refusal,",
        "`FAULT` a bug.",
        f"Seed {seed}, torch {torch.__version__}; made by",
        "",
        "    python benchmarks/pytorch_zoo.py --write docs/pytorch-zoo.md",
        "",
        "| package | drawn | fold | prune | export | build | faults |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family, found in rows.items():
        ran = [row for row in found if "make" not in row]
        counts = [str(sum(row[step] == "ok" for row in ran)) for step in STEPS]
        faults = sum(str(value).startswith("FAULT") for row in found for value in row.values())
        text.append(f"| {family} | {len(ran)} | {' | '.join(counts)} | {faults} |")
    text += ["", "| definition | step | what was said |", "| --- | --- | --- |"]
    for family, found in rows.items():
        for row in found:
            said = [(step, row[step]) for step in ("make", *STEPS) if row.get(step, "ok") != "ok"]
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
