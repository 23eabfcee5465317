"""Ranges straight from a module, under the names of the exported tensors; time per layer."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812 - torch's own convention
from torch import nn  # noqa: E402

from calibrators import Calibration, Collector  # noqa: E402
from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from trtbuild.errors import DataError  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402
from trtbuild.pytorch.profile import profile_layers  # noqa: E402
from trtbuild.pytorch.statistics import observe_export, observe_modules  # noqa: E402


class Net(nn.Module):
    """One activation twice, in place, and a sum that no module makes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.stem(x)))
        x = F.relu(self.relu(self.conv(x)) + x)
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def exported() -> object:
    torch.manual_seed(0)
    return export_onnx(randomize(Net()), [InputSpec((2, 3, 8, 8), dynamic={0: "batch"})])


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, 3, 8, 8, generator=generator) * 2 for count in (4, 1, 4)]


def by_onnxruntime(model: ir.Model, names: list[str]) -> Collector:
    """The same tensors from ONNX Runtime, which knows nothing of torch."""
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    known = {value.name: value for value in proto.graph.value_info}
    proto.graph.output.extend(known[name] for name in names if name in known)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    collector = Collector(names)
    for number, batch in enumerate(batches()):
        given = {"x": batch.numpy()}
        outputs = session.run(None, given)
        found = dict(zip((value.name for value in session.get_outputs()), outputs)) | given
        collector.observe({name: found[name] for name in names}, batch=number)
    return collector


def amaxes(collector: Collector) -> dict[str, float]:
    return Calibration.from_histograms(collector.histograms, "minmax").amaxes


def test_the_exported_graph_is_observed_under_its_own_tensor_names(exported) -> None:
    collector = observe_export(exported, [{"x": batch} for batch in batches()], device="cpu")
    names = list(collector.histograms)
    assert {"x", "stem_output_0", "relu_output_0", "relu_1_output_0", "Add_output_0",
            "Relu_output_0"} <= set(names)  # fmt: skip
    truth = amaxes(by_onnxruntime(exported.model, names))
    for name, amax in amaxes(collector).items():
        # Both compute in float32; a range differs by the rounding of 216 products, some 1e-6.
        assert amax == pytest.approx(truth[name], rel=1e-5), name


def test_modules_are_observed_by_hooks(exported) -> None:
    collector = observe_modules(exported.module, [(batch,) for batch in batches()])
    names = ["stem_output_0", "relu_output_0", "conv_output_0", "relu_1_output_0"]
    truth = amaxes(by_onnxruntime(exported.model, names))
    found = amaxes(collector)
    for name in names:
        assert found[name] == pytest.approx(truth[name], rel=1e-5), name
    # The in-place ReLU overwrites the convolution's output; the hook counted before that.
    assert collector.histograms["stem_output_0"].minimum < 0
    assert collector.histograms["relu_output_0"].minimum == 0


def test_chosen_tensors(exported) -> None:
    collector = observe_export(exported, [{"x": batches()[0]}], names=["Add_output_0"])
    assert list(collector.histograms) == ["Add_output_0"]


def test_what_is_refused(exported) -> None:
    with pytest.raises(DataError, match="no tensor 'nothing'"):
        observe_export(exported, [], names=["nothing"])
    with pytest.raises(DataError, match="no batches"):
        observe_export(exported, [])
    with pytest.raises(DataError, match="no input 'x'"):
        observe_export(exported, [{"y": batches()[0]}])
    with pytest.raises(DataError, match="no batches"):
        observe_modules(exported.module, [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_on_a_gpu(exported) -> None:
    on_gpu = amaxes(observe_export(exported, [{"x": b} for b in batches()], device="cuda"))
    on_cpu = amaxes(observe_export(exported, [{"x": b} for b in batches()], device="cpu"))
    # Convolutions may run in TF32 on a GPU: ten mantissa bits, 1e-3.
    assert on_gpu == pytest.approx(on_cpu, rel=5e-3)


def test_time_per_layer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU())
    times = profile_layers(module.eval(), [InputSpec((4, 3, 64, 64))], runs=10, warmup=1)
    assert {time.path for time in times} == {"0", "1", "2", "3"}
    assert [time.cpu_ms for time in times] == sorted((t.cpu_ms for t in times), reverse=True)
    assert times[0].path == "2"  # twenty times the work of any other
    assert times[0].kind == "Conv2d"
    assert all(time.num_calls == 1 and time.cpu_ms > 0 for time in times)
    assert sum(time.share for time in times) == pytest.approx(1)
    np.testing.assert_array_equal([time.device_ms for time in times], 0)
    assert not any(child._forward_hooks for child in module)
