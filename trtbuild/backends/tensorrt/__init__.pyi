"""The public names, and where each comes from."""

__all__: list[str]

from .backend import TensorRTBackend as TensorRTBackend
