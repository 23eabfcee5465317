"""Tiny networks by name, as ONNX text: all peculiarities of users' files.

Every one must become INT8; tests go through all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.networks import bodies, convolutions, joins, linear, old, readings

if TYPE_CHECKING:
    from tests.networks.network import Network

__all__ = ["NETWORKS"]

NETWORKS: dict[str, Network] = {
    **readings.NETWORKS,
    **convolutions.NETWORKS,
    **joins.NETWORKS,
    **linear.NETWORKS,
    **old.NETWORKS,
    **bodies.NETWORKS,
}
