"""Regularizers that reshape advantages, the weights of samples, or their clip ranges."""

from entrob.regularizers.shaping.clip_cov import clip_cov
from entrob.regularizers.shaping.kl_cov import kl_cov
from entrob.regularizers.shaping.steer import steer

#: Factories in the order in which they are listed.
FACTORIES = (clip_cov, kl_cov, steer)
