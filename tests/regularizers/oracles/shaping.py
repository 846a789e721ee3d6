"""Reshaped advantages, weights and clip ranges by their definitions."""

ORACLES = {}
