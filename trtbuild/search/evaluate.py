"""Compare many candidates with one float network on the same batches, each candidate once.

The float network's outputs and the results are kept; with a directory, also for later processes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import InputError
from trtbuild.files import make_directory, write_text
from trtbuild.json_codec import dumps
from trtbuild.model import graph_digest, model_bytes, weights_digest
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.runtime.ray_cluster import joined
from trtbuild.search.identity import identity
from trtbuild.verification.compare import NO_PARTS, Comparison, ComparisonOptions, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.model.parts import Part
    from trtbuild.model.signature import TensorSpec
    from trtbuild.runtime.session import Feeds, Session
    from trtbuild.verification.compare import LabelledBatch

__all__ = ["Evaluator", "open_as_written"]


def open_as_written(model: ir.Model) -> Session:
    """Open a Q/DQ network on the CPU, with Q/DQ computed as written."""
    return open_session(model, Execution.FLOAT)


class Evaluator:
    """Compares candidates with the float network on the same batches.

    Args:
        reference: an open session of the float network.
        batches: the batches, kept in memory with the float network's outputs.
        options: options of the comparison.
        opener: opens a candidate; the default computes Q/DQ as written, on the CPU. Pass one that builds
            an engine to evaluate on TensorRT.
        directory: where results are kept for later processes; None keeps them in memory only, and so does a
            judge without an `identity`.
        parts: parts of the outputs, see `trtbuild.verification.compare.compare`.
        ray: address of a Ray cluster on which `ahead` compares candidates; an empty string starts one; None
            for no cluster.
    """

    def __init__(
        self,
        reference: Session,
        batches: Iterable[LabelledBatch],
        options: ComparisonOptions | None = None,
        *,
        opener: Callable[[ir.Model], Session] = open_as_written,
        directory: Path | None = None,
        parts: Mapping[str, Sequence[Part]] = NO_PARTS,
        ray: str | None = None,
    ) -> None:
        self._batches = list(batches)
        self._reference = _Recorded.of(reference, self._batches)
        self._options = options
        self._opener = opener
        self._parts = parts
        judge = identity(options.make_task) if options is not None else ""
        self._directory = None if directory is None or judge is None else make_directory(directory)
        self._context = self._digest_of_data(judge or "")
        self._known: dict[str, Comparison] = {}
        self._ray = ray
        self.num_evaluations = 0

    @property
    def batches(self) -> Sequence[LabelledBatch]:
        """The batches that candidates run on."""
        return self._batches

    @property
    def num_images(self) -> int:
        """Number of images in all batches."""
        return sum(len(batch.names) for batch in self._batches)

    def __call__(self, model: ir.Model) -> Comparison:
        """Compare `model` with the float network.

        Raises:
            ModelError: it cannot be opened or run, or does not match the float network.
        """
        key = self._key(model)
        found = self._known.get(key) or self._load(key)
        if found is None:
            self.num_evaluations += 1
            session = self._opener(model)
            try:
                found = compare(
                    self._reference,
                    session,
                    self._batches,
                    self._options,
                    parts=self._parts,
                )
            finally:
                session.close()
            self._save(key, found)
        self._known[key] = found
        return found

    def ahead(self, models: Iterable[ir.Model], progress: Progress = silent) -> None:
        """Compare many networks in parallel on the Ray cluster; does nothing without one.

        The results are those that `__call__` would compute, which then returns them at once.

        Raises:
            MissingError: Ray is not installed.
            ModelError: as `__call__`.
        """
        if self._ray is None or self._opener is not open_as_written:
            return
        unknown = {key: model for model in models if (key := self._key(model)) not in self._known}
        waiting = {key: one for key, one in unknown.items() if self._load(key) is None}
        if not waiting:
            return
        expected = [self._reference.run(batch.feeds) for batch in self._batches]
        specs = (self._reference.inputs, self._reference.outputs)
        with joined(self._ray or None) as cluster:
            shared = cluster.share((self._batches, expected, specs, self._options, self._parts))
            tasks = [(shared, model_bytes(model)) for model in waiting.values()]
            keys = list(waiting)
            for number, found in cluster.results(_judged, tasks):
                self.num_evaluations += 1
                self._known[keys[number]] = found
                self._save(keys[number], found)
                progress("candidates", self.num_evaluations, None)

    def _key(self, model: ir.Model) -> str:
        content = (
            f"{graph_digest(model)} {weights_digest(model)} {sorted(model.opset_imports.items())}"
        )
        return hashlib.sha256(self._context + content.encode()).hexdigest()

    def _digest_of_data(self, judge: str) -> bytes:
        digest = hashlib.sha256()
        digest.update(repr(sorted(self._options.metrics)).encode() if self._options else b"")
        digest.update(f"{sorted(self._parts.items())} {judge}".encode())
        for batch in self._batches:
            expected = self._reference.run(batch.feeds)
            for arrays in (batch.feeds, expected):
                for name, array in arrays.items():
                    digest.update(f"{name}{array.dtype}{array.shape}".encode())
                    digest.update(np.ascontiguousarray(array).tobytes())
            digest.update(b"" if batch.labels is None else batch.labels.tobytes())
        return digest.digest()

    def _load(self, key: str) -> Comparison | None:
        path = self._directory / f"{key}.json" if self._directory is not None else None
        if path is None or not path.is_file():
            return None
        try:
            return Comparison.load(path)
        except InputError:  # from another version, or damaged; it is only a cache
            return None

    def _save(self, key: str, found: Comparison) -> None:
        if self._directory is not None:
            write_text(self._directory / f"{key}.json", dumps(found.to_json()))


def _judged(work: tuple[Any, ...], content: bytes) -> Comparison:
    """Compare one network with the float network's recorded outputs, in a worker."""
    batches, expected, (inputs, outputs), options, parts = work
    answered = {id(batch.feeds): one for batch, one in zip(batches, expected)}
    session = open_session(content, Execution.FLOAT, threads=1)
    try:
        return compare(_Recorded(inputs, outputs, answered), session, batches, options, parts=parts)
    finally:
        session.close()


class _Recorded:
    """A session with the float network's recorded outputs for each batch."""

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        answered: Mapping[int, dict[str, np.ndarray]],
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._outputs = answered

    @classmethod
    def of(cls, session: Session, batches: Sequence[LabelledBatch]) -> _Recorded:
        """Run each batch once and record the outputs."""
        answered = {id(batch.feeds): session.run(batch.feeds) for batch in batches}
        return cls(session.inputs, session.outputs, answered)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Return the recorded outputs for these feeds, which must be the same object."""
        return self._outputs[id(feeds)]

    def close(self) -> None:
        """Do nothing."""
