"""Random draws that are the same in every build, however its images come together."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["generator_for"]


def generator_for(name: str, seed: int = 0) -> np.random.Generator:
    """Return a random generator for the draws of one tensor or layer.

    An observer must not share one generator between tensors: how many images it is handed at a time depends
    on how long a run takes, and with it the order in which the tensors draw.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
