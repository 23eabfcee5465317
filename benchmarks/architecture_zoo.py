"""Does NVIDIA's parser take what trtbuild makes of known architectures? Definitions with random weights.

    python benchmarks/architecture_zoo.py [NAME...] [--exporter dynamo,script] [--opset 13,18,23]
                                          [--batch static,dynamic] [--build] [--markdown FILE]

Networks of torchvision, timm and transformers (by random configurations; trtbuild needs none of the three, so
install them first) are exported by PyTorch, prepared, quantized with made-up ranges, and shown to the parser
of TensorRT for RTX (extra ``rtx``, no GPU): as they are, prepared, in INT8, and in INT8 with FP16; with
``--build`` its builder makes a plan of each that the parser takes, too. The result is a table and a count.
Exit status 1 when a network is taken and a form of ours is not. An opset that an exporter does not write is
passed over: PyTorch's older exporter ends at 20, the newer begins at 18.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from calibrators import Calibration, TensorRange
from trtbuild.backends.base import BuildRequest
from trtbuild.backends.tensorrt.apart import build_plan_apart, find_refusals_apart
from trtbuild.backends.tensorrt.builder import Blueprint
from trtbuild.backends.tensorrt.profiles import profiles_for
from trtbuild.errors import TrtbuildError
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import input_specs, temporary_file
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.passes import OptimizeOptions
from trtbuild.progress import silent
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.quantization.half import to_half
from trtbuild.runtime.tensorrt.versions import RTX, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from trtbuild.model.signature import TensorSpec

# What each exporter writes, and what it is asked for by default.
WRITES = {"dynamo": range(18, 24), "script": range(13, 21)}
OPSETS = {"dynamo": (20,), "script": (17,)}
STATIC, DYNAMIC = "static", "dynamic"
FORMS = ("float", "prepared", "INT8", "INT8 + FP16")

TORCHVISION = (
    *("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "googlenet", "mnasnet0_5", "regnet_y_400mf", "densenet121", "convnext_tiny"),
    *("swin_t", "vit_b_32", "lraspp_mobilenet_v3_large"),
)
TIMM = (
    *("ghostnet_100", "repvgg_a0", "mobileone_s0", "lcnet_050", "tinynet_e", "mobilevit_xxs"),
    *("edgenext_xx_small", "levit_128s", "deit_tiny_patch16_224", "pit_ti_224", "poolformer_s12"),
    *("mixer_s32_224", "xcit_nano_12_p16_224", "efficientvit_b0", "fastvit_t8"),
)
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 200,
}
TEXTS = ("bert", "roberta", "electra", "mpnet", "albert", "distilbert", "xlm-roberta", "deberta-v2")
DECODERS = ("gpt2", "llama", "qwen2", "opt")
PICTURES = ("vit", "deit", "segformer", "dinov2")


@dataclass
class Row:
    """One network from one exporter: the size of its graph, and what was said to each form."""

    network: str
    exporter: str
    opset: int
    batch: str
    nodes: int = 0
    groups: int = 0
    taken: dict[str, bool] = field(default_factory=dict)
    note: str = ""

    @property
    def lost(self) -> bool:
        """Whether the parser takes the network and not all that was made of it."""
        return self.taken.get("float", False) and not all(self.taken.values())

    def line(self) -> str:
        """The row of a Markdown table."""
        answers = [{True: "yes", False: "no"}.get(self.taken.get(form), "-") for form in FORMS]
        cells = (
            self.network,
            f"{self.exporter} {self.opset}",
            self.batch,
            str(self.nodes),
            str(self.groups),
            *answers,
            self.note,
        )
        return f"| {' | '.join(cells)} |"


def networks() -> Iterator[tuple[str, Callable[[], tuple[torch.nn.Module, tuple[Any, ...]]]]]:
    """Yield names, and what makes each module with example inputs."""
    picture = (torch.zeros(1, 3, 224, 224),)
    for name in TORCHVISION:
        yield f"torchvision/{name}", lambda name=name: (_torchvision(name), picture)
    for name in TIMM:
        yield f"timm/{name}", lambda name=name: (_timm(name), picture)
    words = (torch.ones(1, 16, dtype=torch.int64), torch.ones(1, 16, dtype=torch.int64))
    for name in (*TEXTS, *DECODERS):
        yield f"transformers/{name}", lambda name=name: (_transformers(name), words)
    small = (torch.zeros(1, 3, 64, 64),)
    for name in PICTURES:
        yield f"transformers/{name}", lambda name=name: (_transformers(name), small)


def _torchvision(name: str) -> torch.nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, **_WITHOUT_MORE.get(name, {}))


_WITHOUT_MORE = {
    "googlenet": {"init_weights": False, "aux_logits": False},
    "lraspp_mobilenet_v3_large": {"weights_backbone": None},
}


def _timm(name: str) -> torch.nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, exportable=True)


class _FirstOutput(torch.nn.Module):
    """A model of transformers whose answer is its first tensor."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the first tensor of the answer."""
        answer = self.model(*inputs, return_dict=False)
        return answer[0]


