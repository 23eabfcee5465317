"""The result of ``trtbuild export-triton`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, Tone, names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.triton import TritonEntry
    from trtbuild.jobs.triton_config import TritonTensor

__all__ = ["triton_report"]


def triton_report(entry: TritonEntry) -> Report:
    """Return the report: inputs and outputs of the entry, the written files, and the server's needs."""
    config = entry.config
    tensors = Table(
        names("", "tensor", "type", "dims"),
        (*_rows("input", config.inputs), *_rows("output", config.outputs)),
    )
    return Report(
        title=f"{config.name} in a Triton model repository",
        facts={
            "backend": config.backend.name,
            "largest batch": str(config.max_batch_size),
            "instances": f"{config.instances}, {config.backend.device}",
        },
        notes=tuple(Line(note, Tone.NOTE) for note in entry.notes),
        sections=(Section("Inputs and outputs", (tensors,)),),
        files={str(path): what for path, what in entry.files.items()},
        data=entry.model.to_json(),
    )


def _rows(side: str, tensors: tuple[TritonTensor, ...]) -> Iterator[tuple[str, str, str, str]]:
    for tensor in tensors:
        dims = " x ".join("any" if dim < 0 else str(dim) for dim in tensor.dims)
        yield (side, tensor.name, tensor.data_type.removeprefix("TYPE_"), dims)
