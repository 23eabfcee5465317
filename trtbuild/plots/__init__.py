"""Plots as data, and SVG text made from it."""
