"""Choices for ONNX Runtime's form: `channel_scales` proposes scales, `choose` decides by check images."""
