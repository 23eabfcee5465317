"""Change one promised constant or rule at a time, and print the changes that no test notices.

Usage: ``python tools/mutate.py [WORD ...]``; with words, only the places with one of them in file or text.
The exit code is 1 when a change goes unseen or a place no longer exists.

A docstring or a page makes a promise about the line of each place. The line is changed in a copy of the
project, and the named tests run there: at least one must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLACES", "Place", "copy_of_project", "is_seen", "problems_of"]

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("calibrators", "docs", "samples", "tests", "tools", "trtbuild")
LONGEST = 900  # seconds; tests that take longer hang because of the change, so they notice it
COPIED_FILES = ("pyproject.toml", "README.md", "dev.py")


@dataclass(frozen=True)
class Place:
    """One promise and how it is broken.

    Attributes:
        file: path in the project.
        text: text in that file, exactly once.
        replacement: text to write instead.
        tests: path from ``tests/`` of the test file that must fail then, or one test of it, with ``::name``.
    """

    file: str
    text: str
    replacement: str
    tests: str


_RULES = "calibrators/rules.py"
_REFERENCE = "trtbuild/passes/reference.py"
_AGREEMENT = "trtbuild/passes/agreement.py"
_SYMMETRIC = "trtbuild/passes/symmetric_weights.py"
_REGRESS = "trtbuild/latency/regress.py"
_MEASURE = "trtbuild/latency/measure.py"
_METRICS = "trtbuild/verification/metrics.py"
_CALIBRATORS = "calibrators/test_promises.py"
_LIMITS = "trtbuild/passes/test_limits.py"
_COMPARED = "trtbuild/passes/test_comparison.py"
_RESTORE = "trtbuild/pytorch/prune/restore.py"
_EXPLICIT = "trtbuild/pytorch/test_prune_explicit.py"

PLACES = (
    # thresholds of the calibrators
    Place(_RULES, "NEGLIGIBLE_SHARE = 1e-5", "NEGLIGIBLE_SHARE = 1.2e-5",
          "calibrators/test_choose.py"),
    Place(_RULES, "LARGEST_CLIPPED_SHARE = 1e-2", "LARGEST_CLIPPED_SHARE = 1.01e-2",
          "calibrators/test_choose.py"),
    Place(_RULES, "_SMALLEST_EXPONENT = -100", "_SMALLEST_EXPONENT = -99", _CALIBRATORS),
    Place(_RULES, "_SMALLEST_EXPONENT = -100", "_SMALLEST_EXPONENT = -101", _CALIBRATORS),
    Place(_RULES, "counts[0] = counts[1]", "counts[0] = counts[0]", _CALIBRATORS),
    Place(_RULES, "if mantissa == 0.5 else exponent", "if mantissa < 0 else exponent", _CALIBRATORS),
    Place(_RULES, "percentile: float = 99.99", "percentile: float = 99.9",
          _CALIBRATORS),
    Place(_RULES, "num_zeros >= histogram.num_values * percentile",
          "num_zeros >= 2 * histogram.num_values * percentile", _CALIBRATORS),
    Place(_RULES, "power: float = 1.75", "power: float = 2.0", _CALIBRATORS),
    Place(_RULES, "_OCTAVES = 16", "_OCTAVES = 4", _CALIBRATORS),
    Place(_RULES, "for _ in range(3):", "for _ in range(1):", _CALIBRATORS),
    Place("calibrators/quantization_error.py", "LEVELS = 127", "LEVELS = 128", _CALIBRATORS),
    Place("calibrators/methods.py", "amax, amax / LEVELS / 2]", "amax, amax / LEVELS]", _CALIBRATORS),
    Place("calibrators/cache.py", "10_000 if major >= 10", "10_000 if major > 10",
          "calibrators/test_cache.py"),
    Place("calibrators/histogram.py", "_FOLDED_OCTAVES = 11", "_FOLDED_OCTAVES = 10",
          "calibrators/test_histogram.py"),
    # passes: how results are compared, when a schedule ends, limits of rewrites
    Place(_REFERENCE, "_ENOUGH = 2", "_ENOUGH = 1", _COMPARED),
    Place(_REFERENCE, "_DRAWS = 2", "_DRAWS = 1", _COMPARED),
    Place(_REFERENCE, "_FEW_OPERATIONS = 1e9", "_FEW_OPERATIONS = 9e8", _COMPARED),
    Place(_REFERENCE, "_MACS_PER_PARAMETER = 20", "_MACS_PER_PARAMETER = 15", _COMPARED),
    Place(_AGREEMENT, "_FEW = 0.02", "_FEW = 0.2", _COMPARED),
    Place(_AGREEMENT, "_STEPS_NORM = 0.05", "_STEPS_NORM = 0.5", _COMPARED),
    Place(_AGREEMENT, "_COARSE_NORM = 0.1", "_COARSE_NORM = 0.5", _COMPARED),
    Place(_AGREEMENT, "else 1024) * eps", "else 1 << 20) * eps", _COMPARED),
    Place("trtbuild/passes/driver.py", "_STRUCTURE_REPEATS = 3", "_STRUCTURE_REPEATS = 30",
          _LIMITS),
    Place("trtbuild/passes/rewrites/constant_folding.py", "_LARGEST_GROWTH = 1 << 20",
          "_LARGEST_GROWTH = 1 << 21", _LIMITS),
    Place("trtbuild/passes/rewrites/slices.py", "_NO_END = 2**31 - 1", "_NO_END = 2**31 - 2",
          _LIMITS),
    Place("trtbuild/passes/rewrites/layer_norm.py", "_FIRST_OPSET = 17", "_FIRST_OPSET = 16",
          _LIMITS),
    Place("trtbuild/passes/rewrites/qdq_repair.py", "_MIDDLE = 128", "_MIDDLE = 127",
          "trtbuild/passes/test_quantized.py"),
    Place("trtbuild/passes/rewrites/quantize_pairs.py", "_EXACT_BITS = 8", "_EXACT_BITS = 16",
          _LIMITS),
    Place(_SYMMETRIC, "_LARGEST = 127", "_LARGEST = 126", _LIMITS),
    Place(_SYMMETRIC, "_FIRST_OPSET = 13", "_FIRST_OPSET = 11", _LIMITS),
    Place(_SYMMETRIC, "_FIRST_HALF_OPSET = 19", "_FIRST_HALF_OPSET = 17",
          _LIMITS),
    Place(_SYMMETRIC, "amax / _LARGEST, 1.0)", "amax / _LARGEST, 0.0)", _LIMITS),
    Place("trtbuild/passes/editor.py", "_AXES_AS_OPERAND = 13", "_AXES_AS_OPERAND = 12", _LIMITS),
    # verification: intervals, figures, limits
    Place(_REFERENCE, "override=draw % 2 == 1", "override=False", _COMPARED),
    Place("trtbuild/verification/intervals.py", "CONFIDENCE = 0.95", "CONFIDENCE = 0.9",
          "trtbuild/verification/test_intervals.py"),
    Place(_METRICS, "SQNR_BINS_FROM_DB = -20", "SQNR_BINS_FROM_DB = -10",
          "trtbuild/verification/test_metrics.py"),
    Place(_METRICS, "NUM_SQNR_BINS = 121", "NUM_SQNR_BINS = 61",
          "trtbuild/verification/test_metrics.py"),
    Place(_METRICS, "top_k: int = 5", "top_k: int = 4", "trtbuild/verification/test_metrics.py"),
    Place(_METRICS, "num_worst: int = 10", "num_worst: int = 9", "trtbuild/verification/test_metrics.py"),
    Place(_METRICS, 'kind="stable"', 'kind="quicksort"', "trtbuild/verification/test_metrics.py"),
    Place(_METRICS, "atol=1e-3", "atol=1e-1", "trtbuild/verification/test_metrics.py"),
    Place("trtbuild/verification/gate.py", "passed = count == 0", "passed = True",
          "trtbuild/verification/test_compare.py"),
    Place("trtbuild/verification/gate.py", "not estimate.low < limit < estimate.high", "True",
          "trtbuild/verification/test_compare.py"),
    Place("trtbuild/verification/gate.py", "else limit - estimate.value", "else limit - estimate.low",
          "trtbuild/verification/test_compare.py"),
    # where Q/DQ go, how far scales reach, and when layers are named
    Place("trtbuild/quantization/tensorrt_placement.py", "(depth[_producer_name(node.inputs[i])], -i)", "-i",
          "trtbuild/quantization/test_groups.py"),
    Place("trtbuild/quantization/scale_propagation.py", "_RELU and not source.is_graph_output())", "_RELU)",
          "trtbuild/migration/test_migration.py"),
    Place("trtbuild/verification/parts.py", "_HARDLY = 1e-6", "_HARDLY = 2e-6",
          "trtbuild/verification/test_ruling.py"),
    Place("trtbuild/verification/ruling.py", "FAR_SQNR_DB = 20.0", "FAR_SQNR_DB = 19.0",
          "trtbuild/test_layers_at_fault.py"),
    Place("trtbuild/jobs/diagnosis.py", "found.worst_sqnr_db >= FAR_SQNR_DB",
          "found.worst_sqnr_db > FAR_SQNR_DB", "trtbuild/test_layers_at_fault.py"),
    Place("trtbuild/jobs/engine.py", "kept_apart=recipe.calibration is None", "kept_apart=True",
          "trtbuild/report/test_engine.py"),
    Place("trtbuild/model/digests.py", "(node.domain, node.op_type))", "(node.op_type,))",
          "trtbuild/model/test_digests.py"),
    Place("trtbuild/model/digests.py", "kind = (node.domain, node.op_type)", "kind = (node.op_type,)",
          "trtbuild/model/test_digests.py"),
    # the search: its margins, and the gain of a group
    Place("trtbuild/search/score.py", "value=(estimate.value + worse) / 2)", "value=estimate.value)",
          "trtbuild/search/test_search.py"),
    Place("trtbuild/search/sensitivity.py", "(score(without, gate) - base) / cost(group.name)",
          "score(without, gate) - base", "trtbuild/search/test_search.py"),
    Place("trtbuild/search/channels/choice.py", "scale = np.maximum(tried, least)", "scale = tried",
          "trtbuild/search/test_channel_scaling.py"),
    Place("trtbuild/search/channels/sites.py", "(value, None) if limit is None else (before, limit)",
          "before, None", "trtbuild/search/test_channel_scaling.py"),
    Place("trtbuild/search/score.py", "_LOST_SHARE_OF_CHANGED = 0.25", "_LOST_SHARE_OF_CHANGED = 0.5",
          "trtbuild/search/test_search.py"),
    Place("trtbuild/verification/label_check.py", "_CONFIDENCE = 0.99", "_CONFIDENCE = 0.5",
          "trtbuild/verification/test_label_check.py"),
    Place("trtbuild/verification/label_check.py", "_SURELY_BETTER = 2.0", "_SURELY_BETTER = 1.0",
          "trtbuild/verification/test_label_check.py"),
    # latency
    Place(_MEASURE, "CONFIDENCE = 0.995", "CONFIDENCE = 0.95", "trtbuild/latency/test_regress.py"),
    Place("trtbuild/options/measure.py", "DEFAULT_MARGIN_PERCENT = 2.0", "DEFAULT_MARGIN_PERCENT = 5.0",
          "trtbuild/latency/test_regress.py"),
    Place(_REGRESS, "PLACEMENT = 0.005", "PLACEMENT = 0.0035", "trtbuild/latency/test_regress.py"),
    Place(_REGRESS, "max(noise, PLACEMENT)", "noise", "trtbuild/latency/test_regress.py"),
    Place("trtbuild/files.py", "files.sort(key=lambda file: file.name == last)", "files.sort()",
          "trtbuild/test_files.py"),
    Place("trtbuild/jobs/engine.py", "staged_files(output, last=manifest_name(artifact.name))",
          "staged_files(output)", "trtbuild/test_files.py"),
    Place("trtbuild/machine.py", "os.cpu_count() or 1", "1", "trtbuild/test_machine.py"),
    Place(_REGRESS, "_NUM_SEGMENTS = 10", "_NUM_SEGMENTS = 2", "trtbuild/latency/test_regress.py"),
    Place(_REGRESS, "1 - (1 - one.confidence) / 2", "one.confidence", "trtbuild/latency/test_regress.py"),
    Place(_MEASURE, "_LOOKS = (0.125, 0.25, 0.4)", "_LOOKS = (0.25, 0.4)",
          "trtbuild/latency/test_in_a_build.py"),
    Place(_MEASURE, "_TURN_MS = 4.0", "_TURN_MS = 5.0", "trtbuild/latency/test_measure.py"),
    Place(_MEASURE, "_MAX_RUNS_PER_TURN = 64", "_MAX_RUNS_PER_TURN = 640",
          "trtbuild/latency/test_measure.py"),
    Place(_MEASURE, "_LEAST_WARM_UP_RUNS = 3", "_LEAST_WARM_UP_RUNS = 1", "trtbuild/latency/test_measure.py"),
    Place(_MEASURE, "size, min(size - 1, 1))", "size, 0)", "trtbuild/latency/test_measure.py"),
    Place(_MEASURE, "if round_number % 2 else rotated", "if round_number < 0 else rotated",
          "trtbuild/latency/test_measure.py"),
    Place(_MEASURE, "start = (round_number // 2) % len(names)", "start = 0",
          "trtbuild/latency/test_measure.py"),
    Place("trtbuild/latency/stats.py", "share * len(ordered) - 1e-9", "share * len(ordered)",
          "trtbuild/latency/test_stats.py"),
    # data held in memory, records, moves, the portable form
    Place("trtbuild/data/replay.py", "self._is_first = True",
          "self._is_first = False", "trtbuild/data/test_passes.py"),
    Place("trtbuild/data/replay.py", "self._num_bytes <= MOST_HELD_BYTES",
          "self._num_bytes >= 0", "trtbuild/data/test_passes.py"),
    Place("trtbuild/json_codec.py", "_MOST_COUNT = 2**63",
          "_MOST_COUNT = 2**64", "trtbuild/test_json_codec.py"),
    Place("trtbuild/search/measured.py", "np.sqrt(errors).sum() < np.sqrt(before).sum()",
          "errors.sum() < before.sum()", "trtbuild/search/test_improve.py"),
    Place("trtbuild/search/measured.py", "before.sum() * (1.0 - gain)",
          "before.sum()", "trtbuild/search/test_improve.py"),
    Place("trtbuild/search/portable/choose.py", "_NEAR = 10**0.1",
          "_NEAR = 10**9", "trtbuild/search/test_portable_choice.py"),
    Place("trtbuild/search/portable/choose.py", "_SHARES_IN_FLOAT = (0.25, 0.5)",
          "_SHARES_IN_FLOAT = ()", "trtbuild/search/test_portable_choice.py"),
    Place("trtbuild/search/portable/choose.py", "key=lambda one: one.error",
          "key=lambda one: -one.error", "trtbuild/search/test_portable_choice.py"),
    Place("trtbuild/search/portable/choose.py", "_ROOMS = (2.0, 1.5, 1.25)", "_ROOMS = (2.0, 1.25)",
          "trtbuild/search/test_portable_choice.py"),
    Place("trtbuild/search/portable/choose.py", "_ROOMS = (2.0, 1.5, 1.25)", "_ROOMS = (1.5, 1.25)",
          "trtbuild/search/test_portable_choice.py"),
    Place("trtbuild/search/steps.py", "_WIDER = (1.1, 1.2)", "_WIDER = (1.1, 1.3)",
          "trtbuild/search/test_improve.py"),
    Place("trtbuild/search/steps.py", "_SAME_RANGE = 0.03", "_SAME_RANGE = 0.028",
          "trtbuild/search/test_single_ranges.py"),
    Place("trtbuild/jobs/diagnosis.py", "_CLEARLY_DB = 3.0", "_CLEARLY_DB = 2.0",
          "trtbuild/search/test_single_ranges.py"),
    Place("trtbuild/jobs/next_step.py", "_FEW_SAMPLES = 20", "_FEW_SAMPLES = 21",
          "trtbuild/test_next_step.py::test_a_share_of_few_samples_is_no_figure_for_a_limit"),
    Place("trtbuild/search/improve.py", 'search.take("wider ranges"',
          'search.best or search.take("wider ranges"', "trtbuild/search/test_improve.py"),
    # calibration data: thresholds for far, enough, lost, repeated, saturated, and equally good
    Place("calibrators/cache.py", "_TURNED = 0.9", "_TURNED = 0.3", "calibrators/test_cache.py"),
    Place("trtbuild/calibration/advice.py", "\nFAR = 1.5", "\nFAR = 3.0",
          "trtbuild/calibration/test_advice.py"),
    Place("trtbuild/calibration/instability.py", "HARMLESS_DB = 0.5", "HARMLESS_DB = 0.7",
          "trtbuild/calibration/test_advice.py"),
    Place("trtbuild/calibration/early_stopping.py", "_FIRST_LOOK = 64", "_FIRST_LOOK = 32",
          "trtbuild/calibration/test_command.py"),
    Place("trtbuild/calibration/shards.py", "_ATTEMPTS = 3", "_ATTEMPTS = 2",
          "trtbuild/calibration/test_processes.py"),
    Place("trtbuild/data/split.py", "HELD_OUT_SHARE = 0.05", "HELD_OUT_SHARE = 0.1",
          "trtbuild/data/test_split.py"),
    Place("trtbuild/data/account.py", "_MOST_REPEATED = 0.5", "_MOST_REPEATED = 0.9",
          "trtbuild/data/test_account.py"),
    Place("trtbuild/data/account.py", "_SATURATED = 0.98", "_SATURATED = 0.9",
          "trtbuild/data/test_account.py"),
    # the warning about an engine far below its form, masks, FP16, the page, exported modules
    Place("trtbuild/result.py", "GAP_DB = 6.0", "GAP_DB = 5.8", "trtbuild/test_two_forms.py::"
          "test_an_engine_is_below_its_form_by_a_bit_and_where_int8_is_usually_better"),
    Place("trtbuild/result.py", "GOOD_SQNR_DB = 30.0", "GOOD_SQNR_DB = 31.0", "trtbuild/test_two_forms.py::"
          "test_an_engine_is_below_its_form_by_a_bit_and_where_int8_is_usually_better"),
    Place("trtbuild/quantization/masks.py", "MASKING = -1000.0", "MASKING = -1001.0",
          "trtbuild/quantization/test_masks.py"),
    Place("trtbuild/quantization/half.py", "HEADROOM = 4.0", "HEADROOM = 3.9",
          "trtbuild/quantization/test_half.py"),
    Place("trtbuild/report/html.py", "_MOST_ROWS = 500", "_MOST_ROWS = 600", "trtbuild/report/test_html.py"),
    Place("trtbuild/pytorch/parity.py", "_SLACK = 8.0", "_SLACK = 1e4", "trtbuild/pytorch/test_export.py"),
    Place("trtbuild/pytorch/sparsity.py", "WORTH_CHANNELS = 256", "WORTH_CHANNELS = 128",
          "trtbuild/pytorch/test_sparsity.py"),
    # the batch size for Triton, parts of outputs, times of layers, moves
    Place("trtbuild/jobs/triton.py", "_LARGEST_BATCH = 8", "_LARGEST_BATCH = 16",
          "trtbuild/cli/test_export_triton.py"),
    Place("trtbuild/model/parts.py", "_MOST_PARTS = 16", "_MOST_PARTS = 32", "trtbuild/model/test_parts.py"),
    Place("trtbuild/latency/layer_times.py", "_DROPPED = 0.25", "_DROPPED = 0.0",
          "trtbuild/latency/test_layer_times.py"),
    Place("trtbuild/pytorch/prune/widths.py", "_FAR = 0.15", "_FAR = 0.17",
          "trtbuild/pytorch/test_prune_channels.py"),
    Place("trtbuild/search/improve.py", "_MOST_LOSS = 0.1", "_MOST_LOSS = 0.12",
          "trtbuild/search/test_improve.py"),
    Place("trtbuild/search/improve.py", "_LEAST_GAIN = 0.03", "_LEAST_GAIN = 0.01",
          "trtbuild/search/test_improve.py"),
    Place("trtbuild/search/improve.py", "_LEAST_FLOAT_GAIN = 0.2", "_LEAST_FLOAT_GAIN = 0.1",
          "trtbuild/search/test_float_share.py"),
    Place("trtbuild/search/improve.py", "_LEFT_FOR_THE_LAST = 1 / 3", "_LEFT_FOR_THE_LAST = 1 / 4",
          "trtbuild/search/test_improve.py"),
    Place("trtbuild/search/improve.py", "images = self._images.with_unasked(",
          "images = self._images or self._images.with_unasked(", "trtbuild/search/test_float_share.py"),
    Place("trtbuild/search/improve.py", "_LEAST_AGREEING = 2 / 3", "_LEAST_AGREEING = 1 / 3",
          "trtbuild/search/test_float_share.py"),
    # judges of tasks
    Place("trtbuild/verification/tasks/detect.py", "SAME_OBJECT_IOU = 0.5", "SAME_OBJECT_IOU = 0.6",
          "trtbuild/verification/test_tasks.py"),
    Place("trtbuild/verification/tasks/detect.py", "MAX_IOU = 0.45", "MAX_IOU = 0.5",
          "trtbuild/verification/test_tasks.py"),
    Place("trtbuild/verification/tasks/segment.py", "MIN_SCORE = 0.5", "MIN_SCORE = 0.4",
          "trtbuild/verification/test_tasks.py"),
    Place("trtbuild/verification/tasks/coco.py", "_MOST_BOXES = 100", "_MOST_BOXES = 110",
          "trtbuild/verification/test_coco.py"),
    Place("trtbuild/verification/tasks/restore.py", "_LEAST_CORRELATION = 0.7", "_LEAST_CORRELATION = 0.6",
          "trtbuild/verification/test_task_choice.py"),
    Place("trtbuild/verification/ruling.py", "_LEAST_SQNR_DB = 3.0", "_LEAST_SQNR_DB = 2.5",
          "trtbuild/verification/test_ruling.py"),
    # the layers of a pruned network that get new weights, and how near these are to the old ones
    Place(_RESTORE, "_RIDGE = 1e-3", "_RIDGE = 2e-3", _EXPLICIT),
    Place(_RESTORE, "if times[path] == 1", "if times[path] >= 1", _EXPLICIT),
    Place(_RESTORE, "and not has_hooks(layer)", "and True", _EXPLICIT),
    Place("trtbuild/pytorch/prune/replay.py", "old is new and then == now", "then == now",
          "trtbuild/pytorch/test_replay.py"),
    Place(_RESTORE, "before is None or before == known", "True", _EXPLICIT),
)  # fmt: skip
"""The changes that the tests must notice."""


def problems_of(place: Place, root: Path = ROOT) -> list[str]:
    """Return why `place` cannot be tried: its text is not there exactly once, or its test file is missing."""
    path = root / place.file
    found = path.read_text(encoding="utf-8").count(place.text) if path.is_file() else 0
    problems = (
        [] if found == 1 else [f"{place.file}: '{place.text}' is there {found} times, not once"]
    )
    if not (root / "tests" / place.tests.partition("::")[0]).is_file():
        problems.append(f"{place.file}: there is no tests/{place.tests}")
    return problems


def copy_of_project(folder: Path) -> Path:
    """Copy the files that the tests need into `folder`, without caches; return the copy."""
    target = folder / "project"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for name in COPIED_FILES:
        shutil.copy(ROOT / name, target / name)
    return target


def is_seen(place: Place, project: Path) -> bool:
    """Return whether the tests of `place` fail in `project` after the change.

    Raises:
        RuntimeError: pytest could not run them.
    """
    path = project / place.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(place.text, place.replacement), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{place.tests}"],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1",
                 "TRTBUILD_SHARED": str(ROOT.parent / "shared")},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"tests/{place.tests} do not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def main(words: list[str]) -> int:
    """Try all places, or those with one of `words`; print a line for each; return the exit code."""
    places = [p for p in PLACES if not words or any(w in p.file or w in p.text for w in words)]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        project = copy_of_project(Path(folder))
        for place in places:
            problems = problems_of(place)
            seen = not problems and is_seen(place, project)
            failures += not seen
            verdict = "seen  " if seen else "stale " if problems else "UNSEEN"
            print(
                f"{verdict} {place.file}: {place.text} -> {place.replacement}",
                *problems,
                flush=True,
            )
    print(f"{len(places) - failures} of {len(places)} changes are seen")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
