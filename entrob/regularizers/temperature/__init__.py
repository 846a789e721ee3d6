"""Regularizers that adapt a coefficient or the temperature that actions are drawn at."""

#: Factories in the order in which they are listed.
FACTORIES = ()
