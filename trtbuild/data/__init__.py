"""Calibration and verification data: readers, preprocessing, labels, and what is kept apart."""

from __future__ import annotations

from trtbuild.data.labels import read_labels
from trtbuild.data.opening import open_source
from trtbuild.data.preprocess import ImageSize, Preprocess, read_preprocess
from trtbuild.data.random_data import RandomSource
from trtbuild.data.samples import Batch, Sample, Source, batches
from trtbuild.data.split import Split, choose_samples, split

__all__ = [
    "Batch",
    "ImageSize",
    "Preprocess",
    "RandomSource",
    "Sample",
    "Source",
    "Split",
    "batches",
    "choose_samples",
    "open_source",
    "read_labels",
    "read_preprocess",
    "split",
]
