"""The public names, and where each comes from."""

__all__: list[str]

from .cache import to_cache as to_cache
from .qdq import check_fits as check_fits
from .qdq import tensor_names as tensor_names
from .qdq import to_qdq as to_qdq
from .report import Entry as Entry
from .report import Fate as Fate
from .report import Migration as Migration
