"""Scales the channels of a tensor to one range: where (`sites`), by how much (`choice`), how (`scaling`)."""
