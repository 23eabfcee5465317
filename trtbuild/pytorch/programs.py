"""Writes a program of ``torch.export`` as an ONNX file, with its own dynamic dims, and compares the two."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from trtbuild.errors import ModelError
from trtbuild.files import make_directory
from trtbuild.foreign_warnings import warnings_that_only_warn
from trtbuild.model.writing import staged_model
from trtbuild.pytorch.aten import module_path, name_of
from trtbuild.pytorch.export import to_onnx
from trtbuild.pytorch.float64 import distance, tensors_in
from trtbuild.pytorch.names import name_outputs
from trtbuild.pytorch.refusals import refuse_other_outputs, refuse_unfinished
from trtbuild.pytorch.spec import DEFAULT_OPSET
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["write_program"]

# Operator -> the positions of its flag for training, and of the statistics without which it has no other
# mode.
_TRAINS: dict[str, tuple[int, int | None]] = {
    "aten.dropout.default": (2, None),
    "aten.native_dropout.default": (2, None),
    "aten.batch_norm.default": (5, 3),
    "aten._native_batch_norm_legit_functional.default": (5, 3),
}

# Types that ONNX Runtime has few kernels for on a CPU.
_NOT_RUN = (torch.float64, torch.bfloat16)

# Largest difference from the program's outputs, as a share of their largest value. In float32, correct
# networks of 50 layers are off by 1e-3 and wrong graphs by 1e-1 (`parity`); float16 rounds more coarsely.
_ROUNDING = {torch.float16: 5e-2}
_ROUNDING_FLOAT32 = 1e-2


@warnings_that_only_warn()
def write_program(program: ExportedProgram, folder: Path) -> Path:
    """Write `program` into `folder` as an ONNX file that is named after its module's class.

    Its dynamic dims, and the names of its inputs, stay. The file is compared with the program on the inputs
    that it was exported with, unless it holds float64 or bfloat16.

    Raises:
        ModelError: the program trains, has no example inputs, takes no tensor, gives none or more than
            tensors, or has complex ones; ONNX cannot express it, or the file computes something else.
        OutputError: the file cannot be written.
    """
    _refuse_training(program)
    module = program.module()
    refuse_unfinished(module)
    if program.example_inputs is None:
        raise ModelError(
            "the program has no example inputs to compare its ONNX form with: keep those that "
            "torch.export.export stores in `example_inputs`."
        )
    inputs = tensors_in(program.example_inputs)
    _refuse_inputs(inputs)
    arguments, keywords = program.example_inputs
    with torch.no_grad():
        # on copies: the program may write into its inputs
        answers = module(*copy.deepcopy(arguments), **copy.deepcopy(keywords))
    refuse_other_outputs(answers)
    model = to_onnx(program, module, DEFAULT_OPSET)
    name_outputs(model, answers)
    path = make_directory(folder) / f"{_class_name(program)}.onnx"
    with staged_model(model, path) as file:
        outputs = tensors_in(answers)
        kinds = {one.dtype for one in (*program.state_dict.values(), *inputs, *outputs)}
        if not kinds & {*_NOT_RUN}:
            _compare(file, inputs, outputs)
    return path


def _refuse_training(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if _trains(node):
            raise ModelError(
                f"the program was exported in train mode ('{module_path(node) or name_of(node)}' trains): "
                "call eval() on the module before torch.export.export."
            )


def _refuse_inputs(inputs: list[torch.Tensor]) -> None:
    if not inputs:
        raise ModelError(
            "the program takes no tensor: torch.export has made constants of the numbers that it was given; "
            "give forward a tensor instead."
        )
    if any(one.is_complex() for one in inputs):
        raise ModelError(
            "the program takes complex numbers, which an engine does not have: export a module that takes "
            "their real and imaginary parts."
        )


def _trains(node: Node) -> bool:
    flag, statistics = _TRAINS.get(str(node.target), (None, None))
    if node.op != "call_function" or flag is None or len(node.args) <= flag:
        return False
    return bool(node.args[flag]) and (statistics is None or node.args[statistics] is not None)


def _class_name(program: ExportedProgram) -> str:
    """The name of the class of the exported module, where the program has kept it."""
    stacks = (node.meta.get("nn_module_stack") for node in program.graph.nodes)
    outer: Any = next((next(iter(stack.values())) for stack in stacks if stack), None)
    kind = outer[1] if outer is not None and not outer[0] else "program"
    name = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return name if name.isidentifier() else "program"


def _compare(path: Path, inputs: list[torch.Tensor], answers: list[torch.Tensor]) -> None:
    session = open_session(path, Execution.REFERENCE)
    if len(session.inputs) != len(inputs):
        raise ModelError(
            f"the program takes {len(inputs)} tensors, and its ONNX form {len(session.inputs)}: numbers and "
            "unused inputs have to be left out of the module's forward."
        )
    feeds = {spec.name: one.numpy() for spec, one in zip(session.inputs, inputs)}
    found = [torch.from_numpy(array) for array in session.run(feeds).values()]
    session.close()
    for index, (want, got) in enumerate(zip(answers, found, strict=True)):
        error = distance(want, got)
        if not error <= _ROUNDING.get(want.dtype, _ROUNDING_FLOAT32):
            raise ModelError(
                f"the exported file computes something else: output {index} is off by {error:.1e} of its "
                "largest value. A program that draws random numbers cannot be built."
            )
