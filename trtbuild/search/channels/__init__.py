"""Channels of a tensor brought to one range: where (`sites`), by how much (`choice`), and how (`scaling`)."""
