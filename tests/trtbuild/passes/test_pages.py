"""The page of passes, the list, and the docstrings that they are made from."""

from __future__ import annotations

import re
from pathlib import Path

from tools.write_passes_page import passes_page
from trtbuild.passes import all_passes
from trtbuild.passes.catalogue import ALIASES, aliases_of
from trtbuild.passes.selection import select

DOCS = Path(__file__).resolve().parents[3] / "docs"

CATALOGUE = [
    "RemoveUnusefulOp", "RemoveDropout", "eliminate_noop", "TensorConverterSameMerge",
    "Slice_Elimination", "Expand_Elimination", "eliminate_pooling1x1", "RemoveOutputTensorConvert",
    "Unsqueeze_Elimination", "eliminate_orphaned_memorydata", "eliminate_reshape_before_binaryop",
    "eliminate_reshape_after_global_pooling", "eliminate_flatten_after_global_pooling",
    "eliminate_flatten_after_innerproduct", "RemoveDuplicateReshape", "RemoveDuplicatedTensorConvert",
    "EliminateSqueezeExpandDims", "RemoveInverseTensorConverter", "EliminateQuantAndDequant",
    "Concat_Slice_Elimination", "Common_Subexpression_Elimination", "ConvBiasAdd",
    "MergeBNToConvolution", "MergeScaleToConvolution", "Conv_Mul_Fusion", "Matmul_Add_Fusion",
    "Matmul_Scale_Fusion", "fuse_batchnorm_scale", "fuse_innerproduct_batchnorm",
    "fuse_innerproduct_add", "MergeReluToConvolution", "MergeRelu6ToConvolution",
    "Conv_Activate_Fusion", "ConstantFolding", "FoldExpandDimsConst", "fuse_memorydata_binaryop",
    "FuseLayerNorm", "FuseTfPrelu", "Matmul_transpose_Fusion", "fuse_binaryop_eltwise",
    "replace_reduction_with_global_pooling", "ConvertMatMulToConv2D", "TransformInnerProduct",
    "TransformBatchNormal", "replace_prelu_with_leaky_relu",
    "replace_convolution_with_innerproduct_after_global_pooling",
    "replace_convolution_with_innerproduct_after_innerproduct", "TransformShuffleChannel",
    "TransformOnnxPad", "ResolveTfShapeN", "TransformGroupConvolution", "AddTensorFormatConverter",
    "TurnCompabilityOpAsNC4HW4", "RemoveInplace", "ConvertBinaryToElementwise", "BinaryAddToEltWise",
    "TurnBinaryToElementwise", "Transformer_Memcpy", "ConvBNReluFuseToConvInt8", "LSTMWeightInt8",
    "Conv1dQuantToConv2dQuant",
]  # fmt: skip


def test_all_61_passes_of_the_catalogue_are_there():
    assert len(CATALOGUE) == 61
    for name in CATALOGUE:
        default, on_request = select(all_passes(), only=[name])
        assert default + on_request, name


def test_every_alias_means_one_pass():
    ours = [item.name for item in all_passes()]
    aliases = [alias for names in ALIASES.values() for alias in names.values()]
    assert len({*ours, *aliases}) == len(ours) + len(aliases)
    for names in ALIASES.values():
        for name, alias in names.items():
            default, on_request = select(all_passes(), only=[alias])
            assert name in [item.name for item in default + on_request]


def test_names_are_verb_object():
    for item in all_passes():
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", item.name)
        assert type(item).__name__.lower() == item.name.replace("_", "")


def test_page_shows_both_names():
    page = (DOCS / "passes.md").read_text(encoding="utf-8")
    for item in all_passes():
        section = page.split(f"### {item.name}\n")[1].split("###")[0]
        for tool, alias in aliases_of(item.name).items():
            assert f"`{alias}` ({tool})" in section


def test_docstrings_name_the_source_that_the_catalogue_has():
    for item in all_passes():
        source = item.describe().source.lower().replace("_", " ")
        for tool, alias in aliases_of(item.name).items():
            known = f"{tool} ``{alias.split('.')[0].replace('_', ' ')}``".lower()
            assert tool == "trtbuild before 0.1" or known in source, item.name


def test_docstrings_say_everything():
    for item in all_passes():
        text = item.describe()
        for field in ("summary", "pattern", "conditions", "effect", "source"):
            assert len(getattr(text, field)) > 3, (item.name, field)
        assert text.summary.endswith("."), item.name
        assert item.opt_in or item.exact, item.name


def test_page_is_up_to_date():
    page = (DOCS / "passes.md").read_text()
    assert page == passes_page(all_passes()), (
        "run python tools/write_passes_page.py > docs/passes.md"
    )
