"""Builds ONNX networks that compute gradients of a network's outputs by its inner tensors."""

from __future__ import annotations

from trtbuild.gradients.network import Backward, backward_network, differentiable_outputs

__all__ = ["Backward", "backward_network", "differentiable_outputs"]
