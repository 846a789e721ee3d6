"""What an update learns from: a rollout, its context, and the network's output on a batch.

Agents make them, regularizers read them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from entrob.distributions import Categorical, Distribution
from entrob.estimators.counting import Neighbors


class Finite(NamedTuple):
    """Tables of an environment with few states, S of them, time apart.

    Attributes:
      observations: [U, ...], what states look like; those that look the same may share one.
      view: int32[S], which of the observations a state gives.
      features: float32[S, q], entropy features.
      neighbors: sorted distances between the features.
    """

    observations: jax.Array
    view: jax.Array
    features: jax.Array
    neighbors: Neighbors

    def of_states(self, table: Any, index: Any) -> Any:
        """What a table over the observations, leaves [U, ...], says of states int32[...]."""
        return jax.tree.map(lambda x: x[self.view[index]], table)


class Context(struct.PyTreeNode):
    """What all steps of a rollout have in common.

    Attributes:
      progress: float32[], fraction of training done, in [0, 1).
      gamma: float32[], the agent's discount.
      reward_scale: float32[], what rewards were divided by; 1 without normalization. Where
        environments have statistics of their own float32[N], as they are after the rollout, and
        the mean of these in hooks that see minibatches.
      trust: float32[] in [0, 1], what PPO multiplies its standardized advantages by, see
        `entrob.agents.estimate.trust`; 1 until known.
      finite: the tables that `Rollout.index` points into, or None.
    """

    progress: jax.Array | float
    gamma: jax.Array | float
    reward_scale: jax.Array | float = 1.0
    trust: jax.Array | float = 1.0
    finite: Finite | None = None

    def of_minibatches(self) -> "Context":
        """The same for steps of which it is not known whose they are."""
        if jnp.ndim(self.reward_scale) == 0:
            return self
        return self.replace(reward_scale=jnp.mean(self.reward_scale))


class Rollout(struct.PyTreeNode):
    """T steps of N environments, as the regularizers of one run see them.

    Attributes:
      obs: [T, N, ...], observations the actions were chosen on; standardized where environments
        have statistics of their own.
      features: float32[T, N, q], the environment's entropy features of the same states.
      time: int32[T, N], steps since the episode began.
      action: int32[T, N], or raw float32[T, N, d] (see `entrob.distributions`).
      log_prob: float32[T, N], log-probability of the action under the behavior policy.
      value: float32[T, N].
      reward: float32[T, N], the environment's, in units of ``context.reward_scale``.
      terminated, truncated: bool[T, N], after the step.
      success: bool[T, N], whether the step ended in success.
      advantage: float32[T, N], zero until the advantages are known.
      target: float32[T, N], what the value function is fitted to; zero until known.
      dist: distribution over actions of the policy, batch shape [T, N], before any `behavior`.
      context: what all steps have in common.
      clip_low, clip_high: float32[B], PPO's clip range so far, [1 - low, 1 + high] for the ratio;
        known to `surrogate` only, which returns it as it is if it does not change it.
      index: int32[T, N] or None, state index where the environment is finite.
      notes: what the regularizer's own `prepare` returned, leaves [T, N, ...].
      acted: bool[T, N], whether the action was executed and not another player's; None: always.
    """

    obs: Any
    features: jax.Array
    time: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    success: jax.Array
    advantage: jax.Array
    target: jax.Array
    dist: Distribution
    context: Context
    clip_low: jax.Array | None = None
    clip_high: jax.Array | None = None
    index: jax.Array | None = None
    notes: Any = None
    acted: jax.Array | None = None

    @property
    def executed(self) -> jax.Array:
        """bool[T, N], `acted` where there is another player, True elsewhere."""
        return jnp.ones_like(self.reward, bool) if self.acted is None else self.acted

    def with_context(self, **fields: Any) -> "Rollout":
        """The same steps, some fields of whose `Context` are replaced."""
        return self.replace(context=self.context.replace(**fields))


class PolicyOutput(NamedTuple):
    """The network on a batch, and the means to evaluate it elsewhere.

    Attributes:
      dist: distribution over actions, batch shape [B].
      value: float32[B].
      params: the network's parameters.
      apply: ``(params, obs) -> (dist, value)``.
    """

    dist: Distribution
    value: jax.Array
    params: Any
    apply: Callable[[Any, Any], tuple[Distribution, jax.Array]]

    @property
    def logits(self) -> jax.Array:
        """float32[B, A], for discrete actions; an AttributeError for others."""
        if not isinstance(self.dist, Categorical):
            raise AttributeError("actions that are not discrete have no logits")
        return self.dist.logits

    def at(self, obs: jax.Array) -> "PolicyOutput":
        """The policy on other observations [B', ...]; a recurrent one needs B' = B."""
        dist, value = self.apply(self.params, obs)
        return self._replace(dist=dist, value=value)
