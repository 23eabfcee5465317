"""Meets an accuracy budget: better ranges, corrected biases, scaled channels, float layers."""
