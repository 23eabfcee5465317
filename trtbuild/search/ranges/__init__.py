"""Chooses ranges by their effect on the outputs: `choose` is the stage, the other modules serve it."""
