"""Meets an accuracy budget: better ranges, corrected biases, equalized channels, float layers."""