def _transformers(name: str) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(name)
    pictures = {"image_size": 64} if name in PICTURES else {}
    other = {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 128,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "ffn_dim": 128,
        "word_embed_proj_dim": 64,
        "embedding_size": 64,
        "max_position_embeddings": 64,
        "use_cache": False,
    }
    for key, value in {**SMALL, **other, **pictures}.items():
        if hasattr(config, key) and (key != "hidden_size" or name != "segformer"):
            with contextlib.suppress(
                Exception
            ):  # what a kind of network has otherwise keeps its default
                setattr(config, key, value)
    return _FirstOutput(AutoModel.from_config(config, attn_implementation="eager"))


def export(
    module: torch.nn.Module, inputs: tuple[Any, ...], path: Path, how: tuple[str, int, str]
) -> None:
    """Write a module as ONNX by one of PyTorch's two exporters, in an opset, the batch open or fixed."""
    exporter, opset, batch = how
    more: dict[str, Any] = {}
    if batch == DYNAMIC:
        names = [f"input_{number}" for number in range(len(inputs))]
        more["input_names"] = names
        if exporter == "script":
            more["dynamic_axes"] = {name: {0: "batch"} for name in names}
        else:
            # an example of one sample would be taken for a batch of exactly one
            inputs = tuple(torch.cat([one, one]) for one in inputs)
            more["dynamic_shapes"] = tuple({0: torch.export.Dim("batch")} for _ in inputs)
            if isinstance(module, _FirstOutput):  # its forward takes them all as one argument
                more["dynamic_shapes"] = (more["dynamic_shapes"],)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), inputs, path, dynamo=exporter == "dynamo", opset_version=opset, **more
        )


def forms(path: Path, row: Row) -> Iterator[tuple[str, ir.Model]]:
    """Yield what trtbuild makes of a network."""
    artifact = prepare(load(path), OptimizeOptions(check=False))
    yield "prepared", artifact.whole(artifact.model)
    wanted = sorted(watched_tensors(artifact.model))
    if not wanted:
        return
    ranges = {name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 1000, 0) for name in wanted}
    artifact = insert_qdq(artifact.with_calibration(Calibration("minmax", ranges)))
    assert artifact.quantized is not None
    row.groups = sum(group.int8 for group in artifact.groups)
    yield "INT8", artifact.whole(artifact.quantized)
    half, _ = to_half(artifact.quantized, dict.fromkeys(wanted, 4.0))
    yield "INT8 + FP16", artifact.whole(half)


def look_at(name: str, make: Callable[[], Any], how: tuple[str, int, str], *, build: bool) -> Row:
    """Export a network, make its forms, and ask the parser, and the builder where that is wanted."""
    row = Row(name, *how)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            torch.manual_seed(0)
            export(*make(), path, how)
        except Exception as error:  # noqa: BLE001  whatever packages raise: it is no fault of ours
            row.note = f"not exported: {type(error).__name__}"
            return row
        try:
            row.nodes = len(load(path).source.graph)
            _ask(row, "float", path, build=build)
            for form, model in forms(path, row):
                with temporary_file(model) as file:
                    _ask(row, form, file, build=build)
        except TrtbuildError as error:
            row.note = f"refused by trtbuild: {str(error)[:120]}"
    return row


