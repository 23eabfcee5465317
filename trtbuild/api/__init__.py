"""The calls for scripts and notebooks: keyword arguments become a recipe, and one job is done.

`build` and `quantize` stand in `trtbuild.api.build`, `compress` in `trtbuild.api.compress`; users import them
from `trtbuild`, as they do the jobs that take a recipe.
"""
