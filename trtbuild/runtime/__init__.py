"""Runs networks and engines: one session protocol, and its implementations."""
