"""Does TensorRT accept a network? Asks its parser and, on request, its builder."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.backends import AUTO
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.apart import (
    build_plan_apart,
    find_refusals_apart,
    parser_ahead,
)
from trtbuild.backends.tensorrt.builder import Blueprint
from trtbuild.backends.tensorrt.known_issues import issues_of, situation_of
from trtbuild.backends.tensorrt.network import refusal_text
from trtbuild.backends.tensorrt.profiles import profiles_for, values_for
from trtbuild.backends.tensorrt.refusals import Refusal
from trtbuild.backends.tensorrt.rtx import capabilities
from trtbuild.errors import MissingError, ModelError, OptionError, in_one_tree
from trtbuild.files import check_is_file
from trtbuild.jobs.paths import Besides, check_paths, named_inputs
from trtbuild.json_codec import Document
from trtbuild.machine import is_importable
from trtbuild.model import input_specs, read_model, temporary_file
from trtbuild.model.qdq import is_qdq
from trtbuild.progress import Progress, silent
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.manifest_beside import PORTABLE_SUFFIX, QDQ_SUFFIX
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, installed
from trtbuild.verification.ruling import ACCEPTED, REJECTED, Ruling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from trtbuild.artifact import Artifact
    from trtbuild.backends.tensorrt.refusals import Refusals
    from trtbuild.recipes import CheckRecipe
    from trtbuild.runtime.tensorrt.versions import Product, TensorRT

__all__ = [
    "PARSERS",
    "BuildOutcome",
    "NetworkCheck",
    "Refusal",
    "check_network",
    "check_source",
    "form_check",
]

_log = logging.getLogger(__name__)

PARSERS = {TENSORRT.backend: TENSORRT, RTX.backend: RTX}
"""The backends with a parser of NVIDIA's, the preferred first."""


@dataclass(frozen=True)
class BuildOutcome:
    """The result of building a network that the parser accepts.

    Attributes:
        built: whether a plan was built.
        seconds: how long that took.
        plan_bytes: size of the plan; 0 without one.
        reason: the builder's message, if no plan was built.
        errors: errors that the builder logged although it built a plan.
    """

    built: bool
    seconds: float
    plan_bytes: int
    reason: str
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkCheck(Document):
    """TensorRT's answer to a network.

    Attributes:
        model: file of the network.
        parser: the TensorRT that was asked.
        refused: the nodes that its parser refuses.
        needs_plugin: the operators that need a plugin, each once.
        unseen_behind: a refused node with unknown outputs, so that nodes after it were not checked.
        build: result of building it; None if that was not tried.
        known_issues: known causes why such a build is slow, wrong or refused, with sources.
        instead: the file of TensorRT's form, if a refused one is that for ONNX Runtime; else empty.
        ruling: ACCEPTED or REJECTED, and by whom; derived from the other fields.
    """

    SCHEMA = "trtbuild.check"

    model: str
    parser: str
    refused: tuple[Refusal, ...]
    needs_plugin: tuple[str, ...]
    unseen_behind: str
    build: BuildOutcome | None
    known_issues: tuple[str, ...] = ()
    instead: str = ""
    ruling: Ruling = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ruling", self._ruling())

    def _ruling(self) -> Ruling:
        if self.refused:
            nodes = "one node" if len(self.refused) == 1 else f"{len(self.refused)} nodes"
            return Ruling(REJECTED, f"{self.parser} rejects {nodes}")
        if self.build is None:
            return Ruling(ACCEPTED, f"{self.parser} parses every node")
        if self.build.built:
            return Ruling(ACCEPTED, f"{self.parser} parses every node and builds the network")
        return Ruling(REJECTED, f"{self.parser} parses every node but does not build the network")

    @property
    def taken(self) -> bool:
        """Whether TensorRT accepts the network, as far as it was tried."""
        return not self.refused and (self.build is None or self.build.built)


@in_one_tree()
def check_network(
    recipe: CheckRecipe, progress: Progress = silent, besides: Besides | None = None
) -> NetworkCheck:
    """Give a network to TensorRT's parser, and to its builder if the recipe says so.

    Args:
        recipe: the network and the parser.
        progress: called in both steps.
        besides: other files that the command writes.

    Raises:
        ModelError: the file cannot be read.
        OptionError: the backend has no parser, or an option does not fit.
        MissingError: no parser is installed; the message says how to install one.
    """
    check_paths(named_inputs(the_network=recipe.model), [], besides)
    check_is_file("the network", recipe.model)
    tensorrt = _parser(recipe.backend)
    progress("parse", 0, 1)
    found = find_refusals_apart(tensorrt, recipe.model, recipe.tensorrt.plugins)
    progress("parse", 1, 1)
    built = None
    if recipe.build and not found.refused:
        built = _built(tensorrt, recipe, progress)
    issues = _known_issues(tensorrt, recipe)
    wanting = dict.fromkeys(one.operator for one in found.refused if one.needs_plugin)
    return NetworkCheck(
        recipe.model.name,
        str(tensorrt),
        found.refused,
        tuple(wanting),
        found.unseen_behind,
        built,
        issues,
        _instead(recipe.model) if found.refused else "",
    )


def _instead(model: Path) -> str:
    """The file of TensorRT's form beside a form for ONNX Runtime; empty if there is none."""
    stem = model.name.removesuffix(PORTABLE_SUFFIX)
    twin = model.with_name(f"{stem}{QDQ_SUFFIX}")
    return twin.name if stem != model.name and twin.is_file() else ""


