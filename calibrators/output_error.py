"""What rounding a tensor does to the outputs, to first order, for several thresholds at once.

With g the gradient of ``<v, outputs>`` by a tensor x, v random with independent elements of mean 0 and
variance 1, and dx the error of INT8 under a threshold, ``E (g . dx)**2`` is the squared error of the outputs
that comes of dx, to first order. The sum of ``(g dx)**2`` over the elements is the same where the errors of
elements are independent. The former is exact for the images at hand and noisy, the latter is steady and
knows nothing of errors that add up; their sum ranks thresholds well from a few images and a few v.

Source: the second-order term of a loss that is quadratic in the outputs (Gauss-Newton), as in Nagel et al.,
"Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, sections 3.1 and 3.2, here for
activations.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["error_products"]

_BLOCK = 2048  # values whose errors stay in the nearest caches

# sums may be taken in any order, which vector instructions need
_SUMS = {"reassoc", "contract", "nsz"}


def error_products(
    values: np.ndarray, gradient: np.ndarray, amaxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``g . dx`` and the sum of ``(g dx)**2`` for each threshold, ``float64[k]`` both.

    Args:
        values: x, of any shape, ``float32``.
        gradient: g, of as many elements.
        amaxes: ``float32[k]``, all above 0.
    """
    products, squares = np.zeros(len(amaxes)), np.zeros(len(amaxes))
    scales = np.asarray(amaxes, np.float32) / np.float32(127)
    _compiled_loop()(
        np.ascontiguousarray(values, np.float32).reshape(-1),
        np.ascontiguousarray(gradient, np.float32).reshape(-1),
        scales,
        products,
        squares,
    )
    return products, squares


def _loop(
    x: np.ndarray, g: np.ndarray, scales: np.ndarray, products: np.ndarray, squares: np.ndarray
) -> None:
    low, high, one = np.float32(-128), np.float32(127), np.float32(1)
    for start in range(0, x.size, _BLOCK):
        stop = min(start + _BLOCK, x.size)
        for k in range(scales.size):
            scale = scales[k]
            inverse = one / scale
            product, square = np.float32(0), np.float32(0)
            for j in range(start, stop):
                code = min(max(np.rint(x[j] * inverse), low), high)
                term = g[j] * (code * scale - x[j])
                product += term
                square += term * term
            products[k] += product
            squares[k] += square


@functools.cache
def _compiled_loop() -> Callable[..., None]:
    """The loop as machine code; Numba takes a third of a second to load, so only when it is called."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True, fastmath=_SUMS)(_loop)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the home folder can be written
        return numba.njit(nogil=True, fastmath=_SUMS)(_loop)  # type: ignore[no-any-return]
