"""Wrappers: environments of subclasses with more params or state, see `entrob.envs.widening`."""

from entrob.envs.wrappers.disturbance import with_disturbance
from entrob.envs.wrappers.noise import Noise, NoisyEnvironment, with_noise

__all__ = ["Noise", "NoisyEnvironment", "with_disturbance", "with_noise"]
