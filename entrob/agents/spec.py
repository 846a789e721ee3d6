"""What is fixed about an agent when it is compiled, and what may vary between its runs."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from entrob.agents.networks import MLP, MiniGridNetwork
from entrob.envs.minigrid import MiniGrid
from entrob.errors import EntrobError
from entrob.estimators.counting import Neighbors, neighbors
from entrob.regularizers.protocol import Chain


class Spec(NamedTuple):
    """The static part of an agent: runs that share it share one compiled program.

    Attributes:
      env: gymnax environment.
      regularizer: a `Chain`.
      network: flax module, observation -> (logits, value); `None` picks the paper's.
      algorithm: ``"a2c"`` or ``"ppo"``.
      num_envs: environments per run (N).
      num_steps: steps per update (T).
      epochs, minibatches: passes over a rollout and pieces it is cut into; 1 and 1 for A2C.
      tabulate: evaluate the network once per distinct state where the environment is finite.
    """

    env: Any
    regularizer: Chain
    network: nn.Module | None = None
    algorithm: str = "a2c"
    num_envs: int = 8
    num_steps: int = 100
    epochs: int = 1
    minibatches: int = 1
    tabulate: bool = True

    @property
    def frames_per_update(self) -> int:
        return self.num_envs * self.num_steps


@struct.dataclass
class Hyper:
    """The swept part of an agent: every field is a traced leaf. Defaults are the paper's A2C.

    Attributes:
      learning_rate: float32[].
      gamma: float32[], discount, in [0, 1).
      gae_lambda: float32[], in [0, 1].
      value_coef: float32[], weight of the value loss.
      max_grad_norm: float32[], bound of the global gradient norm.
      clip: float32[], PPO's clip range.
      total_updates: int32[], length of training; schedules run over it.
      coefs: coefficient of each regularizer of the chain, by name.
    """

    learning_rate: jax.Array = 1e-3
    gamma: jax.Array = 0.99
    gae_lambda: jax.Array = 0.95
    value_coef: jax.Array = 0.5
    max_grad_norm: jax.Array = 0.5
    clip: jax.Array = 0.2
    total_updates: jax.Array = 3750
    coefs: dict[str, jax.Array] = struct.field(default_factory=dict)


class Finite(NamedTuple):
    """Tables of an environment with few states, S of them, time apart.

    Attributes:
      observations: [S, ...].
      features: float32[S, q], entropy features.
      neighbors: sorted distances between the features.
    """

    observations: jax.Array
    features: jax.Array
    neighbors: Neighbors


def tabulate(spec: Spec, params: Any) -> Finite | None:
    """The tables of a finite environment, or None where it is not (or need not be) finite.

    A finite environment says ``finite = True`` and has ``states(params)`` and
    ``state_index(state)``; its observations depend on nothing but the index and the params.
    """
    if not (spec.tabulate and getattr(spec.env, "finite", False)):
        return None
    states = spec.env.states(params)
    observations = jax.vmap(lambda s: spec.env.get_obs(s, params))(states)
    features = jax.vmap(lambda s: spec.env.entropy_features(s, params))(states)
    return Finite(observations, features, neighbors(features))


def default_network(env: Any, params: Any) -> nn.Module:
    """The paper's network for images of MiniGrid, an MLP for vectors.

    Raises:
      EntrobError: the environment's actions are not discrete.
    """
    action_space = env.action_space(params)
    if not isinstance(action_space, spaces.Discrete):
        raise EntrobError(f"{env.name}: this agent needs discrete actions")
    shape = env.observation_space(params).shape
    if isinstance(env, MiniGrid) or len(shape) == 3:
        return MiniGridNetwork(action_space.n)
    return MLP(action_space.n)


def entropy_features(env: Any, state: Any, obs: jax.Array, params: Any) -> jax.Array:
    """The environment's entropy features, by default the flat observation: float32[q]."""
    if hasattr(env, "entropy_features"):
        return env.entropy_features(state, params)
    return jnp.ravel(obs).astype(jnp.float32)
