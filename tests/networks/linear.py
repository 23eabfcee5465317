"""Gemm and MatMul in all their forms, attention, recurrent cells, tokens."""

from __future__ import annotations

from tests.networks.network import Network, from_text

__all__ = ["NETWORKS"]


def _linear() -> dict[str, Network]:
    def net(text: str, shapes: dict[str, tuple[int, ...]], int8: int, **rows: tuple[int, ...]):
        return Network(from_text(text, shapes), rows, int8)

    return {
        "gemm": net(
            """g (float[N, 12] x) => (float[N, 5] y) {
              a = Gemm (x, w0, b0)  r = Relu (a)
              y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (r, w1, b1) }""",
            {"w0": (12, 16), "b0": (16,), "w1": (5, 16), "b1": (5,)}, 2, x=(12,),
        ),
        "gemm_biases": net(
            """g (float[N, 12] x) => (float[N, 5] y) {
              a = Gemm (x, w0, s)  b = Gemm (a, w1)  c = Gemm (b, w2, row)  y = Gemm (c, w3, one) }""",
            {"w0": (12, 16), "s": (), "w1": (16, 8), "w2": (8, 6), "row": (1, 6), "w3": (6, 5),
             "one": (1,)}, 4, x=(12,),
        ),
        "gemm_trans_a": net(
            """g (float[12, 3] x) => (float[3, 5] y) {
              a = Gemm <transA = 1> (x, w0, b0)  r = Relu (a)  y = Gemm (r, w1) }""",
            {"w0": (12, 16), "b0": (16,), "w1": (16, 5)}, 2, x=(12, 3),
        ),
        "gemm_shared_both_ways": net(
            """g (float[N, 12] x) => (float[N, 12] y) {
              a = Gemm (x, w, b)  r = Relu (a)  y = Gemm <transB = 1> (r, w) }""",
            {"w": (12, 16), "b": (16,)}, 2, x=(12,),
        ),
        "gemm_of_two_activations": net(
            """g (float[6, 6] x) => (float[6, 4] y) {
              a = Gemm <transB = 1> (x, x)  y = Gemm (a, w) }""",
            {"w": (6, 4)}, 1, x=(6, 6),
        ),
        "matmul": net(
            """g (float[N, 7, 12] x) => (float[N, 7, 5] y) {
              a = MatMul (x, w0)  s = Add (a, b0)  r = Relu (s)  y = MatMul (r, w1) }""",
            {"w0": (12, 16), "b0": (16,), "w1": (16, 5)}, 2, x=(7, 12),
        ),
        "matmul_vector": net(
            """g (float[N, 7, 12] x) => (float[N, 7] y) {
              a = MatMul (x, w0)  y = MatMul (a, w1) }""",
            {"w0": (12, 16), "w1": (16,)}, 2, x=(7, 12),
        ),
        "matmul_stack": net(
            """g (float[N, 2, 7, 12] x) => (float[N, 2, 7, 5] y) {
              y = MatMul (x, w0) }""",
            {"w0": (2, 12, 5)}, 1, x=(2, 7, 12),
        ),
        "matmul_weight_first": net(
            """g (float[N, 12, 7] x) => (float[N, 5, 7] y) {
              a = MatMul (w0, x)  r = Relu (a)  b = Transpose <perm = [0, 2, 1]> (r)
              c = MatMul (b, w1)  y = Transpose <perm = [0, 2, 1]> (c) }""",
            {"w0": (16, 12), "w1": (16, 5)}, 2, x=(12, 7),
        ),
        "no_batch_axis": net(
            """g (float[12] x) => (float[5] y) {
              a = MatMul (x, w0)  r = Relu (a)  y = MatMul (r, w1) }""",
            {"w0": (12, 16), "w1": (16, 5)}, 2, x=(12,),
        ),
        "attention": net(
            """g (float[N, 6, 16] x) => (float[N, 6, 16] y) {
              h = LayerNormalization (x, s, t)
              q = MatMul (h, wq)  k = MatMul (h, wk)  v = MatMul (h, wv)
              kt = Transpose <perm = [0, 2, 1]> (k)
              a = MatMul (q, kt)  p = Softmax <axis = -1> (a)  c = MatMul (p, v)
              o = MatMul (c, wo)  z = Add (o, x)
              m = MatMul (z, w1)  e = Erf (m)  f = Mul (m, e)  n = MatMul (f, w2)
              y = Add (n, z) }""",
            {"s": (16,), "t": (16,), "wq": (16, 16), "wk": (16, 16), "wv": (16, 16),
             "wo": (16, 16), "w1": (16, 32), "w2": (32, 16)}, 6, x=(6, 16),
        ),
    }  # fmt: skip


def _recurrent() -> dict[str, Network]:
    cells = {"LSTM": 4, "GRU": 3, "RNN": 1}
    found = {}
    for cell, gates in cells.items():
        body = f"""
        g (float[N, 5, 6] x) => (float[N, 3] y) {{
          t = Transpose <perm = [1, 0, 2]> (x)
          s, h = {cell} <hidden_size = 8> (t, w, r, b)
          axes = Constant <value_ints = [0]> ()
          f = Squeeze (h, axes)
          y = Gemm <transB = 1> (f, v, c)
        }}"""
        shapes = {"w": (1, 8 * gates, 6), "r": (1, 8 * gates, 8), "b": (1, 16 * gates)}
        found[cell.lower()] = Network(
            from_text(body, {**shapes, "v": (3, 8), "c": (3,)}), {"x": (5, 6)}, 1
        )
    return found


def _token_models() -> dict[str, Network]:
    body = """
    bert (int64[N, 6] ids, int64[N, 6] kinds, int64[N, 6] mask) => (float[N, 2] y) {
      words = Gather (word_table, ids)
      types = Gather (type_table, kinds)
      e = Add (words, types)
      h = LayerNormalization (e, s, t)
      q = MatMul (h, wq)  k = MatMul (h, wk)  v = MatMul (h, wv)
      kt = Transpose <perm = [0, 2, 1]> (k)
      a = MatMul (q, kt)
      m = Cast <to = 1> (mask)
      one = Constant <value_float = 1.0> ()
      large = Constant <value_float = -10000.0> ()
      n = Sub (one, m)  n2 = Mul (n, large)
      axes = Constant <value_ints = [1]> ()
      n3 = Unsqueeze (n2, axes)
      b = Add (a, n3)  p = Softmax <axis = -1> (b)
      c = MatMul (p, v)
      first = Constant <value_int = 0> ()
      cls = Gather <axis = 1> (c, first)
      d = Tanh (cls)
      y = Gemm (d, wo, bo)
    }"""
    shapes = {"word_table": (20, 16), "type_table": (2, 16), "s": (16,), "t": (16,)}
    shapes |= {"wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "wo": (16, 2), "bo": (2,)}
    rows = {"ids": (6,), "kinds": (6,), "mask": (6,)}
    return {"bert": Network(from_text(body, shapes), rows, 4, {"ids": 20, "kinds": 2, "mask": 2})}


NETWORKS = {**_linear(), **_recurrent(), **_token_models()}
