"""Regularizers that add a bonus to the reward."""

from entrob.regularizers.intrinsic.state_entropy import state_entropy

#: Factories in the order in which they are listed.
FACTORIES = (state_entropy,)
