"""Adapted coefficients and temperatures by their definitions."""

ORACLES = {}
