"""Attention as the products and sums that it stands for, where torch has no ONNX form for it."""

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
    """Within this mode ``scaled_dot_product_attention`` is what its documentation says that it computes."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or what attention stands for."""
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
    """Softmax of the scaled products of queries and keys, times values; any number of axes in front."""
    del dropout_p  # a module in eval mode drops nothing
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
        scores = scores + attn_mask.to(scores.dtype)  # float32 beside values of 16 bits is allowed
    # a query that may look at nothing gets zeros from torch, where a softmax alone has no number
    nothing = scores.amax(-1, keepdim=True) == -math.inf
    return scores.softmax(-1).masked_fill(nothing, 0) @ value
