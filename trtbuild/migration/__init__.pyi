"""The public names, and where each comes from."""

__all__: list[str]

from .report import Entry as Entry
from .report import Fate as Fate
from .report import Migration as Migration
from .to_cache import to_cache as to_cache
from .to_qdq import check_fits as check_fits
from .to_qdq import tensor_names as tensor_names
from .to_qdq import to_qdq as to_qdq
