"""Plots: what they show, as data, and SVG text made of it."""
