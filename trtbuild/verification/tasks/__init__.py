"""Accuracy on the task itself, without labels: the engine's answers against the float network's."""
