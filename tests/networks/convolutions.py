"""Convolutions of every kind, and the operators between them."""

from __future__ import annotations

from tests.networks.network import IMAGE, Network, from_text

__all__ = ["NETWORKS"]


def _convolutions() -> dict[str, Network]:
    def net(text: str, shapes: dict[str, tuple[int, ...]], int8: int, **rows: tuple[int, ...]):
        return Network(from_text(text, shapes), rows or IMAGE, int8)

    return {
        "conv_1d": net(
            """g (float[N, 4, 20] x) => (float[N, 6, 16] y) {
              a = Conv (x, w0, b0)  r = Relu (a)  y = Conv (r, w1) }""",
            {"w0": (5, 4, 3), "b0": (5,), "w1": (6, 5, 3)}, 2, x=(4, 20),
        ),
        "conv_3d": net(
            """g (float[N, 2, 6, 6, 6] x) => (float[N, 3, 4, 4, 4] y) {
              a = Conv <pads = [1,1,1,1,1,1]> (x, w0, b0)  r = Relu (a)  y = Conv (r, w1) }""",
            {"w0": (4, 2, 3, 3, 3), "b0": (4,), "w1": (3, 4, 3, 3, 3)}, 2, x=(2, 6, 6, 6),
        ),
        "conv_depthwise": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {
              a = Conv (x, w0, b0)  r = Clip (a, zero, six)
              d = Conv <group = 6> (r, w1, b1)  s = Clip (d, zero, six)
              y = Conv <pads = [1,1,1,1]> (s, w2)
            }""".replace("{\n", "{\n zero = Constant <value_float = 0.0> ()\n"
                         " six = Constant <value_float = 6.0> ()\n", 1),
            {"w0": (6, 3, 1, 1), "b0": (6,), "w1": (6, 1, 3, 3), "b1": (6,), "w2": (4, 6, 3, 3)}, 3,
        ),
        "conv_transpose": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 16, 16] y) {
              a = Conv <pads = [1,1,1,1]> (x, w0, b0)  r = Relu (a)
              y = ConvTranspose <strides = [2, 2]> (r, w1, b1) }""",
            # for no compiler in particular: none but TensorRT's own may have an INT8 kernel for it
            {"w0": (6, 3, 3, 3), "b0": (6,), "w1": (6, 4, 2, 2), "b1": (4,)}, 1,
        ),
        "conv_transpose_grouped": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 6, 16, 16] y) {
              a = Conv <pads = [1,1,1,1]> (x, w0, b0)  r = Relu (a)
              y = ConvTranspose <strides = [2, 2], group = 2> (r, w1) }""",
            {"w0": (6, 3, 3, 3), "b0": (6,), "w1": (6, 3, 2, 2)}, 1,
        ),
        "conv_shared_weight": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) {
              a = Conv <pads = [1,1,1,1]> (x, w0, b0)  r = Relu (a)
              b = Conv <pads = [1,1,1,1]> (r, w0, b0)  y = Tanh (b) }""",
            {"w0": (3, 3, 3, 3), "b0": (3,)}, 2,
        ),
        "conv_siamese": net(
            """g (float[N, 3, 8, 8] x, float[N, 3, 8, 8] z) => (float[N, 4, 6, 6] y) {
              a = Conv (x, w0, b0)  b = Conv (z, w0, b0)  y = Sub (a, b) }""",
            {"w0": (4, 3, 3, 3), "b0": (4,)}, 2, x=(3, 8, 8), z=(3, 8, 8),
        ),
        "conv_same_bias_and_input": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y, float[N, 4, 8, 8] z) {
              a = Conv (x, w0, b)  z = Conv (x, w1, b)  y = Relu (a) }""",
            {"w0": (4, 3, 3, 3), "w1": (4, 3, 1, 1), "b": (4,)}, 2,
        ),
        "conv_weight_is_computed": net(
            """g (float[N, 3, 8, 8] x, float[4, 3, 3, 3] k) => (float[N, 3, 4, 4] y) {
              a = Conv (x, k)  r = Relu (a)  y = Conv (r, w0) }""",
            {"w0": (3, 4, 3, 3)}, 1, x=(3, 8, 8), k=(4, 3, 3, 3),
        ),
        "conv_of_a_constant": net(
            """g (float[N, 4, 6, 6] x) => (float[N, 4, 4, 4] y) {
              a = Conv (c, w0)  s = Add (x, a)  y = Conv (s, w1) }""",
            {"c": (1, 3, 8, 8), "w0": (4, 3, 3, 3), "w1": (4, 4, 3, 3)}, 1, x=(4, 6, 6),
        ),
        "conv_auto_pad": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {
              a = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w0)  r = LeakyRelu (a)
              y = Conv <auto_pad = "SAME_LOWER"> (r, w1) }""",
            {"w0": (4, 3, 3, 3), "w1": (4, 4, 3, 3)}, 2,
        ),
        "prelu": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {
              a = Conv (x, w0, b0)  r = PRelu (a, slope)  y = Conv (r, w1) }""",
            {"w0": (6, 3, 3, 3), "b0": (6,), "slope": (6, 1, 1), "w1": (4, 6, 3, 3)}, 2,
        ),
        "instance_norm": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {
              a = Conv (x, w0, b0)  n = InstanceNormalization (a, s, b)
              r = Relu (n)  y = Conv (r, w1) }""",
            {"w0": (6, 3, 3, 3), "b0": (6,), "s": (6,), "b": (6,), "w1": (4, 6, 3, 3)}, 2,
        ),
        "silu_and_gate": net(
            """g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
              a = Conv <pads = [1,1,1,1]> (x, w0, b0)  s = Sigmoid (a)  m = Mul (a, s)
              p = GlobalAveragePool (m)  q = Conv (p, w1, b1)  h = HardSigmoid (q)
              e = Mul (m, h)  y = Conv (e, w2) }""",
            {"w0": (6, 3, 3, 3), "b0": (6,), "w1": (6, 6, 1, 1), "b1": (6,), "w2": (4, 6, 1, 1)}, 3,
        ),
    }  # fmt: skip


NETWORKS = {**_convolutions()}
