"""What is fixed about an agent when it is compiled, and what may vary between its runs."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from entrob.agents.adversarial.adversary import STRENGTH, Adversary
from entrob.agents.model import BOUNDS, Gaussian, Model
from entrob.distributions import ENTROPY_OF, LOG_PROB
from entrob.envs import entropy_features
from entrob.estimators.counting import neighbors
from entrob.ranges import COUNT, COUNT32, NOT_NEGATIVE, POSITIVE, SHARE, Range
from entrob.regularizers.chaining import Chain, chain
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Finite

Number = jax.Array | float
#: A bound, infinity being none.
_BOUND = Range(0, above=True, endless=True)

#: What each setting that is a choice may be, its default first.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "time_limit": ("bootstrap", "terminal"),
    "statistics": ("run", "environment"),
    "log_std": BOUNDS,
    "entropy_of": ENTROPY_OF,
    "log_prob": LOG_PROB,
    "advantage_std": ("population", "sample"),
}

#: What the paper's released Pusher code does where its text is silent or differs.
REFERENCE: Mapping[str, str] = {
    "network": "lstm-reference",
    "time_limit": "terminal",
    "statistics": "environment",
    "log_std": "tanh",
    "entropy_of": "normal",
    "log_prob": "atanh",
    "advantage_std": "sample",
}


class Spec(NamedTuple):
    """The static part of an agent: runs that share it share one compiled program.

    Attributes:
      env: an `entrob.envs.Environment`, or another gymnax one.
      regularizer: a `Regularizer`, or a `Chain` of several.
      network: see `entrob.agents.model.make_model`; None is the environment's own.
      algorithm: ``"a2c"`` or ``"ppo"``.
      num_envs: environments per run (N).
      num_steps: steps per update (T).
      epochs, minibatches: passes over a rollout and pieces it is cut into; 1 and 1 for A2C.
      adversary: a second player to train against, or None.
      time_limit: what learning makes of an episode cut by the time limit: ``"bootstrap"``, it goes
        on, with the value of the true next observation, or ``"terminal"``, it ended there.
      normalize: standardize observations and scale rewards by running statistics.
      statistics: whose they are: the ``"run"``'s, merged after every rollout, or each
        ``"environment"``'s own, updated at every step, see `entrob.agents.normalizer`.
      log_std: how a log standard deviation is bounded: ``"clip"``, or smoothly by ``"tanh"``.
      entropy_of: whose entropy the policy-entropy bonus and the training curve count: the executed
        ``"action"``'s, or the ``"normal"``'s before tanh.
      log_prob: how the learner scores a stored action: ``"exact"``, or by ``"atanh"`` of the
        clipped action, see `entrob.distributions.TanhNormal.log_prob`.
      advantage_std: by which deviation PPO standardizes a minibatch's advantages, the
        ``"population"``'s or the ``"sample"``'s.
      tabulate: evaluate the network once per distinct state where the environment is finite.
    """

    env: Any
    regularizer: Chain | Regularizer = chain()
    network: str | nn.Module | None = None
    algorithm: str = "a2c"
    num_envs: Annotated[int, COUNT] = 8
    num_steps: Annotated[int, COUNT] = 100
    epochs: Annotated[int, COUNT] = 1
    minibatches: Annotated[int, COUNT] = 1
    adversary: Adversary | None = None
    time_limit: str = "bootstrap"
    normalize: bool = False
    statistics: str = "run"
    log_std: str = "clip"
    entropy_of: str = "action"
    log_prob: str = "exact"
    advantage_std: str = "population"
    tabulate: bool = True

    @property
    def gaussian(self) -> Gaussian:
        """What a policy of continuous actions is besides the network's numbers."""
        return Gaussian(self.log_std, self.entropy_of, self.log_prob)

    @property
    def per_environment(self) -> bool:
        """Whether each environment has statistics of its own."""
        return self.statistics == "environment"

    @property
    def frames_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Build(NamedTuple):
    """What is made of a spec when an agent is compiled.

    Attributes:
      spec: with the environment adopted.
      chain: its regularizers.
      model: functions of its policy.
      optimizer: without its learning rate.
    """

    spec: Spec
    chain: Chain
    model: Model
    optimizer: optax.GradientTransformation


@struct.dataclass
class Hyper:
    """The swept part of an agent: every field is a traced leaf. Defaults are the paper's A2C.

    Their ranges are part of their types, see `entrob.ranges`.

    Attributes:
      learning_rate: float32[].
      anneal: float32[], share of the learning rate that is gone, linearly, by the end.
      gamma: float32[], discount.
      gae_lambda: float32[], what counts of an advantage estimated a step later: GAE's λ.
      value_coef: float32[], weight of the value loss.
      max_grad_norm: float32[], bound of the global gradient norm.
      clip: float32[], PPO's clip range.
      max_kl: float32[], nats that the policy may be away from the rollout's for another step.
      value_clip: float32[], how far a value may move from the rollout's before it stops counting.
      strength: float32[], of the adversary, where there is one, see `check_adversary`.
      total_updates: int32[], length of training; schedules run over it.
      coefs: coefficient of each regularizer of the chain, by name; one that is not named has its
        default.
    """

    learning_rate: Annotated[Number, NOT_NEGATIVE] = 1e-3
    anneal: Annotated[Number, SHARE] = 0.0
    gamma: Annotated[Number, Range(0, 1, below=True)] = 0.99
    gae_lambda: Annotated[Number, SHARE] = 0.95
    value_coef: Annotated[Number, NOT_NEGATIVE] = 0.5
    max_grad_norm: Annotated[Number, _BOUND] = 0.5
    clip: Annotated[Number, POSITIVE] = 0.2
    max_kl: Annotated[Number, _BOUND] = float("inf")
    value_clip: Annotated[Number, _BOUND] = float("inf")
    strength: Annotated[Number, NOT_NEGATIVE] = STRENGTH
    total_updates: Annotated[jax.Array | int, COUNT32] = 3750
    coefs: Mapping[str, jax.Array | float] = struct.field(default_factory=dict)


def tabulated(spec: Spec, model: Model) -> bool:
    """Whether the policy is evaluated once per state instead of once per frame.

    A policy with a memory cannot be tabulated, nor one that sees a state otherwise at every step.

    A finite environment says ``finite = True`` and has ``states(params)`` and
    ``state_index(state)``; its observations depend on nothing but the index and the params.
    """
    return spec.tabulate and spec.env.finite and not (model.recurrent or spec.per_environment)


def tabulate(spec: Spec, params: Any) -> Finite:
    """The tables of a finite environment, with an observation for each state."""
    states = spec.env.states(params)
    observations = jax.vmap(lambda s: spec.env.get_obs(s, params))(states)
    features = jax.vmap(lambda s, o: entropy_features(spec.env, s, o, params))(states, observations)
    return Finite(observations, jnp.arange(len(features)), features, neighbors(features))
