"""From TensorRT 10's calibration caches to Q/DQ networks for 11, and back for DLA and TensorRT 10."""

from __future__ import annotations

from trtbuild.migration.report import Entry, Fate, Migration
from trtbuild.migration.to_cache import to_cache
from trtbuild.migration.to_qdq import check_fits, tensor_names, to_qdq

__all__ = ["Entry", "Fate", "Migration", "check_fits", "tensor_names", "to_cache", "to_qdq"]
