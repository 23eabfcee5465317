"""What can run a network: ONNX Runtime, TensorRT."""
