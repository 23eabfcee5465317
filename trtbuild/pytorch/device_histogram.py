"""The calibration histogram of a torch tensor, counted on the tensor's device: only counts reach the host.

The counts equal those of `calibrators.Histogram.observe` on a copy of the tensor to the bit: a bin's number
is the upper 19 bits of a float32, which any device can shift out, and counts are integers, so the order in
which a GPU adds them does not matter.
"""

from __future__ import annotations

from typing import Any

import torch

from calibrators import Histogram, grid
from trtbuild.errors import DataError

__all__ = ["device_histogram"]

_INFINITY = 0x7F800000
_ALL_BUT_SIGN = 0x7FFFFFFF


def device_histogram(tensor: Any) -> Histogram:
    """Count all elements of `tensor` on its own device.

    Counting takes about 30 bytes of device memory per element; the host gets
    numbers and counts of the occupied bins, two int64 each.

    Args:
        tensor: a torch tensor, or an object with ``__dlpack__``, such as another library's tensor on a GPU;
            any shape, layout and device; floating point. float64 is rounded to float32; values too
            large for it count as infinite.

    Returns:
        The histogram of this tensor alone; `calibrators.Collector.add` merges it with earlier ones.

    Raises:
        DataError: the values are not floating point.
    """
    if not isinstance(tensor, torch.Tensor):
        tensor = torch.from_dlpack(tensor)
    if not tensor.is_floating_point():
        raise DataError(
            f"values of type {tensor.dtype} have no range to calibrate: they must be float."
        )
    bits = tensor.detach().to(torch.float32).contiguous().reshape(-1).view(torch.int32)
    magnitudes = bits & _ALL_BUT_SIGN
    num_nan = int((magnitudes > _INFINITY).sum())
    finite = bits[magnitudes < _INFINITY]
    occupied = finite[(finite & _ALL_BUT_SIGN) != 0]
    numbers, counts = _bins(occupied)
    minimum, maximum = _extremes(finite)
    return Histogram.from_bins(
        numbers.cpu().numpy(),
        counts.cpu().numpy(),
        num_zeros=finite.numel() - occupied.numel(),
        num_nan=num_nan,
        num_inf=bits.numel() - finite.numel() - num_nan,
        minimum=minimum,
        maximum=maximum,
    )


def _bins(bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the occupied bins, ascending, and their counts; ``int64[n]`` both."""
    # torch's right shift fills with the sign bit, which the mask removes
    numbers = (bits >> grid.SHIFT) & (2 * grid.SIGN_OFFSET - 1)
    counts = torch.bincount(numbers, minlength=2 * grid.SIGN_OFFSET)
    occupied = counts.nonzero().reshape(-1)
    return occupied, counts[occupied]


def _extremes(finite: torch.Tensor) -> tuple[float, float]:
    """The smallest and the largest value, exactly, by integer keys that sort as the values do."""
    if not finite.numel():
        return 0.0, 0.0
    keys = finite ^ ((finite >> 31) & _ALL_BUT_SIGN)
    low, high = torch.aminmax(keys)
    return grid.sort_value(int(low)), grid.sort_value(int(high))
