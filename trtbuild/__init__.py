"""TensorRT INT8 deployment builder."""
