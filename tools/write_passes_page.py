"""Write the page of all passes, from their docstrings and the catalogue of their other names.

Usage: ``python tools/write_passes_page.py > docs/passes.md``; a test compares the page with the code.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trtbuild.passes.catalogue import aliases_of
from trtbuild.passes.default_passes import shipped_passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.passes.pass_base import Pass

__all__ = ["passes_page"]

_HEAD = """\
# Graph passes

Made from the docstrings of the passes by `python tools/write_passes_page.py`; do not edit.

The default passes run in rounds, in the order below, until a round changes nothing. The driver hashes
the graph after each round; when it meets one that it has seen before, it stops and names the passes that
undo each other. Passes on request run once, after that, followed by the default passes once more. Where
MNN, NCNN or ONNX Runtime have the same rule, its name there stands under "also called"; `--enable`,
`--disable` and `--only` take those names, too.

Conditions that hold for every pass:

- names, order, types and dims of inputs and outputs stay, and an input nobody reads stays;
- a tensor inside a match has no other reader, is not an output, and is not captured by a body;
- a constant is an initialiser that is not also an input, or a Constant node; weights are copied, never
  edited;
- no operator outside the ONNX domain is made, and the opset stays unless asked;
- QuantizeLinear and DequantizeLinear hold INT8 information: they are never folded into floats, and never
  removed as a pair;
- only what shape inference proves counts: a symbolic dim may be 1.

A pass of your own: see `samples/custom_pass`.
"""


def passes_page(passes: Sequence[Pass]) -> str:
    """Return the page: a section for the default passes and a section for the passes on request."""
    parts = [_HEAD]
    for title, opt_in in (("Default passes", False), ("Passes on request", True)):
        parts.append(f"## {title}\n")
        parts += [_entry(item) for item in passes if item.opt_in is opt_in]
    return "\n".join(parts)


def _entry(item: Pass) -> str:
    text = item.describe()
    lines = [f"### {item.name}\n", f"{text.summary}\n"]
    aliases = [f"`{alias}` ({tool})" for tool, alias in aliases_of(item.name).items()]
    if aliases:
        lines.append(f"- Also called: {', '.join(aliases)}")
    fields = ("pattern", "conditions", "effect", "source")
    lines += [f"- {name.capitalize()}: {getattr(text, name)}" for name in fields]
    return "\n".join(lines).replace("``", "`") + "\n"


if __name__ == "__main__":
    sys.stdout.write(passes_page(shipped_passes()))
