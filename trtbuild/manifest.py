"""The record beside an engine, typed: what it was made from, what was done, how good it is.

JSON, schema ``trtbuild.manifest``; docs/manifest.md describes it. `trtbuild.jobs.manifest` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.artifact import Record  # noqa: TC001
from trtbuild.errors import InputError, decoding
from trtbuild.files import file_digest
from trtbuild.json_codec import decode, load_object
from trtbuild.latency.limits import SpeedFinding  # noqa: TC001
from trtbuild.latency.regress import LatencyVerdict  # noqa: TC001
from trtbuild.latency.stats import LatencySummary  # noqa: TC001
from trtbuild.plan import Decision, GroupRecord  # noqa: TC001
from trtbuild.runtime.manifest_beside import EngineRecord, manifest_of
from trtbuild.verification.compare import Comparison
from trtbuild.verification.gate import Verdict  # noqa: TC001
from trtbuild.verification.layers import LayerReport  # noqa: TC001
from trtbuild.verification.ruling import Ruling  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "SUFFIX",
    "AskedRecord",
    "DataRecord",
    "FileRecord",
    "FormGap",
    "JudgedComparison",
    "Manifest",
    "ModelRecord",
    "NextStep",
    "OtherRule",
    "RangesRecord",
    "TensorRecord",
    "manifest_at",
    "manifest_beside",
    "read_manifest",
]

SCHEMA = "trtbuild.manifest"
VERSION = 1

SUFFIX = ".manifest.json"
"""End of a manifest's file name."""


@dataclass(frozen=True)
class TensorRecord:
    """An input or output of the network; each dim is a number, a name, or None if neither is known."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True)
class ModelRecord:
    """The float network: its file, digests (of the file, its graph, its weights), inputs and outputs."""

    file: str
    digest: str
    graph: str
    weights: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]


@dataclass(frozen=True)
class DataRecord:
    """The data that calibrated and that verified.

    Attributes:
        random: whether it was random numbers.
        preprocess: how pixels became inputs; None for data that is used unchanged.
        calibration, verification: a sentence on each.
        calibration_digest, verification_digest: independent of the order of the samples.
    """

    random: bool
    preprocess: Mapping[str, Any] | None
    calibration: str | None
    calibration_digest: str | None
    verification: str
    verification_digest: str


Limits = Mapping[str, float]


@dataclass(frozen=True)
class AskedRecord:
    """The most important options: layers kept in float, backend, batch size, seed of the data, limits."""

    float: tuple[str, ...]
    backend: str
    batch_size: int
    seed: int
    gate: Limits


@dataclass(frozen=True)
class RangesRecord:
    """The calibration: its method, and amax of each observed tensor."""

    method: str
    amax: Mapping[str, float]


@dataclass(frozen=True)
class FileRecord:
    """A file of the build: description, digest, size."""

    what: str
    digest: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class JudgedComparison(Comparison):
    """A network's figures against the float one, with the verdict of the limits."""

    verdict: Verdict
    schema: str = Comparison.SCHEMA
    version: int = Comparison.VERSION


@dataclass(frozen=True)
class NextStep:
    """A step, the reason, and its command; for data in a script, the keyword arguments to add."""

    why: str
    command: str

    def __str__(self) -> str:
        return f"{self.why}: {self.command}"


@dataclass(frozen=True)
class FormGap:
    """An output that is far less accurate in the engine than in TensorRT's form.

    Attributes:
        output: its name.
        tensorrt_form_db, engine_db: SQNR of both against the float network, dB.
    """

    output: str
    tensorrt_form_db: float
    engine_db: float

    def __str__(self) -> str:
        return (
            f"the engine's output '{self.output}' is far below TensorRT's form: {self.engine_db:.1f} dB "
            f"of SQNR against {self.tensorrt_form_db:.1f} dB, so the engine loses what the Q/DQ network "
            "keeps"
        )


