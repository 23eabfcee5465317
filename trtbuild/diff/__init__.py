"""Two engines or Q/DQ networks of one model, node by node: what each knows, who is whom, what differs."""
