"""What a user can ask for, as frozen dataclasses whose fields describe themselves.

`fields` is how a field is described, `values` how tables (of a file, of the command line) become instances
and the way back; the other files hold the options of one subject each. Nothing here needs onnx, onnx_ir,
onnxruntime or NumPy at import time, so that ``--help`` is fast.
"""
