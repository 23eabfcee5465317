"""Small definitions of torchvision, timm, transformers and ultralytics, with random weights."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FAMILIES", "shortened"]

LARGEST = 30_000_000
"""Parameters; larger definitions are drawn again."""

SEGMENTERS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
YOLOS = (
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-cls", "yolov8n-seg", "yolov8n-pose",
    "yolov8n-ghost", "yolov8n-p2", "yolov8n-p6", "yolov8n-obb", "yolov9t", "yolov10n", "yolo11n",
    "yolo11n-cls", "yolo11n-seg", "yolo11n-pose", "yolo12n", "yolo12n-cls", "yolov8n-ghost-p2",
)  # fmt: skip
LANGUAGE = {
    "Albert": {"embedding_size": 16}, "Bert": {}, "DistilBert": {}, "Electra": {"embedding_size": 16},
    "GPT2": {}, "Llama": {}, "Mistral": {"num_key_value_heads": 2}, "Qwen2": {"num_key_value_heads": 2},
    "Roberta": {}, "OPT": {"word_embed_proj_dim": 32, "ffn_dim": 64}, "MPNet": {}, "Phi": {},
}  # fmt: skip
"""Language transformers, with their settings besides the common sizes of a configuration."""

_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "emb_dim", "word_embed_proj_dim")
_INNER = (
    "intermediate_size",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "hidden_dim",
    "d_ff",
)
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
_SIZES = {
    **dict.fromkeys(_WIDTH, 32), **dict.fromkeys(_INNER, 64), **dict.fromkeys(_HEADS, 4),
    "decoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "d_kv": 8, "kv_channels": 8,
    **dict.fromkeys(_DEPTH, 2), "decoder_layers": 2, "num_decoder_layers": 2,
    "vocab_size": 99, "max_position_embeddings": 64, "embedding_size": 32, "projection_dim": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_intermediate_size": 32,
    "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "layer_types": None, "decoder_hidden_size": 32,
}  # fmt: skip
"""Names of sizes in the configurations of transformers; a configuration without one is left unchanged."""


def _torchvision_names(draw: random.Random) -> Iterator[str]:
    """Classifiers and segmenters in a random order."""
    import torchvision

    names = [*torchvision.models.list_models(module=torchvision.models), *SEGMENTERS]
    yield from draw.sample(names, len(names))


def _torchvision(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A module of torchvision, and its input."""
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
    return _made(lambda: torchvision.models.get_model(name, **options)), _image(size)


def _timm_names(draw: random.Random) -> Iterator[str]:
    """One model from each file of timm, the files in a random order; then a second from each, and so on."""
    import timm

    files = draw.sample(timm.list_modules(), len(timm.list_modules()))
    names = {file: timm.list_models(module=file) for file in files}
    names = {file: draw.sample(found, len(found)) for file, found in names.items()}
    while any(names.values()):
        for found in names.values():
            if found:
                yield found.pop()


