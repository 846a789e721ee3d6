"""Action distributions: what a policy is at one observation."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Categorical:
    """A distribution over A discrete actions.

    Attributes:
      logits: float32[..., A], unnormalized log-probabilities.
    """

    logits: jax.Array

    @property
    def log_probs(self) -> jax.Array:
        """float32[..., A], log π(a)."""
        return jax.nn.log_softmax(self.logits)

    @property
    def probs(self) -> jax.Array:
        """float32[..., A], π(a)."""
        return jax.nn.softmax(self.logits)

    def sample(self, key: jax.Array) -> jax.Array:
        """One action per distribution: int32[...]."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """log π(action): float32[...] for int32[...] actions."""
        return jnp.take_along_axis(self.log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Entropy in nats, in [0, log A]: float32[...]."""
        log_probs = self.log_probs
        # An action of probability 0 adds 0, also where its logit is -inf.
        return -jnp.sum(jnp.where(log_probs > -jnp.inf, jnp.exp(log_probs) * log_probs, 0.0), -1)

    def kl(self, other: "Categorical") -> jax.Array:
        """KL(self ‖ other) in nats: float32[...]."""
        return jnp.sum(self.probs * (self.log_probs - other.log_probs), -1)
