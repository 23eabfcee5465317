"""A demonstration: a network that loses its accuracy in INT8, and the result of a build with a limit.

The network is the small one of the quickstart, and comes with the package. Its hidden channels are scaled to
different sizes by powers of two, which is exact in floats. Depthwise networks show the same by themselves
(Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*, 2019): one scale for
all channels then leaves nothing of the small ones.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import InputError, MissingError
from trtbuild.files import make_directory
from trtbuild.jobs.engine import build_engine
from trtbuild.json_codec import Document
from trtbuild.model import name_nodes, read_unchanged, write_model
from trtbuild.model.constants import array
from trtbuild.model.edits import set_constant
from trtbuild.options.calibrate import CalibrateOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.preprocess import Preprocess
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.progress import Progress, silent
from trtbuild.recipes import EngineRecipe
from trtbuild.runtime.tensorrt.versions import RTX, installed
from trtbuild.titles import TENSORRT_FORM
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.result import EngineResult
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.ruling import Ruling
    from trtbuild.verification.scores import Accuracy

__all__ = ["DemoBuild", "DemoFigures", "Demonstration", "demonstrate", "unequal_channels"]

NETWORK = "unequal.onnx"
_DATA = ("calibration.npz", "test.npz", "digits.toml")
_FILES = ("digits.onnx", *_DATA)
_IMAGES = Preprocess(color="GRAY", scale=1 / 16)  # as digits.toml says
_SHAPES = ("image=1x1x8x8:8x1x8x8:32x1x8x8",)
# The largest channel is 2**12 times the smallest: 12 bits, where INT8 has 8.
_OCTAVES = 12


@dataclass(frozen=True)
class DemoBuild:
    """One of the two builds.

    Attributes:
        manifest: its manifest.
        ruling: its verdict.
        accuracy: top-1 of the float network and of TensorRT's form.
        sqnr_db: SQNR of the output of TensorRT's form.
    """

    manifest: Path
    ruling: Ruling
    accuracy: Accuracy
    sqnr_db: Estimate


@dataclass(frozen=True)
class DemoFigures(Document):
    """The figures of both builds.

    Attributes:
        before: built by TensorRT's entropy rule alone, as calibrators do it.
        after: built by the defaults of `trtbuild engine`, with a limit on accuracy.
        report: the HTML page of the second build.
    """

    SCHEMA = "trtbuild.demo"

    before: DemoBuild
    after: DemoBuild
    report: Path


@dataclass(frozen=True)
class Demonstration:
    """Two builds of one network.

    Attributes:
        folder: folder of all files.
        before: built by TensorRT's entropy rule alone, as calibrators do it.
        after: built by the defaults of `trtbuild engine`, with a limit on accuracy.
        command: command line of the second build, to run by hand in `folder`.
    """

    folder: Path
    before: EngineResult
    after: EngineResult
    command: str

    def figures(self, page: Path) -> DemoFigures:
        """Return the figures of both builds; `page` is the HTML page of the second."""
        return DemoFigures(_figures(self.before), _figures(self.after), page)


def _figures(built: EngineResult) -> DemoBuild:
    form = built.comparisons[TENSORRT_FORM]
    sqnr = form.outputs[0].sqnr_db
    assert form.accuracy is not None  # the demonstration has labels
    assert sqnr is not None  # its output holds floats
    return DemoBuild(built.manifest, built.ruling, form.accuracy, sqnr)


def demonstrate(folder: Path, progress: Progress = silent) -> Demonstration:
    """Write a network and its data into `folder`, and build it twice.

    If TensorRT for RTX is installed, the second build also makes a plan with it; that needs no GPU.

    Raises:
        InputError: the installed package lacks its sample.
        OutputError: `folder` cannot be written.
    """
    make_directory(folder)
    sample = _sample()
    for name in _DATA:
        shutil.copyfile(sample / name, folder / name)
    write_model(unequal_channels(read_unchanged(sample / _FILES[0])), folder / NETWORK)
    images, test = str(folder / _DATA[0]), str(folder / _DATA[1])
    recipe = EngineRecipe(
        model=folder / NETWORK,
        data=DataRecipe(
            data=images, preprocess=_IMAGES, verify_data=test, labels=folder / _DATA[1]
        ),
        gate=Gate(max_top1_drop=1),
        latency=None,
    )
    before = build_engine(
        replace(
            recipe,
            output=folder / "before",
            calibrate=CalibrateOptions(method="entropy"),
            tune=None,
        ),
        progress,
    )
    recipe, flags = _with_rtx(recipe)
    after = build_engine(replace(recipe, output=folder / "after"), progress, explains=True)
    command = (
        f"trtbuild engine {NETWORK} --int8 --data {_DATA[0]} --preprocess {_DATA[2]} "
        f"--verify-data {_DATA[1]} --labels {_DATA[1]} --max-top1-drop 1 --no-latency -o after{flags}"
    )
    return Demonstration(folder, before, after, command)


def unequal_channels(network: ir.Model, seed: int = 0) -> ir.Model:
    """Give a network hidden channels of different sizes without changing what it computes.

    Positive factors pass through a Relu between a BatchNormalization and the only Conv that reads it: the
    normalization is multiplied by them, and the convolution is divided by them.

    Args:
        network: a float network; it is changed.
        seed: seed for the order of the factors.
    """
    name_nodes(network)
    rng = np.random.default_rng(seed)
    for relu in [node for node in network.graph if node.op_type == "Relu"]:
        norm = relu.inputs[0].producer() if relu.inputs[0] is not None else None
        readers = [use.node for use in relu.outputs[0].uses()]
        if norm is None or norm.op_type != "BatchNormalization" or len(readers) != 1:
            continue
        conv, gain, shift = readers[0], array(norm.inputs[1]), array(norm.inputs[2])
        weight = array(conv.inputs[1]) if conv.op_type == "Conv" else None
        if gain is None or shift is None or weight is None:
            continue
        octaves = np.linspace(0, _OCTAVES, len(gain)).round()
        factors = np.exp2(rng.permutation(octaves)).astype(np.float32)
        set_constant(network, norm, 1, gain * factors, "gain")
        set_constant(network, norm, 2, shift * factors, "shift")
        set_constant(network, conv, 1, weight / factors[:, None, None], "weight")
    return network


def _sample() -> Path:
    """The folder with the network and its images, in the installed package or in the project's tree."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "demo_data", package.parent / "samples" / "quickstart")
    for folder in folders:
        if all((folder / name).is_file() for name in _FILES):
            return folder
    raise InputError(
        f"the sample of the demonstration is not in '{folders[0]}'; install trtbuild again."
    )


def _with_rtx(recipe: EngineRecipe) -> tuple[EngineRecipe, str]:
    """Ask for an additional plan of TensorRT for RTX, if it is installed; also return the flags for that."""
    try:
        installed(RTX)
    except MissingError:
        return recipe, ""
    asked = replace(recipe, also=RTX.backend, tensorrt=TensorRTOptions(shapes=_SHAPES))
    return asked, f" --also {RTX.backend} --shape {_SHAPES[0]}"