def _known_issues(tensorrt: TensorRT, recipe: CheckRecipe) -> tuple[str, ...]:
    """Known issues of such networks; empty if we cannot read a network that the parser has judged."""
    try:
        model = read_model(recipe.model)
    except ModelError:
        return ()
    quantization = "explicit" if any(map(is_qdq, model.graph)) else ""
    targets = capabilities(tensorrt, recipe.tensorrt) if tensorrt.is_rtx else ()
    situation = situation_of(tensorrt, recipe.tensorrt, model, quantization, targets)
    return tuple(map(str, issues_of(situation)))


def _parser(backend: str) -> TensorRT:
    """Return the TensorRT to ask: the named one, else the first that starts on this machine."""
    if backend != AUTO:
        if backend not in PARSERS:
            raise OptionError(
                f"the backend '{backend}' has no NVIDIA parser; use {', '.join(PARSERS)}, {AUTO}."
            )
        return installed(PARSERS[backend])
    absent = []
    for product in PARSERS.values():
        try:
            found = installed(product)
        except MissingError as error:
            absent.append(str(error))
            continue
        if found.is_rtx or not cuda_driver().problem:
            return found
        absent.append(f"{found} is installed, but {cuda_driver().problem}.")
    raise MissingError(
        f"no NVIDIA parser is available. {' '.join(absent)} TensorRT for RTX parses without a GPU."
    )


def _built(tensorrt: TensorRT, recipe: CheckRecipe, progress: Progress) -> BuildOutcome:
    """Build the network as it is in its file."""
    options = recipe.tensorrt
    TensorRTBackend(product=tensorrt.product).check(options, int8=False, fp16=True)
    model = read_model(recipe.model)
    inputs = input_specs(model)
    profiles, values = (
        profiles_for(options.shapes, inputs),
        values_for(options.shape_values, inputs),
    )
    with temporary_file(model, recipe.model.stem) as file:
        started = time.perf_counter()
        blueprint = Blueprint(file, options, profiles=profiles, values=values)
        try:
            built = build_plan_apart(tensorrt, blueprint, progress=progress)
        except ModelError as error:
            return BuildOutcome(False, time.perf_counter() - started, 0, str(error))
        seconds, size = time.perf_counter() - started, built.file.stat().st_size
        return BuildOutcome(True, seconds, size, "", tuple(built.log.errors))


def check_source(
    artifact: Artifact,
    backends: Iterable[str],
    plugins: tuple[Path, ...] = (),
    progress: Progress = silent,
) -> None:
    """Give a network to the parsers that will get it later, before time is spent on its ranges.

    Args:
        artifact: a float network, prepared.
        backends: names of the backends that build; only NVIDIA's have a parser to ask.
        plugins: shared libraries of plugins.
        progress: called for each parser.

    Raises:
        ModelError: a parser refuses it; the message names every node with reason and advice.
    """
    asked = [PARSERS[name] for name in backends if name in PARSERS]
    if not asked:
        return
    with temporary_file(artifact.whole(artifact.model)) as file:
        for number, product in enumerate(asked):
            progress("parse", number, len(asked))
            tensorrt = installed(product)
            found = find_refusals_apart(tensorrt, file, plugins).refused
            if found:
                told = [(one.node, one.operator, one.reason, one.advice) for one in found]
                raise ModelError(refusal_text(tensorrt, told))
    progress("parse", len(asked), len(asked))


@contextlib.contextmanager
def form_check(source: Path, plugins: tuple[Path, ...] = ()) -> Iterator[Callable[[Path], None]]:
    """Start an available parser; the block gets a function that checks one form with it, or does nothing.

    If the parser refuses the source as well, a warning names the nodes: that is not our fault. Otherwise
    the returned function raises a ModelError for a form that is refused.

    Args:
        source: the network that the form, with Q/DQ, is made from.
        plugins: shared libraries of plugins.
    """
    product = _likely_parser()
    if product is None:
        yield lambda _: None
        return
    with parser_ahead(product) as refusals_of:

        def check(form: Path) -> None:
            try:
                found = refusals_of(form, plugins)
            except MissingError:
                if _loads(product):
                    raise
                return
            if found.refused:
                _say_refused(installed(product), found, source, plugins)

        yield check


def _likely_parser() -> Product | None:
    """The product that `_parser` would find; does not load TensorRT for RTX, which takes memory and time."""
    with contextlib.suppress(MissingError):
        if not cuda_driver().problem:
            return installed(TENSORRT).product
    return RTX if any(is_importable(name) for name in RTX.modules) else None


def _loads(product: Product) -> bool:
    try:
        installed(product)
    except MissingError:
        return False
    return True


def _say_refused(
    tensorrt: TensorRT, found: Refusals, source: Path, plugins: tuple[Path, ...]
) -> None:
    """Report a refused form: as our error, unless its source is refused, too."""
    told = "; ".join(f"'{one.node}' ({one.operator}): {one.reason}" for one in found.refused)
    if find_refusals_apart(tensorrt, source, plugins).refused:
        _log.warning(
            "%s does not accept '%s', and therefore not its INT8 form: %s. `trtbuild check` says what "
            "can be done.",
            tensorrt,
            source,
            told,
        )
        return
    raise ModelError(
        f"{tensorrt} accepts '{source}', but not its INT8 form: {told}. Keep these nodes in float "
        "with --float NODE, and report this: it is a fault of trtbuild."
    )
