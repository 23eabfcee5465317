"""Compares two engines or Q/DQ networks of one model, node by node: facts of nodes, matching, differences."""
