"""Networks of torchvision, timm and transformers, where installed, with random weights."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from architectures.example import Example, example_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["missing_packages", "of_packages"]

TORCHVISION = (
    *("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "googlenet", "mnasnet0_5", "regnet_y_400mf", "densenet121", "convnext_tiny"),
    *("swin_t", "vit_b_32", "lraspp_mobilenet_v3_large"),
)
TIMM = (
    *("ghostnet_100", "repvgg_a0", "mobileone_s0", "lcnet_050", "tinynet_e", "mobilevit_xxs"),
    *("edgenext_xx_small", "levit_128s", "deit_tiny_patch16_224", "pit_ti_224", "poolformer_s12"),
    *("mixer_s32_224", "xcit_nano_12_p16_224", "efficientvit_b0", "fastvit_t8"),
    *("mobilenetv4_conv_small", "convnextv2_atto", "hgnetv2_b0", "repvit_m0_9", "starnet_s1"),
    *("mambaout_femto", "eva02_tiny_patch14_224", "tiny_vit_5m_224"),
)
TEXTS = ("bert", "roberta", "electra", "mpnet", "albert", "distilbert", "xlm-roberta", "deberta-v2")
DECODERS = ("gpt2", "llama", "qwen2", "opt", "mistral", "qwen3", "gemma2", "phi3", "modernbert")
PICTURES = ("vit", "deit", "segformer", "dinov2")

_WITHOUT_MORE = {
    "googlenet": {"init_weights": False, "aux_logits": False},
    "lraspp_mobilenet_v3_large": {"weights_backbone": None},
}


@dataclass(frozen=True)
class _Kind:
    """A kind of network that differs from the rest of transformers.

    Attributes:
        inputs: name -> dtype and dims; integer inputs hold ones.
        settings: of the configuration, besides the common small sizes.
        loader: the class of transformers that creates it.
    """

    inputs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    loader: str = "AutoModel"


_WORDS, _SOUND = (torch.int64, (1, 16)), torch.float32
_LAYERS = {"encoder_layers": 2, "decoder_layers": 2}
_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
_WIDE = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
OTHERS = {
    "whisper": _Kind(
        {"input_features": (_SOUND, (1, 20, 40)), "decoder_input_ids": (torch.int64, (1, 6))},
        {**_LAYERS, **_HEADS, **_WIDE, "num_mel_bins": 20, "max_source_positions": 20,
         "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    ),
    "wav2vec2": _Kind(
        {"input_values": (_SOUND, (1, 2000))},
        {"conv_dim": (16, 16, 16), "conv_stride": (5, 4, 2), "conv_kernel": (10, 8, 4),
         "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
         "num_conv_pos_embedding_groups": 4},
    ),
    "trocr": _Kind(
        {"input_ids": (torch.int64, (1, 6)), "encoder_hidden_states": (_SOUND, (1, 20, 64))},
        {**_LAYERS, **_HEADS, **_WIDE, "cross_attention_hidden_size": 64},
        loader="AutoModelForCausalLM",
    ),
    "layoutlm": _Kind(
        {"input_ids": _WORDS, "bbox": (torch.int64, (1, 16, 4)), "attention_mask": _WORDS}
    ),
    "t5": _Kind(
        {"input_ids": _WORDS, "attention_mask": _WORDS},
        {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
        loader="AutoModelForTextEncoding",
    ),
    "mamba": _Kind(
        {"input_ids": (torch.int64, (1, 8))}, {"state_size": 8, "time_step_rank": 4}
    ),
    "sam_vision_model": _Kind(
        {"pixel_values": (torch.float32, (1, 3, 64, 64))},
        {"image_size": 64, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 128,
         "output_channels": 32},
    ),
    "clip_text_model": _Kind({"input_ids": _WORDS}, {"eos_token_id": 1, "bos_token_id": 0}),
    "clip_vision_model": _Kind(
        {"pixel_values": (torch.float32, (1, 3, 64, 64))}, {"image_size": 64, "patch_size": 16}
    ),
    "siglip_vision_model": _Kind(
        {"pixel_values": (torch.float32, (1, 3, 64, 64))}, {"image_size": 64, "patch_size": 16}
    ),
}  # fmt: skip

# Names of sizes in the configurations of transformers; a configuration without one is left unchanged.
_SMALL = {
    "hidden_size": 64, "n_embd": 64, "dim": 64, "embedding_size": 64, "word_embed_proj_dim": 64,
    "intermediate_size": 128, "hidden_dim": 128, "ffn_dim": 128,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
    "vocab_size": 200, "max_position_embeddings": 64, "use_cache": False, "pad_token_id": 0,
}  # fmt: skip


def missing_packages() -> list[str]:
    """Return the packages with networks that are not installed."""
    names = ("torchvision", "timm", "transformers")
    return [name for name in names if importlib.util.find_spec(name) is None]


def of_packages() -> Mapping[str, Callable[[], Example]]:
    """Return name -> function that makes the network, for the installed packages."""
    found: dict[str, Callable[[], Example]] = {}
    kinds = {
        "torchvision": (TORCHVISION, _torchvision),
        "timm": (TIMM, _timm),
        "transformers": ((*TEXTS, *DECODERS, *PICTURES, *OTHERS), _transformers),
    }
    for package, (names, make) in kinds.items():
        if package not in missing_packages():
            found |= {f"{package}/{name}": functools.partial(make, name) for name in names}
    return found


def _torchvision(name: str) -> Example:
    from torchvision import models

    module = models.get_model(name, weights=None, **_WITHOUT_MORE.get(name, {}))
    return example_of(module, torch.rand(1, 3, 224, 224))


def _timm(name: str) -> Example:
    import timm

    module = timm.create_model(name, pretrained=False, exportable=True)
    return example_of(module, torch.rand(1, 3, 224, 224))


class _FirstOutput(torch.nn.Module):
    """A model of transformers with some of its inputs by name, and its first output."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs)), return_dict=False)[0]


def _transformers(name: str) -> Example:
    import transformers

    config = transformers.AutoConfig.for_model(name)
    sizes = dict(_SMALL)
    if name in PICTURES:
        sizes["image_size"] = 64
    if name == "segformer":  # its sizes differ by stage
        sizes = {"image_size": 64}
    kind = OTHERS.get(name)
    sizes |= kind.settings if kind else {}
    for key, value in sizes.items():
        if hasattr(config, key):
            with contextlib.suppress(AttributeError, NotImplementedError):  # some are computed
                setattr(config, key, value)
    loader = getattr(transformers, kind.loader if kind else "AutoModel")
    model = loader.from_config(config, attn_implementation="eager")
    if kind is not None:
        made = (
            torch.randn(dims) if dtype.is_floating_point else torch.ones(dims, dtype=dtype)
            for dtype, dims in kind.inputs.values()
        )
        return example_of(_FirstOutput(model, tuple(kind.inputs)), *made, num_plain=0)
    if name in PICTURES:
        return example_of(
            _FirstOutput(model, ("pixel_values",)), torch.rand(1, 3, 64, 64), num_plain=0
        )
    words = torch.ones(1, 16, dtype=torch.int64)
    return example_of(
        _FirstOutput(model, ("input_ids", "attention_mask")), words, words, num_plain=0
    )
