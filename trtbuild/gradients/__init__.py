"""Gradients of a network's outputs by its inner tensors, as an ONNX network that ONNX Runtime runs."""

from __future__ import annotations

from trtbuild.gradients.network import Backward, backward_network, differentiable_outputs

__all__ = ["Backward", "backward_network", "differentiable_outputs"]
