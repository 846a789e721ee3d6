"""Regularizers that add a term to the loss."""

from entrob.regularizers.losses.policy_entropy import policy_entropy

#: Factories in the order in which they are listed.
FACTORIES = (policy_entropy,)
