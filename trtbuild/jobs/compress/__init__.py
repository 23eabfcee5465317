"""Makes a module smaller in rounds: the plan of steps, the steps, the builds, and the record of a run."""

from __future__ import annotations

from trtbuild.jobs.compress.job import CompressOutcome, compress, tune

__all__ = ["CompressOutcome", "compress", "tune"]
