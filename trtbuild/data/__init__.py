"""Calibration and verification data: readers, preprocessing, labels, and the split for verification."""

from __future__ import annotations

from trtbuild.data.account import DataAccount, account_for, warn_of_lost
from trtbuild.data.batching import (
    Batch,
    batches,
    filled,
    full_batches,
    load_feeds,
    samples_per_batch,
)
from trtbuild.data.opening import DataPlan, calibration_source, open_data, open_named, open_source
from trtbuild.data.samples import DataDigest, Sample, SampleIndex, Source
from trtbuild.data.split import (
    HELD_OUT_SHARE,
    Split,
    choose_samples,
    first_samples,
    shard_of,
    split,
    without,
)
from trtbuild.options.data import DataRecipe
from trtbuild.options.preprocess import ImageSize, Preprocess, read_preprocess

__all__ = [
    "HELD_OUT_SHARE",
    "Batch",
    "DataAccount",
    "DataDigest",
    "DataPlan",
    "DataRecipe",
    "ImageSize",
    "Preprocess",
    "Sample",
    "SampleIndex",
    "Source",
    "Split",
    "account_for",
    "batches",
    "calibration_source",
    "choose_samples",
    "filled",
    "first_samples",
    "full_batches",
    "load_feeds",
    "open_data",
    "open_named",
    "open_source",
    "read_preprocess",
    "samples_per_batch",
    "shard_of",
    "split",
    "warn_of_lost",
    "without",
]
