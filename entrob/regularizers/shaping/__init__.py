"""Regularizers that reshape advantages, the weights of samples, or their clip ranges."""

from entrob.regularizers.shaping.agentic_aepo import agentic_aepo
from entrob.regularizers.shaping.clip_cov import clip_cov
from entrob.regularizers.shaping.ear import ear
from entrob.regularizers.shaping.empg import empg
from entrob.regularizers.shaping.hapo import hapo
from entrob.regularizers.shaping.kl_cov import kl_cov
from entrob.regularizers.shaping.self_imitation import self_imitation
from entrob.regularizers.shaping.steer import steer

#: Factories in the order in which they are listed.
FACTORIES = (clip_cov, kl_cov, steer, empg, hapo, ear, agentic_aepo, self_imitation)