@dataclass(frozen=True)
class OtherRule:
    """The accuracy of TensorRT's form with another threshold rule, on a few of the images.

    Attributes:
        option: the options that select it.
        sqnr_db: SQNR of the worst output with it.
        own_db: the same with the rule that was used.
    """

    option: str
    sqnr_db: float
    own_db: float

    def __str__(self) -> str:
        return (
            f"with {self.option} the worst output of TensorRT's form has {self.sqnr_db:.1f} dB instead "
            f"of {self.own_db:.1f} dB, on a few of the samples"
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A build.

    Attributes:
        schema, version: schema and version of the file.
        name: stem of all files.
        passed: whether every limit holds.
        model: the float network.
        data: the data that calibrated and verified.
        options: the most important options.
        recipe: every option, as written by `trtbuild.options.tables.to_table`; None in a record of an
            older trtbuild.
        command: the command line for the same build; empty if the data came from a script.
        stages: records of the stages, in order.
        calibration: ranges; None if the backend calibrated by itself.
        layers: every node, whether it is in INT8, and why.
        groups: every place where INT8 is chosen.
        engine: the engine.
        also: the additional engine; None without one.
        files: file name -> description.
        verification: network -> its figures against the float one, and the limits' verdict.
        ruling: whether the engine may be shipped; None in a record of an older trtbuild.
        next_step: what to do next; None for an engine that may be shipped.
        below_floor: what is below the floor.
        unjudged_collapse: why an engine that no limit judges may not be shipped; else empty.
        better_rule: a better threshold rule; None if none is known.
        below_tensorrt_form: outputs that are far less accurate in the engine than in TensorRT's form.
        layers_at_fault: errors of the layers if an output is far from float; else None.
        latency: network -> figures; empty if they were not measured.
        latency_verdicts: engine -> its latency compared with float's.
        latency_against_fp16: the engine's latency compared with an FP16 engine's; None without one.
        without_fp16: why there is none; empty if there is one, or none was asked for.
        speed: engine -> findings for its limits on speed; empty without limits.
        versions: package -> version.
        machine: its system and processor.
    """

    schema: str = SCHEMA
    version: int = VERSION
    name: str
    passed: bool
    model: ModelRecord
    data: DataRecord
    options: AskedRecord
    recipe: Mapping[str, Any] | None = None
    command: str = ""
    stages: tuple[Record, ...]
    calibration: RangesRecord | None
    layers: tuple[Decision, ...]
    groups: tuple[GroupRecord, ...] = ()
    engine: EngineRecord
    also: EngineRecord | None = None
    files: Mapping[str, FileRecord]
    verification: Mapping[str, JudgedComparison]
    ruling: Ruling | None = None
    next_step: NextStep | None = None
    below_floor: tuple[str, ...] = ()
    unjudged_collapse: str = ""
    better_rule: OtherRule | None = None
    below_tensorrt_form: tuple[FormGap, ...] = ()
    layers_at_fault: LayerReport | None
    latency: Mapping[str, LatencySummary]
    latency_verdicts: Mapping[str, LatencyVerdict] = field(default_factory=dict)
    latency_against_fp16: LatencyVerdict | None = None
    without_fp16: str = ""
    speed: Mapping[str, tuple[SpeedFinding, ...]] = field(default_factory=dict)
    versions: Mapping[str, str]
    machine: Mapping[str, str]

    def knows(self, file: Path) -> bool:
        """Return whether `file` belongs to the build, byte for byte.

        Raises:
            InputError: it cannot be read.
        """
        record = self.files.get(file.name)
        with decoding(InputError, f"'{file}' cannot be read"):
            return record is not None and record.digest == file_digest(file)

    def engine_in(self, file: str) -> EngineRecord | None:
        """Return the record of the engine with that file name; None if neither engine has it."""
        both = (self.engine, self.also)
        return next((one for one in both if one is not None and one.file == file), None)


def manifest_at(path: Path) -> Path:
    """Return the manifest in a folder, or `path` itself if it is no folder.

    Raises:
        InputError: the folder does not hold exactly one manifest.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(
            f"'{path}' must hold the manifest of one build, and has {names}; name the file itself."
        )
    return found[0]


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest; fields that a newer trtbuild has added are ignored.

    Raises:
        InputError: unreadable, damaged, or of another schema or version.
    """
    content = load_object(path, SCHEMA, VERSION)
    return decode(Manifest, content, f"the manifest '{path}'", allow_unknown=True)


def manifest_beside(engine: Path) -> Manifest | None:
    """Return the manifest beside an engine or Q/DQ network; None if there is none, or it is of another file.

    Raises:
        InputError: it is damaged, or the engine cannot be read.
    """
    path = manifest_of(engine)
    manifest = read_manifest(path) if path.is_file() else None
    return manifest if manifest is not None and manifest.knows(engine) else None
