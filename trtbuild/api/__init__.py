"""The calls for scripts and notebooks: keyword arguments become a recipe, and one job runs.

`build` and `quantize` are in `trtbuild.api.build`, `compress` in `trtbuild.api.compress`; users import them
from `trtbuild`, like the jobs that take a recipe.
"""
