"""Graphs inside nodes: they stay unchanged, and so do the outer tensors that they read."""

from __future__ import annotations

import numpy as np
import onnx

from tests.networks.network import IMAGE, Network, from_text

__all__ = ["NETWORKS"]


def _bodies() -> dict[str, Network]:
    """Graphs inside nodes: they stay unchanged, and so do the outer tensors that they read."""
    condition = """
    g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
      r = Relu (a)
      total = ReduceSum <keepdims = 0> (x)
      zero = Constant <value_float = 0.0> ()
      positive = Greater (total, zero)
      y = If (positive) <
        then_branch = yes () => (float[N, 4, 6, 6] yes_out) { yes_out = Conv (r, w1) },
        else_branch = no () => (float[N, 4, 6, 6] no_out) {
          c = Conv (r, w1)
          no_out = Neg (c)
        }
      >
    }"""
    shared_weight = """
    g (float[N, 4, 8, 8] x) => (float[N, 4, 4, 4] y) {
      a = Conv (x, w0)
      total = ReduceSum <keepdims = 0> (x)
      zero = Constant <value_float = 0.0> ()
      positive = Greater (total, zero)
      z = If (positive) <
        then_branch = yes () => (float[N, 4, 4, 4] yes_out) { yes_out = Conv (a, w0) },
        else_branch = no () => (float[N, 4, 4, 4] no_out) {
          c = Conv (a, w0)
          no_out = Relu (c)
        }
      >
      y = Sigmoid (z)
    }"""
    loop = """
    g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
      trips = Constant <value_int = 3> ()
      yes = Constant <value = bool {1}> ()
      u = Loop (trips, yes, a) <
        body = step (int64 i, bool go, float[N, 3, 8, 8] before) =>
                    (bool still, float[N, 3, 8, 8] after) {
          still = Identity (go)
          t = Tanh (before)
          after = Add (t, a)
        }
      >
      y = Conv <pads = [1, 1, 1, 1]> (u, w0, b0)
    }"""
    scan = """
    g (float[5, 6] x) => (float[5, 4] y) {
      start = Constant <value = float[6] {0, 0, 0, 0, 0, 0}> ()
      last, sums = Scan <num_scan_inputs = 1, body = step (float[6] state, float[6] item) =>
                        (float[6] next, float[6] out) {
          next = Add (state, item)
          out = Identity (next)
        }> (start, x)
      y = MatMul (sums, w)
    }"""
    sequence = """
    g (float[N, 8, 6, 6] x) => (float[N, 4, 4, 4] y) {
      parts = SplitToSequence <axis = 1> (x, sizes)
      first = Constant <value_int = 0> ()
      a = SequenceAt (parts, first)
      y = Conv (a, w)
    }"""
    split = from_text(sequence, {"w": (4, 4, 3, 3)})
    split.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([4, 4], np.int64), "sizes")
    )
    conv = {"w0": (4, 3, 3, 3), "b0": (4,), "w1": (4, 4, 3, 3)}
    return {
        "if": Network(from_text(condition, conv), IMAGE, 1),
        "if_shares_weight": Network(from_text(shared_weight, {"w0": (4, 4, 3, 3)}), {"x": (4, 8, 8)}, 1),
        "loop": Network(from_text(loop, {"w0": (3, 3, 3, 3), "b0": (3,)}), IMAGE, 2),
        "scan": Network(from_text(scan, {"w": (6, 4)}), {"x": (5, 6)}, 1),
        "sequence": Network(split, {"x": (8, 6, 6)}, 1),
    }  # fmt: skip


NETWORKS = {**_bodies()}
