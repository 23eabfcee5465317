"""Gradients of matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.graph_library import ir
from trtbuild.model.shapes import rank

if TYPE_CHECKING:
    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _matmul(step: Step) -> Gradients:
    """DA = G B^T and dB = A^T G, summed over the batch dims along which the operand was broadcast."""
    w, a, b, g = step.write, step.x(0), step.x(1), step.g
    ranks = step.rank(a), step.rank(b)
    if 1 in ranks:
        return _matmul_by_vector(step, *ranks)
    found = {}
    if 0 in step.wanted:
        product = w("MatMul", g, w.swapped(b))
        # a matrix on the right has no batch dims along which the left operand could be broadcast
        found[0] = product if ranks[1] == 2 else w.unbroadcast(product, a, _batched(step, 0))
    if 1 in step.wanted:
        found[1] = w.unbroadcast(w("MatMul", w.swapped(a), g), b, _batched(step, 1))
    return found


def _batched(step: Step, index: int) -> ir.Value:
    """A value with the dims of the gradient before the sum: the result's batch dims, the operand's others."""
    operand, result = step.x(index), step.y
    batched = ir.Value(name="", type=operand.type)
    if operand.shape is not None and result.shape is not None:
        batched.shape = ir.Shape([*result.shape.dims[:-2], *operand.shape.dims[-2:]])
    return batched


def _matmul_by_vector(step: Step, rank_a: int, rank_b: int) -> Gradients:
    """A vector on the left is a matrix of one row, on the right a matrix of one column."""
    w, a, b, g = step.write, step.x(0), step.x(1), step.g
    if rank_a == 1 and rank_b == 1:
        return {i: w.mul(g, other) for i, other in ((0, b), (1, a)) if i in step.wanted}
    found = {}
    if rank_a == 1:
        row = w("Unsqueeze", g, w.integers(-2))
        if 0 in step.wanted:
            product = w("MatMul", row, w.swapped(b))
            found[0] = w.sum_over(product, range(rank_b - 1), keep=False)
        if 1 in step.wanted:
            found[1] = w("MatMul", w("Unsqueeze", a, w.integers(1)), row)
        return found
    column = w("Unsqueeze", g, w.integers(-1))
    if 0 in step.wanted:
        found[0] = w("MatMul", column, w("Unsqueeze", b, w.integers(0)))
    if 1 in step.wanted:
        product = w("MatMul", w.swapped(a), column)
        found[1] = w.sum_over(product, [*range(rank_a - 2), rank_a - 1], keep=False)
    return found


def _gemm(step: Step) -> Gradients:
    """Y = alpha A' B' + beta C, where ' is a transposition if the attributes ask for one."""
    w, a, b, g = step.write, step.x(0), step.x(1), step.g
    swap_a, swap_b = step.attribute("transA", 0), step.attribute("transB", 0)
    alpha, beta = step.attribute("alpha", 1.0), step.attribute("beta", 1.0)
    found = {}
    if 0 in step.wanted:
        found[0] = (
            w("Gemm", b, g, alpha=alpha, transA=swap_b, transB=1)
            if swap_a
            else w("Gemm", g, b, alpha=alpha, transB=int(not swap_b))
        )
    if 1 in step.wanted:
        found[1] = (
            w("Gemm", g, a, alpha=alpha, transA=1, transB=swap_a)
            if swap_b
            else w("Gemm", a, g, alpha=alpha, transA=int(not swap_a))
        )
    if 2 in step.wanted:
        found[2] = w.unbroadcast(w.times(g, beta), step.x(2), step.y)
    return found


def _einsum(step: Step) -> Gradients:
    """Swap the letters of the operand and the result: dA = einsum("result,others->letters of A").

    A letter that only this operand has was summed over: the gradient is repeated along it.
    """
    w = step.write
    equation = str(step.attribute("equation")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(t)) < len(t) for t in (*terms, result)):
        raise NoRuleError(f"the equation '{equation}'")
    found = {}
    for index in sorted(step.wanted):
        others = [terms[i] for i in range(len(terms)) if i != index]
        known = set(result).union(*others)
        kept = "".join(letter for letter in terms[index] if letter in known)
        operands = [step.g, *(step.x(i) for i in range(len(terms)) if i != index)]
        back = w("Einsum", *operands, equation=f"{','.join([result, *others])}->{kept}")
        alone = [place for place, letter in enumerate(terms[index]) if letter not in known]
        if alone:
            back = w("Unsqueeze", back, w.integers(*alone))
        found[index] = w.spread(back, step.x(index))
    if any(rank(step.x(i)) is None for i in found):
        raise NoRuleError("operands of unknown rank")
    return found


RULES: dict[str, Rule] = {"MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum}
