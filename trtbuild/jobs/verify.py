"""The stages of ``trtbuild verify``: compares an engine with a float network, and finds layers at fault."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends.opening import built_by
from trtbuild.data import account_for, choose_samples, open_data
from trtbuild.errors import OptionError, in_one_tree
from trtbuild.jobs.compare import (
    check_task,
    judged_by,
    task_of,
    verification_batches,
    warn_of_mixing,
)
from trtbuild.jobs.foreign_operators import front_of, open_whole
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.next_step import after_verify
from trtbuild.jobs.paths import check_paths, data_inputs, named_inputs
from trtbuild.json_codec import Document
from trtbuild.manifest import NextStep  # noqa: TC001 - read by `decode`
from trtbuild.model import input_specs, read_model, signature_as_said
from trtbuild.model.parts import output_parts
from trtbuild.options.compare import REFERENCE_BACKEND
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.bisect import Culprits, find_culprits
from trtbuild.search.candidate import FileCandidate
from trtbuild.search.evaluate import Evaluator, open_as_written
from trtbuild.search.faults import find_faults
from trtbuild.search.float_form import float_form
from trtbuild.search.sensitivity import GroupSensitivity, sensitivities
from trtbuild.verification.compare import NO_PARTS, Comparison, compare_each
from trtbuild.verification.gate import NEEDS_LABELS, Gate, Verdict, judge
from trtbuild.verification.label_check import LabelCheck
from trtbuild.verification.layers import LayerReport  # noqa: TC001 - a saved result is read by its types
from trtbuild.verification.ruling import Ruling, floors, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import Batch, DataRecipe, Source
    from trtbuild.jobs.paths import Besides
    from trtbuild.model.signature import TensorSpec
    from trtbuild.recipes import VerifyRecipe
    from trtbuild.runtime.session import Session

__all__ = ["Verification", "judge_again", "verify"]

_UNRULED = Ruling("", "")


@dataclass(frozen=True, kw_only=True)
class Verification(Document):
    """The result; saved as JSON, it can be judged again.

    Attributes:
        reference, engine: file names.
        data: where the images come from.
        account: number of used samples, ranges of inputs, and skipped data.
        spoilt: why figures on the samples cannot be trusted.
        comparison: figures of the outputs.
        limits: limits of the gate.
        verdict: the gate's verdict.
        ruling: whether the engine may be shipped; derived from the other fields.
        next_step: what to do next; None if nothing, and after judging again.
        layers, sensitivity, culprits: None if not asked for.
    """

    SCHEMA = "trtbuild.verification"

    reference: str
    engine: str
    data: str
    account: str = ""
    spoilt: tuple[str, ...] = ()
    comparison: Comparison
    limits: dict[str, float]
    verdict: Verdict
    ruling: Ruling = _UNRULED
    next_step: NextStep | None = None
    layers: LayerReport | None = None
    sensitivity: tuple[GroupSensitivity, ...] | None = None
    culprits: Culprits | None = None

    def __post_init__(self) -> None:
        if self.ruling == _UNRULED:
            below = floors({self.engine: self.comparison}, [self.verdict])
            found = rule([self.verdict], (*below, *self.spoilt), compared=[self.comparison])
            object.__setattr__(self, "ruling", found)


def judge_again(found: Verification, gate: Gate) -> Verification:
    """Return a saved result with other limits and a new verdict; runs nothing.

    Raises:
        OptionError: a limit is set on a figure that was not measured.
    """
    verdict = judge(found.comparison, gate)
    return replace(found, limits=gate.limits, verdict=verdict, ruling=_UNRULED, next_step=None)


@in_one_tree()
def verify(
    recipe: VerifyRecipe, progress: Progress = silent, besides: Besides | None = None
) -> Verification:
    """Compare, judge, and find the layers at fault.

    Args:
        recipe: what to compare, on which data.
        progress: called in every stage.
        besides: other files that the command reads and writes.

    Raises:
        InputError: a file, the data or an option is wrong, or they do not belong together.
        MissingError: the backend that opens the engine does not work here.
    """
    given = recipe.reference
    network = given if isinstance(given, Path) else given.weights
    reads = named_inputs(
        the_float_network=network, the_engine=recipe.engine, the_annotations=recipe.task.coco
    )
    check_paths((*reads, *data_inputs(recipe.data)), [], besides)
    artifact = load(given, recipe.data.batch_axes) if isinstance(given, Path) else None
    if artifact is None and recipe.diagnosis.wanted:
        raise OptionError(
            "--layers, --sensitivity and --bisect need the float network as an ONNX file."
        )
    engine = _engine(recipe, artifact)
    try:
        reference = _reference(recipe, artifact, engine)
        source = _source(recipe.data, reference.inputs)
        comparison = _compared(recipe, artifact, (reference, engine), source, progress)
        # after the comparison, because samples from Python code are known only once they are read
        account = account_for(recipe.data, verify=source)
    finally:
        engine.close()
    found = Verification(
        reference=given.name if isinstance(given, Path) else given.target,
        engine=recipe.engine.name,
        data=source.description,
        account=str(replace(account, used={"verify": comparison.num_images})),
        spoilt=account.spoilt,
        comparison=comparison,
        limits=recipe.gate.limits,
        verdict=judge(comparison, recipe.gate),
    )
    step = after_verify(found.ruling, comparison, found.verdict, recipe, spoilt=found.spoilt)
    found = replace(found, next_step=step)
    return found if artifact is None else _diagnosed(found, recipe, artifact, source, progress)


def _compared(
    recipe: VerifyRecipe,
    artifact: Artifact | None,
    both: tuple[Session, Session],
    source: Source,
    progress: Progress,
) -> Comparison:
    """Run both, the float reference and the engine, on all of `source`."""
    if recipe.gate.max_metric_drop is not None and not recipe.options.metrics:
        raise OptionError("a limit on a metric needs one; give it with --metric.")
    reference, engine = both
    graph = _graph(artifact, recipe.engine)
    task = task_of(graph, source, recipe.task, recipe.data.preprocess)
    check_task(recipe.gate, task)
    batches = verification_batches(reference.inputs, source, recipe.batch_size, progress)
    check = LabelCheck(recipe.options.label_output)
    found = compare_each(
        reference,
        {recipe.engine.name: engine},
        _checked(batches, reference, recipe, artifact),
        judged_by(recipe.options, graph, task, recipe.data.preprocess),
        parts=NO_PARTS if graph is None else output_parts(graph),
        shared_only=artifact is not None and artifact.cut is not None,
        check=check,
    )
    check.raise_at_chance()
    return found[recipe.engine.name]


def _graph(artifact: Artifact | None, engine: Path) -> ir.Model | None:
    """The graph with the outputs' meaning: the float network's; for a PyTorch module the engine's, if any."""
    if artifact is not None:
        return artifact.source
    return read_model(engine) if engine.suffix == ".onnx" else None


