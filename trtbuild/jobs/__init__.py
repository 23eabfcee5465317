"""The jobs of commands and scripts, one per file: each runs the stages in order and returns one result."""
