"""The effect of quantizing a tensor on the outputs, to first order, for several thresholds at once.

Let v be a random vector with independent elements of mean 0 and variance 1, g the gradient of
``<v, outputs>`` with respect to a tensor x, and dx the INT8 error of x under a threshold. To first order,
``E (g . dx)**2`` is the squared error of the outputs that dx causes. The sum of ``(g dx)**2`` over the
elements is the same if the errors of elements are independent. The former is exact for the given images but
noisy; the latter has little noise but misses errors that add up. Their sum ranks thresholds well from a few
images and a few v.

Source: the second-order term of a loss that is quadratic in the outputs (Gauss-Newton), as in Nagel et al.,
"Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, sections 3.1 and 3.2, here for
activations.
"""

from __future__ import annotations

import numpy as np

__all__ = ["error_products"]


def error_products(
    values: np.ndarray, gradient: np.ndarray, amaxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``g . dx`` and the sum of ``(g dx)**2`` for each threshold, ``float64[k]`` both.

    Args:
        values: x, of any shape, ``float32``.
        gradient: g, with as many elements.
        amaxes: ``float32[k]``, all above 0.
    """
    from calibrators.kernels import add_error_products

    scales = np.asarray(amaxes, np.float32) / np.float32(127)
    products, squares = np.zeros(len(scales)), np.zeros(len(scales))
    add_error_products(
        np.ascontiguousarray(values, np.float32),
        np.ascontiguousarray(gradient, np.float32),
        scales,
        products,
        squares,
    )
    return products, squares