def _ask(row: Row, form: str, path: Path, *, build: bool) -> None:
    refused = find_refusals_apart(installed(RTX), path).refused
    row.taken[form] = not refused
    if refused and not row.note:
        row.note = f"{form}: {refused[0].operator}, {refused[0].reason[:100]}"
    if build and not refused:
        try:
            _build(path)
        except TrtbuildError as error:
            row.taken[form] = False
            row.note = row.note or f"{form}: not built, {str(error)[:100]}"


def _build(path: Path) -> None:
    """Build a plan of a file as it is; what its shapes leave open is 1 to 4, usually 2."""
    artifact = load(path)
    specs = input_specs(artifact.source)
    shapes = [
        f"{spec.name}={':'.join(_shape(spec, size) for size in (1, 2, 4))}"
        for spec in specs
        if not all(isinstance(dim, int) for dim in spec.dims)
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        temporary_file(artifact.whole(artifact.source)) as file,
    ):
        blueprint = Blueprint(
            file, profiles_for(shapes, specs), implicit=False, strongly_typed=True, fp16_flag=False
        )
        options = TensorRTOptions(optimization_level=0)
        request = BuildRequest(artifact, Path(folder), options=options)
        build_plan_apart(installed(RTX), blueprint, request, options, silent)


def _shape(spec: TensorSpec, size: int) -> str:
    return "x".join(str(dim if isinstance(dim, int) else size) for dim in spec.dims)


HEAD = f"""\
| network | exporter, opset | batch | nodes | INT8 groups | {" | ".join(FORMS)} | |
| {" | ".join(["---"] * (len(FORMS) + 6))} |"""


def main() -> int:
    """Read the arguments, ask for every network, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all networks without any")
    parser.add_argument("--exporter", default="dynamo,script")
    parser.add_argument("--opset", help="such as 13,17,20,23; 17 or 20 without it")
    parser.add_argument("--batch", default=STATIC, help="static, dynamic or both, with a comma")
    parser.add_argument("--build", action="store_true", help="build a plan of each form, too")
    parser.add_argument("--markdown", type=Path, help="write the table into this file, too")
    options = parser.parse_args()
    rows = []
    for name, make in networks():
        if options.names and not any(part in name for part in options.names):
            continue
        for how in _ways(options):
            started = time.perf_counter()
            rows.append(look_at(name, make, how, build=options.build))
            print(rows[-1].line(), f"{time.perf_counter() - started:.0f} s", flush=True)
    text = "\n".join([HEAD, *(row.line() for row in rows), "", *_counted(rows)])
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    print("\n".join(_counted(rows)))
    return int(any(row.lost for row in rows))


def _ways(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Yield exporter, opset and batch, as far as the exporter writes the opset."""
    for exporter in options.exporter.split(","):
        asked = OPSETS[exporter] if options.opset is None else map(int, options.opset.split(","))
        for opset in asked:
            for batch in options.batch.split(","):
                if opset in WRITES[exporter]:
                    yield exporter, opset, batch


def _counted(rows: list[Row]) -> list[str]:
    counts = Counter(form for row in rows for form, taken in row.taken.items() if taken)
    exported = sum(bool(row.nodes) for row in rows)
    lost = [row.network for row in rows if row.lost]
    taken = ", ".join(f"{counts[form]} {form}" for form in FORMS)
    num_networks = len({row.network for row in rows})
    return [
        f"{exported} of {len(rows)} exports of {num_networks} networks came out; taken were {taken}.",
        f"Lost: {', '.join(lost) or 'none'}.",
    ]


if __name__ == "__main__":
    sys.exit(main())
