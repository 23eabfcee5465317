"""Ranges chosen by what they do to the outputs: `choose` is the stage, the others are what it measures by."""
