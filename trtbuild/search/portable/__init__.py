"""What ONNX Runtime's form rounds, and how: `choose` decides by images, `channel_scales` proposes."""
