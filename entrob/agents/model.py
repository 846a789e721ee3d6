"""Policies: a network, the distribution its head stands for, and its memory if it has one."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from entrob.agents.networks import LSTM, MLP, MinAtarNetwork, MiniGridNetwork, ReferenceLSTM
from entrob.agents.normalizer import standardize
from entrob.distributions import Categorical, TanhNormal
from entrob.envs import adopted
from entrob.errors import EntrobError, unknown

#: Range of the tanh-normal's log standard deviation (paper, B.3).
LOG_STD = (-5.0, 1.2)
#: How the network's number h is brought into it: clipped, or low + (high - low) (tanh h + 1) / 2.
BOUNDS = ("clip", "tanh")


@struct.dataclass
class PolicyParams:
    """All that a trained policy is, as it is saved.

    Attributes:
      network: the network's parameters.
      moments: `Moments` that observations are standardized with, or ``()``.
    """

    network: Any
    moments: Any = ()


class Model(NamedTuple):
    """Pure functions of one policy; feed-forward ones have the memory ``()``.

    Attributes:
      recurrent: whether it has a memory.
      init: ``(key, obs[N, ...]) -> network parameters``.
      init_carry: ``n -> carry`` of n episodes that begin, leaves [n, ...].
      step: ``(PolicyParams, carry, obs[N, ...], is_first bool[N]) -> (dist, value, carry)``.
      sequence: ``(PolicyParams, carry, obs[T, N, ...], is_first bool[T, N]) -> (dist, value)``.
    """

    recurrent: bool
    init: Callable
    init_carry: Callable
    step: Callable
    sequence: Callable

    def initial(self) -> Any:
        """The memory that an episode of one environment begins with."""
        return jax.tree.map(lambda x: x[0], self.init_carry(1))

    def act(self, key: jax.Array, policy: Any, carry: Any, obs: jax.Array) -> tuple[jax.Array, Any]:
        """One sampled action, as the environment executes it, and the memory after it."""
        one = jax.tree.map(lambda x: x[None], (carry, obs))
        dist, _, carry = self.step(policy, *one, jnp.zeros(1, bool))
        dist, carry = jax.tree.map(lambda x: x[0], (dist, carry))
        return dist.execute(dist.sample(key)), carry


class Gaussian(NamedTuple):
    """What a policy of continuous actions is besides the network's numbers.

    Attributes:
      log_std: of `BOUNDS`.
      entropy_of: of `entrob.distributions.ENTROPY_OF`.
      log_prob: of `entrob.distributions.LOG_PROB`.
    """

    log_std: str = "clip"
    entropy_of: str = "action"
    log_prob: str = "exact"


#: By the paper's text.
PAPER = Gaussian()


def make_model(
    env: Any,
    network: str | nn.Module | None = None,
    space: Any = None,
    gaussian: Gaussian = PAPER,
) -> Model:
    """The policy of an environment.

    Args:
      env: gymnax environment.
      network: a name of `NETWORKS`, a module with their signatures, or None for what the
        environment's ``network`` names; one that names none gets MinAtar's for images [H, W, C]
        of at least 3 × 3, and a perceptron, to which all is a vector, for anything else.
      space: of the actions, by default the environment's; a module given is resized to it.
      gaussian: of continuous actions.

    Raises:
      EntrobError: unknown network, one that does not fit the observations or the actions,
        observations of several arrays, actions that are neither discrete nor a bounded box, or
        settings of continuous actions for discrete ones.
    """
    params = env.default_params
    size, distribution = _head(env, space or env.action_space(params), gaussian)
    if space and isinstance(network, nn.Module):
        network = network.clone(outputs=size)
    shape = _observed(env, params)
    image = len(shape) == 3 and min(shape[:2]) >= 3
    if network is None:
        network = adopted(env).network or ("minatar" if image else "mlp")
    if isinstance(network, str):
        if network not in NETWORKS:
            raise unknown("network", network, NETWORKS)
        if network in IMAGES and not image:
            raise EntrobError(
                f"{env.name}: network {network!r} sees images [H, W, C], and observations have "
                f"shape {list(shape)}"
            )
        network = NETWORKS[network](size)
        if isinstance(network, MLP):
            network = network.clone(axes=len(shape))
    if isinstance(network, ReferenceLSTM) and distribution is Categorical:
        raise EntrobError(f"{env.name}: network 'lstm-reference' is for continuous actions")
    if hasattr(network, "init_carry"):
        return _recurrent(network, distribution)
    return _feedforward(network, distribution)


#: Networks by name: number of outputs of the head -> module.
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "minigrid": MiniGridNetwork,
    "minatar": MinAtarNetwork,
    "mlp": MLP,
    "lstm": LSTM,
    "lstm-bf16": functools.partial(LSTM, products=jnp.bfloat16),
    "lstm-reference": ReferenceLSTM,
}

#: Those with a memory.
RECURRENT = ("lstm", "lstm-bf16", "lstm-reference")

#: Those that see images.
IMAGES = ("minigrid", "minatar")


def _observed(env: Any, params: Any) -> tuple[int, ...]:
    """The shape of the observations that an environment gives, whatever its space declares."""
    seen = jax.eval_shape(env.reset_env, jax.random.key(0), params)[0]
    if isinstance(seen, jax.ShapeDtypeStruct):
        return seen.shape
    parts = jax.tree_util.tree_flatten_with_path(seen)[0]
    named = ", ".join(f"{jax.tree_util.keystr(p)} {list(x.shape)}" for p, x in parts)
    raise EntrobError(f"{env.name}: an observation must be one array, not several ({named})")


def _head(env, space, gaussian: Gaussian) -> tuple[int, Callable]:
    """How many numbers parametrize the action distribution, and what it is."""
    if isinstance(space, spaces.Discrete):
        for name, value in gaussian._asdict().items():
            if value != getattr(PAPER, name):
                raise EntrobError(f"{env.name}: {name} = {value!r} is for continuous actions")
        return int(space.n), Categorical
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise EntrobError(f"{env.name}: actions must be discrete or a box of one axis")
    size = space.shape[0]
    low, high = (np.broadcast_to(np.float64(x), (size,)) for x in (space.low, space.high))
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise EntrobError(f"{env.name}: actions must have finite bounds")
    bounds = tuple(map(float, low)), tuple(map(float, high))
    within = squashed if gaussian.log_std == "tanh" else bounded

    def distribution(head):
        mean, log_std = jnp.split(head, 2, axis=-1)
        settings = gaussian.entropy_of, gaussian.log_prob
        return TanhNormal(mean, within(log_std, *LOG_STD), *bounds, *settings)

    return 2 * size, distribution


def squashed(x: jax.Array, low: float, high: float) -> jax.Array:
    """A number within bounds by tanh, with a gradient everywhere: float32[...]."""
    return low + 0.5 * (high - low) * (jnp.tanh(x) + 1.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def bounded(x: jax.Array, low: float, high: float) -> jax.Array:
    """`jnp.clip`, out of which gradient descent can find its way: float32[...].

    Out of bounds the gradient of `jnp.clip` is 0, and a number that has left them stays. Here a
    gradient passes if following it downhill leads back.
    """
    return jnp.clip(x, low, high)


def _bounded_bwd(low, high, x, cotangent):
    back = jnp.where(x > high, cotangent > 0, jnp.where(x < low, cotangent < 0, True))
    return (jnp.where(back, cotangent, 0.0),)


bounded.defvjp(lambda x, low, high: (bounded(x, low, high), x), _bounded_bwd)


def _seen(policy: PolicyParams, obs: jax.Array) -> jax.Array:
    """The observation as the network sees it: what the moments do not know is left as it is."""
    if not policy.moments:
        return obs
    if not policy.moments.mean.shape:  # a single number
        return standardize(policy.moments, obs)
    known = policy.moments.mean.shape[-1]
    return jnp.concatenate([standardize(policy.moments, obs[..., :known]), obs[..., known:]], -1)


def tempered(model: Model) -> Model:
    """The model of policies that come with a temperature: ``(PolicyParams, float32[])``.

    Their distributions are those of the policies to the power 1 / temperature, normalized.
    """

    def step(policy, carry, obs, is_first):
        dist, value, carry = model.step(policy[0], carry, obs, is_first)
        return dist.tempered(jnp.broadcast_to(policy[1], value.shape)), value, carry

    def sequence(policy, carry, obs, is_first):
        dist, value = model.sequence(policy[0], carry, obs, is_first)
        return dist.tempered(jnp.broadcast_to(policy[1], value.shape)), value

    return model._replace(step=step, sequence=sequence)


def _feedforward(network, distribution) -> Model:
    def apply(policy, obs):
        head, value = network.apply(policy.network, _seen(policy, obs))
        return distribution(head), value

    return Model(
        recurrent=False,
        init=network.init,
        init_carry=lambda n: (),
        step=lambda policy, carry, obs, is_first: (*apply(policy, obs), carry),
        sequence=lambda policy, carry, obs, is_first: apply(policy, obs),
    )


def _recurrent(network, distribution) -> Model:
    def apply(policy, carry, obs, is_first):
        head, value, carries = network.apply(policy.network, carry, _seen(policy, obs), is_first)
        return distribution(head), value, carries

    def init(key, obs):
        n = obs.shape[0]
        return network.init(key, network.init_carry(n), obs[None], jnp.ones((1, n), bool))

    def step(policy, carry, obs, is_first):
        out = apply(policy, carry, obs[None], is_first[None])
        return jax.tree.map(lambda x: x[0], out)

    return Model(
        recurrent=True,
        init=init,
        init_carry=network.init_carry,
        step=step,
        sequence=lambda policy, carry, obs, is_first: apply(policy, carry, obs, is_first)[:2],
    )
