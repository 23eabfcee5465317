"""An ONNX file is read, checked, and brought into the form that the later stages expect."""

from __future__ import annotations

from trtbuild.model.digests import graph_digest, weights_digest
from trtbuild.model.reading import (
    name_nodes,
    read_model,
    read_unchanged,
    repairs_of,
    weight_files,
)
from trtbuild.model.signature import (
    fixed_batch,
    input_specs,
    output_specs,
    say_batch_axes,
    signature_as_said,
    static_batch,
    with_batch_axes,
)
from trtbuild.model.writing import model_bytes, num_weight_bytes, temporary_file, write_model

__all__ = [
    "fixed_batch",
    "graph_digest",
    "input_specs",
    "model_bytes",
    "name_nodes",
    "num_weight_bytes",
    "output_specs",
    "read_model",
    "read_unchanged",
    "repairs_of",
    "say_batch_axes",
    "signature_as_said",
    "static_batch",
    "temporary_file",
    "weight_files",
    "weights_digest",
    "with_batch_axes",
    "write_model",
]