def _timm(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A module of timm, and its input: 64 x 64 if it accepts that, else its fixed size, or 96 x 96."""
    import timm

    torch.manual_seed(seed)
    options: dict[str, Any] = {"pretrained": False, "num_classes": 10}
    try:
        module = _made(lambda: timm.create_model(name, img_size=64, **options))
    except TypeError:
        module = _made(lambda: timm.create_model(name, **options))
        fixed = module.default_cfg.get("fixed_input_size")
        return module, _image(module.default_cfg["input_size"][-1] if fixed else 96)
    return module, _image(64)


def _transformers_names(draw: random.Random) -> Iterator[str]:
    """Configurations in a random order: first those with sizes known here, then all kinds of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    names = [*LANGUAGE, "ViT", "Segformer", "ConvNext"]
    yield from draw.sample(names, len(names))
    kinds = list(CONFIG_MAPPING_NAMES)
    yield from draw.sample(kinds, len(kinds))


def _transformers(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A small module of transformers, and its input."""
    import transformers

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
    if name not in pictures and name not in LANGUAGE:
        return _by_kind(name)
    wish = pictures.get(name) or {**common, **LANGUAGE[name]}
    config = getattr(transformers, f"{name}Config")(**wish)
    network = _First(getattr(transformers, f"{name}Model")(config), ())
    return network, _image(32 if name == "ViT" else 64) if name in pictures else _words()


def _by_kind(kind: str) -> tuple[Any, list[Any]]:
    """A module by the name of its kind, made small through the size fields of its configuration."""
    import transformers

    config = transformers.AutoConfig.for_model(kind)
    for name, value in _SIZES.items():
        if isinstance(getattr(config, name, None), (int, float, list)):
            setattr(config, name, value)
    config.architectures = None
    model = _made(lambda: transformers.AutoModel.from_config(config, attn_implementation="eager"))
    taken = model.main_input_name
    if taken == "pixel_values":
        size = getattr(config, "image_size", None) or 64
        return _First(model, ()), _image(size if isinstance(size, int) else size[0])
    if taken != "input_ids":
        raise SystemExit("takes neither words nor pictures")
    return _First(model, ("decoder_input_ids",) if config.is_encoder_decoder else ()), _words()


class _First(nn.Module):
    """A model of transformers: its first output alone."""

    def __init__(self, network: nn.Module, again: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.again = network, again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the first output; the input goes to the arguments `again`, too."""
        return self.network(x, **dict.fromkeys(self.again, x), return_dict=False)[0]


def _ultralytics_names(draw: random.Random) -> Iterator[str]:
    """YOLO definitions in a random order."""
    import ultralytics  # noqa: F401 - whether it is there

    yield from draw.sample(YOLOS, len(YOLOS))


def _ultralytics(name: str, seed: int) -> tuple[Any, list[Any]]:
    """A YOLO with the settings of its own exporter, and its input."""
    from ultralytics.nn import tasks

    torch.manual_seed(seed)
    kind = name.rpartition("-")[2]
    kinds = {
        "cls": "ClassificationModel",
        "seg": "SegmentationModel",
        "pose": "PoseModel",
        "obb": "OBBModel",
    }
    module = getattr(tasks, kinds.get(kind, "DetectionModel"))(f"{name}.yaml", verbose=False)
    for child in module.modules():
        if hasattr(child, "export"):
            child.export, child.format, child.dynamic = True, "onnx", False
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module, _image(64, dynamic=False)


def _made(make: Callable[[], Any]) -> Any:
    """Make a module; it is made on the meta device first, and a module beyond the limit is refused there."""
    try:
        with torch.device("meta"):
            shape = make()
    except TypeError:
        raise
    except Exception:  # noqa: BLE001 - some cannot be made so
        shape = None
    module = make() if shape is None or _fits(shape) else None
    if module is None or not _fits(module):
        raise SystemExit("too large")
    return module


def shortened(module: nn.Module) -> nn.Module:
    """Leave out, in place, the blocks that repeat the one before them in a list; return `module`.

    One block of each kind shows every fault of a definition.
    """
    for child in list(module.modules()):
        if not isinstance(child, (nn.Sequential, nn.ModuleList)):
            continue
        blocks: list[nn.Module] = []
        before: Any = None
        for block in child:
            shape = (type(block), [(name, one.shape) for name, one in block.state_dict().items()])
            if not shape[1] or shape != before:
                blocks.append(block)
            before = shape
        if len(blocks) < len(child):
            child._modules.clear()
            child._modules.update({str(index): block for index, block in enumerate(blocks)})
    return module


def _fits(module: nn.Module) -> bool:
    return sum(parameter.numel() for parameter in module.parameters()) <= LARGEST


def _image(size: int, *, dynamic: bool = True) -> list[Any]:
    """A batch of two pictures, with a dynamic or a fixed batch axis."""
    from trtbuild.pytorch import InputSpec

    return [InputSpec((2, 3, size, size), dynamic={0: "batch"} if dynamic else {})]


def _words() -> list[Any]:
    """Two texts of nine words."""
    from trtbuild.pytorch import InputSpec

    return [InputSpec((2, 9), dtype="int64", low=3, high=90, dynamic={0: "batch"})]


FAMILIES: dict[str, tuple[Callable[[random.Random], Iterator[str]], Callable[[str, int], Any]]] = {
    "torchvision": (_torchvision_names, _torchvision),
    "timm": (_timm_names, _timm),
    "transformers": (_transformers_names, _transformers),
    "ultralytics": (_ultralytics_names, _ultralytics),
}
"""Package -> function that draws names, and function that makes a module and its inputs by name."""
