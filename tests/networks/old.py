"""Operators in the forms of old opsets."""

from __future__ import annotations

from tests.networks.network import IMAGE, Network, from_text

__all__ = ["NETWORKS"]


def _resizes() -> dict[str, Network]:
    weights = {"w0": (4, 3, 3, 3), "b0": (4,), "w1": (3, 4, 3, 3)}
    begin = (
        "g (float[N, 3, 8, 8] x) => (float[N, 3, 14, 14] y) { a = Conv <pads=[1,1,1,1]> (x, w0, b0)"
    )
    end = "y = Conv (u, w1) }"
    scales = "s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"

    def net(middle: str, opset: int) -> Network:
        return Network(from_text(f"{begin} {middle} {end}", weights, opset=opset), IMAGE, 2)

    return {
        "upsample_7": net('u = Upsample <mode = "nearest", scales = [1.0,1.0,2.0,2.0]> (a)', 7),
        "upsample_linear_7": net('u = Upsample <mode = "linear", scales = [1.0,1.0,2.0,2.0]> (a)', 8),
        "upsample_9": net(f'{scales} u = Upsample <mode = "nearest"> (a, s)', 9),
        "resize_10": net(f'{scales} u = Resize <mode = "nearest"> (a, s)', 10),
        "resize_linear_10": net(f'{scales} u = Resize <mode = "linear"> (a, s)', 10),
        "resize_11": net(f'{scales} e = Constant <value = float[0] {{}}> () u = Resize <mode = "nearest", '
                         'coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
                         ' (a, e, s)', 11),
        "resize_linear_13": net(f'{scales} u = Resize <mode = "linear"> (a, , s)', 13),
        "resize_nearest_18": net(f'{scales} u = Resize <mode = "nearest"> (a, , s)', 18),
    }  # fmt: skip


def _old_operators() -> dict[str, Network]:
    """Operators whose attributes became inputs later; one network per opset."""
    weights = {"w0": (4, 3, 3, 3), "w1": (4, 4, 3, 3)}
    body = """
    g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
      p = Pad <pads = [0,0,1,1,0,0,1,1]> (x)
      a = Conv (p, w0)
      r = Clip <min = 0.0, max = 6.0> (a)
      d = Dropout <ratio = 0.5> (r)
      c = Conv (d, w1)
      m = ReduceMean <axes = [2, 3], keepdims = 1> (c)
      q = Squeeze <axes = [2, 3]> (m)
      y = Softmax (q)
    }"""
    sliced = body.replace(
        "a = Conv (p", "t = Slice <starts=[0], ends=[8], axes=[2]> (p) a = Conv (t"
    )
    return {
        "old_operators_7": Network(from_text(sliced, weights, opset=7, ir_version=4), IMAGE, 2),
        "old_operators_10": Network(from_text(body, weights, opset=10, ir_version=5), IMAGE, 2),
    }


NETWORKS = {**_resizes(), **_old_operators()}
