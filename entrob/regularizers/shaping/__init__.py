"""Regularizers that reshape advantages, the weights of samples, or their clip ranges."""

#: Factories in the order in which they are listed.
FACTORIES = ()
