"""Parses an ONNX network into TensorRT's network definition, and reports every parser error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.advice import advice_on, plain_reason
from trtbuild.errors import ModelError
from trtbuild.runtime.tensorrt.logger import explained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbuild.backends.tensorrt.open_builder import OpenBuilder
    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["ParserError", "parse_network", "parser_errors", "refusal_text"]


@dataclass(frozen=True)
class ParserError:
    """One error of the parser: name and operator of the node, both empty for the graph, and its message."""

    node: str
    operator: str
    reason: str


def parser_errors(parser: Any) -> list[ParserError]:
    """Return the errors of a parser that refused a file; there may be none."""
    told = (parser.get_error(index) for index in range(parser.num_errors))
    return [
        ParserError(
            # the library's layers put the name, which is told anyway, in front
            e.node_name(),
            e.node_operator(),
            plain_reason(e.desc()).removeprefix(f"{e.node_name()}: "),
        )
        for e in told
    ]


def parse_network(
    builder: OpenBuilder, path: Path, *, strongly_typed: bool, native_instance_norm: bool = False
) -> tuple[Any, Any]:
    """Parse an ONNX file.

    Args:
        builder: the builder to parse for.
        path: ONNX file; external data is in the same folder.
        strongly_typed: take every type from the network.
        native_instance_norm: InstanceNormalization without a plugin, which version compatible plans need.

    Returns:
        The network and the parser, which must live as long as the network.

    Raises:
        ModelError: the parser refuses nodes; the message names each with its op type and the reason.
    """
    tensorrt, log = builder.tensorrt, builder.log
    flags = tensorrt.network_flags(strongly_typed=strongly_typed)
    network = builder.native.create_network(flags)
    if network is None:
        raise ModelError(f"TensorRT cannot make a network: {log.reason()}.")
    with explained(log, f"{tensorrt} cannot parse '{path.name}'"):
        parser = tensorrt.module.OnnxParser(network, builder.logger)
        if native_instance_norm:
            parser.set_flag(tensorrt.member("OnnxParserFlag", "NATIVE_INSTANCENORM"))
        if not parser.parse_from_file(str(path)):
            raise ModelError(_refusal(tensorrt, parser, log, path))
    return network, parser


def _refusal(tensorrt: TensorRT, parser: Any, log: Log, path: Path) -> str:
    found = parser_errors(parser)
    if not found:
        return f"{tensorrt} cannot parse '{path.name}': {log.reason()}."
    return refusal_text(
        tensorrt, [(e.node, e.operator, e.reason, advice_on(e.operator, e.reason)) for e in found]
    )


def refusal_text(tensorrt: TensorRT, refused: Sequence[tuple[str, str, str, str]]) -> str:
    """Return the error message: what is refused, why, and what to do.

    Args:
        tensorrt: the version whose parser was asked.
        refused: node (empty for the network itself), operator, reason and advice of each.
    """
    lines = [
        f"  node '{node}' ({operator or 'graph'}): {reason}; {advice}"
        if node
        else f"  the network: {reason}; {advice}"
        for node, operator, reason, advice in refused
    ]
    what = "a node" if len(refused) == 1 else f"{len(refused)} nodes"
    return f"{tensorrt} does not take {what} of the network:\n" + "\n".join(lines)
