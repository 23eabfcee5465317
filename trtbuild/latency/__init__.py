"""Latency samples, their statistics, and comparison with another engine or a baseline."""
