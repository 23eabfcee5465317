"""What the other packages ask of a network, and where each name comes from."""

__all__: list[str]

from .digests import graph_digest as graph_digest
from .digests import weights_digest as weights_digest
from .reading import name_nodes as name_nodes
from .reading import read_model as read_model
from .reading import read_unchanged as read_unchanged
from .reading import repairs_of as repairs_of
from .reading import weight_files as weight_files
from .signature import fixed_batch as fixed_batch
from .signature import input_specs as input_specs
from .signature import output_specs as output_specs
from .signature import say_batch_axes as say_batch_axes
from .signature import signature_as_said as signature_as_said
from .signature import static_batch as static_batch
from .signature import with_batch_axes as with_batch_axes
from .writing import model_bytes as model_bytes
from .writing import num_weight_bytes as num_weight_bytes
from .writing import temporary_file as temporary_file
from .writing import write_model as write_model
