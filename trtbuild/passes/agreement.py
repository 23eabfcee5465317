"""Whether two results of a network agree: their types and dims, then their values within a tolerance.

A fold rounds a weight once more, so results differ by a few units in the last place of
the coarsest float type inside the network, amplified by the sums before an output. ``1024 * eps`` (float32:
1.2e-4) of the element plus as much of the largest element is enough for deep networks and far
below the error of any wrong rewrite. float16 has fewer spare bits: ``32 * eps``. Where a
rounding operator (QuantizeLinear, ArgMax, Cast to integers ...) turns a difference in the last bit into a
step, a few elements may be a step off, and the whole must still agree to 5 % in the L2 norm.

A pass that is meant to change numbers (int8 weights) is judged by the L2 norm alone, to 10 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tolerance", "kinds_differ", "values_differ"]

_SINGLE_EPS = 2.0**-23
"""Machine epsilon of float32; coarser types have fewer spare bits."""

_FEW = 0.02
"""Share of elements that a rounding operator may leave a step off."""

_STEPS_NORM = 0.05
"""Relative L2 distance that rounding to other steps makes at most."""

_COARSE_NORM = 0.1
"""Relative L2 distance: 7-bit weights in int8 stay far below it, a wrong layer is far above."""


@dataclass(frozen=True)
class Tolerance:
    """How far the values of two results may differ.

    Attributes:
        eps: machine epsilon of the coarsest float type inside the network.
        steps: whether the network contains rounding operators.
        coarse: whether a pass has run that is meant to change numbers: only the L2 norm has to agree.
    """

    eps: float
    steps: bool
    coarse: bool = False


def kinds_differ(wanted: Any, got: Any) -> str | None:
    """Return how type, dims or length of two results differ; None if they do not."""
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(wanted) != len(got):
            return "the sequence has another length"
        reasons = (kinds_differ(first, second) for first, second in zip(wanted, got))
        return next((reason for reason in reasons if reason), None)
    if not isinstance(wanted, np.ndarray):
        return None if type(wanted) is type(got) else "is of another kind"
    if wanted.dtype != got.dtype or wanted.shape != got.shape:
        return f"{wanted.dtype}{list(wanted.shape)} became {got.dtype}{list(got.shape)}"
    return None


def values_differ(wanted: Any, got: Any, tolerance: Tolerance) -> str | None:
    """Return how two results of one kind differ; None if they agree.

    Args:
        wanted: the original's result.
        got: the result to be judged.
        tolerance: how far their values may differ.
    """
    if isinstance(wanted, list):
        reasons = (values_differ(a, b, tolerance) for a, b in zip(wanted, got))
        return next((reason for reason in reasons if reason), None)
    if not isinstance(wanted, np.ndarray) or wanted.dtype.kind in "OSU":
        return None if np.array_equal(wanted, got) else "holds other values"
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    if tolerance.coarse:
        return None if _close_norms(first, second, _COARSE_NORM) else _text(first, second)
    near = _near(first, second, _relative_tolerance(wanted.dtype, tolerance.eps))
    if near.all() or (tolerance.steps and _few_steps(first, second, near)):
        return None
    return _text(first, second)


def _near(
    first: NDArray[np.float64], second: NDArray[np.float64], relative: float
) -> NDArray[np.bool_]:
    finite = first[np.isfinite(first)]
    largest = float(np.max(np.abs(finite), initial=0.0))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.isclose(second, first, rtol=relative, atol=relative * largest, equal_nan=True)


def _relative_tolerance(dtype: np.dtype[Any], inner: float) -> float:
    """Relative tolerance of an output of `dtype`; `inner` is the coarsest epsilon inside the network."""
    if dtype.kind in "biu":
        return 0.0
    eps = max(inner, float(ml_dtypes.finfo(dtype).eps))
    return (32 if eps > _SINGLE_EPS else 1024) * eps


def _few_steps(
    first: NDArray[np.float64], second: NDArray[np.float64], near: NDArray[np.bool_]
) -> bool:
    if float(np.mean(~near)) > _FEW:
        return _close_norms(first, second, _STEPS_NORM)
    return bool(np.array_equal(np.isfinite(first), np.isfinite(second)))


def _close_norms(first: NDArray[np.float64], second: NDArray[np.float64], limit: float) -> bool:
    gap, norm = float(np.linalg.norm(second - first)), float(np.linalg.norm(first))
    return gap <= limit * norm


def _text(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    with np.errstate(invalid="ignore"):
        away = float(np.nanmax(np.abs(second - first), initial=0.0))
        largest = float(np.nanmax(np.abs(first), initial=0.0))
    return f"differs by up to {away:.3g} where the largest value is {largest:.3g}"
