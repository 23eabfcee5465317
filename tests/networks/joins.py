"""Residuals, Concat, Split and other data movement."""

from __future__ import annotations

from tests.networks.network import IMAGE, Network, from_text

__all__ = ["NETWORKS"]


def _joins() -> dict[str, Network]:
    """Residuals, Concat, Split and other data movement."""
    conv3 = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3)}

    def net(nodes: str, shapes: dict[str, tuple[int, ...]], int8: int, ends: str = "y"):
        outputs = ", ".join(f"float[N, A{i}, B{i}, C{i}] {n}" for i, n in enumerate(ends.split()))
        proto = from_text(f"g (float[N, 3, 8, 8] x) => ({outputs}) {{ {nodes} }}", shapes)
        return Network(proto, IMAGE, int8)

    return {
        "residual": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  r = Relu (a)
            b = Conv <pads=[1,1,1,1]> (r, w1, b1)  s = Add (b, r)  t = Relu (s)
            y = Conv (t, w2)""", conv3, 3,
        ),
        "residual_projected": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  r = Relu (a)
            b = Conv <pads=[1,1,1,1]> (r, w1, b1)  p = Conv (r, w3)
            s = Add (p, b)  t = Relu (s)  y = Conv (t, w2)""", {**conv3, "w3": (8, 8, 1, 1)}, 4,
        ),
        "residual_of_the_input": net(
            """a = Conv <pads=[1,1,1,1]> (x, w, b)  s = Add (x, a)  y = Conv (s, v)""",
            {"w": (3, 3, 3, 3), "b": (3,), "v": (4, 3, 3, 3)}, 2,
        ),
        "residual_broadcast": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  g = GlobalAveragePool (a)
            b = Conv <pads=[1,1,1,1]> (a, w1, b1)  s = Add (b, g)  y = Conv (s, w2)""", conv3, 3,
        ),
        "residual_twice": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  r = Relu (a)
            b = Conv <pads=[1,1,1,1]> (r, w1, b1)  s = Add (b, r)
            c = Conv <pads=[1,1,1,1]> (s, w2)  y = Add (c, s)""", conv3, 3,
        ),
        "add_of_itself": net(
            """a = Conv (x, w0, b0)  s = Add (a, a)  y = Conv (s, w1)""", conv3, 2,
        ),
        "add_of_a_constant": net(
            """a = Conv (x, w0)  s = Add (a, c)  y = Conv (s, w1)""",
            {**conv3, "c": (8, 1, 1)}, 2,
        ),
        "concat": net(
            """a = Conv (x, w0, b0)  b = Relu (a)  c = Sigmoid (a)
            d = Concat <axis = 1> (b, c)  e = MaxPool <kernel_shape = [2, 2]> (d)
            y = Conv (e, v)""", {**conv3, "v": (4, 16, 3, 3)}, 2,
        ),
        "concat_of_one_twice": net(
            """a = Conv (x, w0, b0)  b = Relu (a)  d = Concat <axis = 1> (b, b)
            y = Conv (d, v)""", {**conv3, "v": (4, 16, 3, 3)}, 2,
        ),
        "concat_of_concats": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  b = Relu (a)
            c = Concat <axis = 1> (b, x)  d = Conv <pads=[1,1,1,1]> (c, v0)
            e = Concat <axis = 1> (c, d)  y = Conv (e, v1)""",
            {**conv3, "v0": (4, 11, 3, 3), "v1": (4, 15, 1, 1)}, 3,
        ),
        "concat_with_a_constant": net(
            """a = Conv (one, w0)  z = Concat <axis = 0> (a, c)
            y = Conv (x, w0) """, {"one": (1, 3, 8, 8), "w0": (8, 3, 3, 3), "c": (1, 8, 6, 6)}, 1,
        ),
        "concat_of_output_and_more": net(
            """a = Conv (x, w0, b0)  b = Relu (a)  c = Tanh (a)  y = Concat <axis = 1> (b, c)
            z = Conv (y, v)""", {**conv3, "v": (4, 16, 3, 3)}, 2, "y z",
        ),
        "split": net(
            """a = Conv (x, w0, b0)  p, q = Split <axis = 1> (a)
            b = Conv (p, v0)  c = Sigmoid (q)  y = Mul (b, c)""",
            {**conv3, "v0": (4, 4, 1, 1)}, 2,
        ),
        "max_pool_indices": net(
            """a = Conv (x, w0, b0)  p, i = MaxPool <kernel_shape = [2, 2]> (a)
            y = Conv (p, w1)""", conv3, 2,
        ),
        "average_pools": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  r = Relu (a)
            p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            b = Conv <pads=[1,1,1,1]> (p, w1)  g = GlobalAveragePool (b)  y = Conv (g, v)""",
            {**conv3, "v": (4, 8, 1, 1)}, 3,
        ),
        "input_is_output": net(
            """a = Conv (x, w0, b0)  y = Relu (a)""", conv3, 1, "y x",
        ),
        "quantized_is_output": net(
            """a = Conv (x, w0, b0)  r = Relu (a)  y = Conv (r, w1)""", conv3, 2, "y r a",
        ),
        "output_is_moved": net(
            """a = Conv (x, w0, b0)  r = Relu (a)  t = Transpose <perm = [0, 2, 3, 1]> (r)
            u = Transpose <perm = [0, 3, 1, 2]> (t)  y = Conv (u, w1)""", conv3, 2, "y t",
        ),
        "moved_and_read_in_float": net(
            """a = Conv <pads=[1,1,1,1]> (x, w0, b0)  r = Relu (a)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            b = Conv <pads=[1,1,1,1]> (p, w1)  e = Exp (p)  y = Mul (b, e)""", conv3, 2,
        ),
        "space_to_depth": net(
            """a = SpaceToDepth <blocksize = 2> (x)  b = Conv (a, v0)
            c = DepthToSpace <blocksize = 2> (b)  y = Conv (c, v1)""",
            {"v0": (8, 12, 1, 1), "v1": (4, 2, 3, 3)}, 2,
        ),
        "many_outputs": net(
            """a = Conv (x, w0, b0)  y = Relu (a)  z = Conv (y, w1)  u = Sigmoid (z)""",
            conv3, 2, "y z u",
        ),
    }  # fmt: skip


NETWORKS = {**_joins()}
