"""Writes attention as matrix products and a softmax, where torch cannot export it to ONNX."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch.overrides import TorchFunctionMode

from trtbuild.pytorch.aten import calls, name_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["AttentionInSteps", "has_attention"]


def has_attention(program: ExportedProgram) -> bool:
    """Return whether `program` calls ``scaled_dot_product_attention``."""
    return any(name_of(node) == "scaled_dot_product_attention" for node in calls(program))


class AttentionInSteps(TorchFunctionMode):  # type: ignore[misc]
    """In this mode ``scaled_dot_product_attention`` runs as the steps that its documentation lists."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or the steps of attention in its place."""
        del types
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return _attention(*args, **(kwargs or {}))


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Softmax of the scaled products of queries and keys, times values; any number of leading axes."""
    del dropout_p  # no dropout in eval mode
    if enable_gqa:
        heads = query.shape[-3]
        key, value = (one.repeat_interleave(heads // one.shape[-3], -3) for one in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~past, -math.inf)
    if attn_mask is None:
        return scores.softmax(-1) @ value
    if attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    else:
        scores = scores + attn_mask.to(scores.dtype)  # float32 masks of 16-bit scores are allowed
    # torch gives zeros to a query that may see no key, where softmax alone would give NaN
    nothing = scores.amax(-1, keepdim=True) == -math.inf
    return scores.softmax(-1).masked_fill(nothing, 0) @ value
