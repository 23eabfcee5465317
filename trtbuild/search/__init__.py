"""Searches for a quantization that meets an accuracy budget: ranges, biases, channel scales, float layers."""
