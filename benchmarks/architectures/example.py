"""Modules with example inputs, for the export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from architectures import joint, lines, pictures, places, scenes
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OWN", "Example", "example_of"]


@dataclass(frozen=True)
class Example:
    """A module and the inputs that it is traced with.

    Attributes:
        module: in eval mode.
        inputs: one sample each, with the batch along the first axis.
        num_plain: how many inputs are arguments of their own; the others go to a ``*`` argument.
        open_axes: input -> axis -> name of a dynamic dim other than the batch.
    """

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    num_plain: int
    open_axes: Mapping[int, Mapping[int, str]] = field(default_factory=dict)


def example_of(
    module: nn.Module,
    *inputs: torch.Tensor,
    num_plain: int | None = None,
    open_axes: Mapping[int, Mapping[int, str]] | None = None,
) -> Example:
    """Return a module in eval mode, with statistics in its BatchNorms as after training."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    plain = len(inputs) if num_plain is None else num_plain
    return Example(module.eval(), inputs, plain, open_axes or {})


def _picture(extent: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, extent, extent)


def _decoder() -> Example:
    past = [torch.randn(1, 2, 6, 16) for _ in range(4)]
    token, position = torch.tensor([[7]]), torch.tensor([[6]])
    return example_of(
        lines.Decoder(),
        *(token, position, *past),
        num_plain=2,
        open_axes={number: {2: "past"} for number in range(2, 6)},
    )


def _speech_decoder() -> Example:
    keys, values = torch.randn(1, 4, 5, 12), torch.randn(1, 4, 5, 12)
    return example_of(
        joint.SpeechDecoder(),
        *(torch.tensor([[7]]), torch.randn(1, 20, 48), keys, values),
        open_axes={2: {2: "past"}, 3: {2: "past"}},
    )


OWN: Mapping[str, Callable[[], Example]] = {
    "centernet": lambda: example_of(places.CenterNet(), _picture()),
    "clip": lambda: example_of(joint.Clip(), _picture(), torch.randint(1, 99, (1, 12))),
    "conformer": lambda: example_of(lines.Conformer(), torch.randn(1, 40, 32)),
    "convnext_v2": lambda: example_of(pictures.ConvNeXt(), _picture()),
    "crnn": lambda: example_of(lines.Crnn(), torch.rand(1, 1, 32, 64)),
    "denoiser": lambda: example_of(places.Denoiser(), _picture(16), torch.tensor([0.5])),
    "depth": lambda: example_of(scenes.Depth(), _picture()),
    "detr": lambda: example_of(places.Detr(), _picture()),
    "dlrm": lambda: example_of(lines.Dlrm(), torch.rand(1, 8), torch.ones(1, 4, dtype=torch.int64)),
    "efficientnet": lambda: example_of(pictures.EfficientNet(), _picture()),
    "feature_pyramid": lambda: example_of(places.Pyramid(), _picture()),
    "flow": lambda: example_of(scenes.Flow(), _picture(), _picture()),
    "gru": lambda: example_of(lines.Recurrent(nn.GRU), torch.randn(1, 12, 16)),
    "gru_cells": lambda: example_of(lines.Cells(nn.GRUCell), torch.randn(1, 8, 16)),
    "llm_decoder": _decoder,
    "lstm": lambda: example_of(lines.Recurrent(nn.LSTM), torch.randn(1, 12, 16)),
    "lstm_cells": lambda: example_of(lines.Cells(nn.LSTMCell), torch.randn(1, 8, 16)),
    "mamba": lambda: example_of(lines.Mamba(), torch.randint(0, 99, (1, 10))),
    "mask_former": lambda: example_of(joint.MaskFormer(), _picture()),
    "mixer": lambda: example_of(pictures.Mixer(), _picture()),
    "mobilevit": lambda: example_of(pictures.MobileViT(), _picture()),
    "point_pillars": lambda: example_of(
        scenes.PointPillars(), torch.randn(1, 40, 8, 9), torch.randperm(32 * 32)[None, :40]
    ),
    "pointnet": lambda: example_of(lines.PointNet(), torch.randn(1, 3, 128)),
    "re_identification": lambda: example_of(pictures.ReIdentifier(), _picture()),
    "restorer": lambda: example_of(places.Restorer(), _picture()),
    "rt_detr": lambda: example_of(places.RtDetr(), _picture()),
    "segment_anything": lambda: example_of(
        joint.MaskDecoder(), torch.randn(1, 32, 8, 8), torch.rand(1, 2, 2), torch.tensor([[1, 0]])
    ),
    "segformer": lambda: example_of(places.SegFormer(), _picture()),
    "siamese": lambda: example_of(places.Siamese(), _picture(32), _picture(64)),
    "speech_decoder": _speech_decoder,
    "super_resolution": lambda: example_of(places.SuperResolution(), _picture(24)),
    "swin": lambda: example_of(pictures.Swin(), _picture()),
    "unet": lambda: example_of(places.UNet(), _picture()),
    "unet_resize": lambda: example_of(places.UNet(transposed=False), _picture()),
    "video": lambda: example_of(pictures.VideoNet(), torch.rand(1, 3, 8, 32, 32)),
    "vocoder": lambda: example_of(lines.Vocoder(), torch.randn(1, 20, 16)),
    "wavenet": lambda: example_of(lines.WaveNet(), torch.randn(1, 4, 64)),
    "yolo": lambda: example_of(places.Yolo(), _picture()),
    "yolo_area": lambda: example_of(places.YoloArea(), _picture()),
}
"""Our own small definitions, with random weights and the typical operators of each kind."""