def _engine(recipe: VerifyRecipe, artifact: Artifact | None) -> Session:
    """The engine's session; for an ONNX file that ONNX Runtime cannot run whole, that of its front part."""
    onnx = recipe.engine.suffix == ".onnx" and recipe.engine.is_file()
    if artifact is not None and artifact.cut is not None and onnx:
        front, cut = front_of(read_model(recipe.engine))
        if cut is not None:
            return open_session(front)
    return open_whole(recipe.engine, recipe.backend, recipe.tensorrt)


def _reference(recipe: VerifyRecipe, artifact: Artifact | None, engine: Session) -> Session:
    """The session of the float network; a PyTorch module has the inputs and outputs of the engine."""
    if artifact is not None:
        return open_session(artifact.source)
    assert not isinstance(recipe.reference, Path)
    from trtbuild.pytorch import open_module

    signature = signature_as_said(engine.inputs, engine.outputs, recipe.data.batch_axes)
    return open_module(recipe.reference, signature)


def _source(data: DataRecipe, inputs: Sequence[TensorSpec]) -> Source:
    source = open_data(data, inputs, calibrates=False).verification
    if data.num_images is None:
        return source
    return choose_samples(source, num_images=data.num_images, seed=data.seed)


def _checked(
    batches: Iterator[Batch],
    reference: Session,
    recipe: VerifyRecipe,
    artifact: Artifact | None,
) -> Iterator[Batch]:
    """Yield the batches; raise at the first one if a limit could not be judged at the end."""
    for number, batch in enumerate(batches):
        if number == 0 and batch.labels is None and recipe.gate.max_top1_drop is not None:
            raise OptionError(NEEDS_LABELS)
        if number == 0 and artifact is not None:
            warn_of_mixing(artifact.source, reference, batch)
        yield batch


def _diagnosed(
    found: Verification,
    recipe: VerifyRecipe,
    artifact: Artifact,
    source: Source,
    progress: Progress,
) -> Verification:
    wanted = recipe.diagnosis
    if not wanted.wanted:
        return found
    quantized = _quantized_network(recipe.engine)
    original = prepare(artifact).model
    images = itertools.islice(source, wanted.num_images)
    batches = list(verification_batches(input_specs(original), images, recipe.batch_size))
    parts = output_parts(artifact.source)
    reference = open_session(original)
    here = Evaluator(reference, batches, recipe.options, parts=parts)
    model = float_form(quantized, original, here)
    if wanted.layers:
        found = replace(found, layers=find_faults(model, quantized, here, progress))
    opener: Callable[[ir.Model], Session] = open_as_written
    if wanted.backend != REFERENCE_BACKEND:
        opener = built_by(wanted.backend, batches[0].feeds, recipe.tensorrt)
    task = task_of(artifact.source, source, recipe.task, recipe.data.preprocess)
    options = replace(recipe.options, make_task=task)
    evaluate = Evaluator(reference, batches, options, opener=opener, parts=parts)
    candidate = FileCandidate(quantized, model)
    if wanted.sensitivity:
        found = replace(found, sensitivity=sensitivities(candidate, evaluate, progress))
    if wanted.bisect:
        culprits = _culprits(candidate, evaluate, recipe.gate, progress)
        found = replace(found, culprits=culprits)
    return found


def _quantized_network(path: Path) -> ir.Model:
    if path.suffix != ".onnx":
        raise OptionError(
            f"--layers, --sensitivity and --bisect need the Q/DQ network, but '{path}' is not an ONNX file;"
            " give the '.int8.onnx' file that lies beside the engine."
        )
    return front_of(read_model(path))[0]


def _culprits(
    candidate: FileCandidate, evaluate: Evaluator, gate: Gate, progress: Progress
) -> Culprits:
    if not gate.limits:
        raise OptionError("--bisect needs a limit that fails, for example --min-sqnr 20.")

    def passes(floats: frozenset[str]) -> bool:
        return judge(evaluate(candidate.with_float(floats).network()), gate).holds

    return find_culprits([group.name for group in candidate.groups()], passes, progress)
