"""What a regularizer is: up to seven optional pure functions over explicit per-run state.

A regularizer is to the agent's objective what an optax transformation is to a gradient.
`chain` composes several; the agent calls only the chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from entrob.errors import EntrobError


@struct.dataclass
class Rollout:
    """T steps of N environments, as the regularizers of one run see them.

    Attributes:
      obs: [T, N, ...], observations the actions were chosen on.
      features: float32[T, N, q], the environment's entropy features of the same states.
      time: int32[T, N], steps since the episode began.
      action: int32[T, N], or raw float32[T, N, d] (see `entrob.agents.distributions`).
      log_prob: float32[T, N], log-probability of the action under the behavior policy.
      value: float32[T, N].
      reward: float32[T, N], the environment's, in units of `reward_scale` where that is used.
      terminated, truncated: bool[T, N], after the step.
      success: bool[T, N], whether the step ended in success.
      advantage: float32[T, N], zero until the advantages are known.
      target: float32[T, N], what the value function is fitted to; zero until known.
      progress: float32[], fraction of training done, in [0, 1).
      reward_scale: float32[], what rewards were divided by; 1 without normalization.
      index: int32[T, N] or None, state index where the environment is finite.
      finite: `Finite` or None, the tables that `index` points into.
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
    progress: jax.Array
    reward_scale: jax.Array | float = 1.0
    index: jax.Array | None = None
    finite: Any = None


class Policy(NamedTuple):
    """The network on a batch, and the means to evaluate it elsewhere.

    Attributes:
      dist: distribution over actions, batch shape [B].
      value: float32[B].
      params: the network's parameters.
      apply: ``(params, obs) -> (dist, value)``.
    """

    dist: Any
    value: jax.Array
    params: Any
    apply: Callable

    @property
    def logits(self) -> jax.Array:
        """float32[B, A], for discrete actions."""
        return self.dist.logits

    def at(self, obs: jax.Array) -> "Policy":
        """The policy on other observations [B', ...]; a recurrent one needs B' = B."""
        dist, value = self.apply(self.params, obs)
        return self._replace(dist=dist, value=value)

    def shield(self, off: jax.Array) -> "Policy":
        """The same policy, through which no gradient flows where `off`, not even NaN."""
        dist, value, params = _shield((self.dist, self.value, self.params), off)
        return self._replace(dist=dist, value=value, params=params)


class Regularizer(NamedTuple):
    """A named tuple of optional hooks; ``None`` means that the hook is not used.

    ``coef`` is one traced scalar, 0 = off, larger = stronger; a hook multiplies by it itself.
    The per-run ``state`` is any pytree whose shapes stay the same between updates.

    Attributes:
      name: its name on the command line, in tables and figures.
      init: ``(key, spec, params) -> state``; spec is the agent's `Spec`, params the network's.
      behavior: ``(state, dist, coef) -> dist``, what actions are sampled from.
      reward: ``(key, state, rollout, coef) -> (bonus[T, N], state)``, added before GAE.
      advantage: ``(state, rollout, coef) -> advantage[T, N]`` or ``(advantage, target)``.
      surrogate: ``(key, state, policy, batch, coef) -> (weight[B], clip_low[B], clip_high[B])``.
      loss: ``(key, state, policy, batch, coef) -> scalar``, added to the loss.
      update: ``(key, state, rollout, metrics) -> state``, once after each update.
      schedule: ``progress -> multiplier`` of the coefficient, or None for a constant one.
      coef: default coefficient.
      source: where the formula comes from.
    """

    name: str
    init: Callable | None = None
    behavior: Callable | None = None
    reward: Callable | None = None
    advantage: Callable | None = None
    surrogate: Callable | None = None
    loss: Callable | None = None
    update: Callable | None = None
    schedule: Callable | None = None
    coef: float = 0.0
    source: str = ""


#: The hooks and the arguments each is called with.
HOOKS = {
    "init": ("key", "spec", "params"),
    "behavior": ("state", "dist", "coef"),
    "reward": ("key", "state", "rollout", "coef"),
    "advantage": ("state", "rollout", "coef"),
    "surrogate": ("key", "state", "policy", "batch", "coef"),
    "loss": ("key", "state", "policy", "batch", "coef"),
    "update": ("key", "state", "rollout", "metrics"),
}


@jax.custom_vjp
def _shield(x, off):
    """The identity, whose gradient is exactly zero where `off`, even if it would be NaN."""
    return x


def _shield_bwd(off, cotangent):
    return jax.tree.map(lambda c: jnp.where(off, jnp.zeros_like(c), c), cotangent), None


_shield.defvjp(lambda x, off: (x, off), _shield_bwd)


def _gate(coef, on, otherwise):
    """`on` where the coefficient is not 0, else `otherwise`; 0 · NaN would be NaN."""
    return jax.tree.map(lambda a, b: jnp.where(coef == 0, b, a), on, otherwise)


def _all_finite(*arrays):
    """bool[]: whether all elements of all arrays are finite."""
    return jnp.stack([jnp.isfinite(x).all() for x in arrays]).all()


def _expect(name: str, hook: str, array, shape: tuple[int, ...]):
    """Check that a hook returned one float array of the right shape; raises `EntrobError`."""
    got = getattr(array, "shape", None)
    if got is None and isinstance(array, (int, float)):
        array, got = jnp.float32(array), ()
    if got != shape:
        what = f"shape {list(got)}" if got is not None else type(array).__name__
        raise EntrobError(
            f"regularizer {name!r}: {hook} must return shape {list(shape)}, got {what}"
        )
    return array


class Chain(NamedTuple):
    """Several regularizers as one; states and coefficients are dictionaries by name.

    Every method returns what the agent needs plus, where user code may go wrong, `bad`:
    bool[R], which regularizers returned a value that is not finite while switched on.
    """

    parts: tuple[Regularizer, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    def init(self, key: jax.Array, spec: Any, params: Any) -> dict[str, Any]:
        """Per-run states by name."""
        keys = self._keys(key)
        return {r.name: r.init(k, spec, params) if r.init else () for r, k in zip(self.parts, keys)}

    def coefs(self, coefs: dict[str, jax.Array], progress: jax.Array) -> dict[str, jax.Array]:
        """Coefficients at this point of training: schedules applied."""
        return {
            r.name: coefs[r.name] * (r.schedule(progress) if r.schedule else 1.0)
            for r in self.parts
        }

    def behavior(self, states, dist, coefs):
        """The distribution that actions are sampled from."""
        for r in self.parts:
            if r.behavior:
                dist = _gate(coefs[r.name], r.behavior(states[r.name], dist, coefs[r.name]), dist)
        return dist

    def reward(self, key, states, rollout: Rollout, coefs):
        """Sum of bonuses: ``(float32[T, N], states, bad)``."""
        total, bad, states = jnp.zeros_like(rollout.reward), self._no_fault(), dict(states)
        for i, (r, k) in enumerate(zip(self.parts, self._keys(key))):
            if r.reward:
                out = r.reward(k, states[r.name], rollout, coefs[r.name])
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise EntrobError(f"regularizer {r.name!r}: reward must return (bonus, state)")
                bonus = _expect(r.name, "reward", out[0], rollout.reward.shape)
                states[r.name] = out[1]
                bonus = _gate(coefs[r.name], bonus, jnp.zeros_like(bonus))
                bad = bad.at[i].set(~jnp.isfinite(bonus).all())
                total = total + bonus
        return total, states, bad

    def advantage(self, states, rollout: Rollout, coefs):
        """Rollout with shaped advantages and targets: ``(rollout, bad)``."""
        bad = self._no_fault()
        for i, r in enumerate(self.parts):
            if r.advantage:
                old = (rollout.advantage, rollout.target)
                out = r.advantage(states[r.name], rollout, coefs[r.name])
                new = out if isinstance(out, tuple) else (out, rollout.target)
                if len(new) != 2:
                    raise EntrobError(
                        f"regularizer {r.name!r}: advantage must return advantage[T, N] or "
                        "(advantage, target)"
                    )
                for array in new:
                    _expect(r.name, "advantage", array, rollout.reward.shape)
                advantage, target = _gate(coefs[r.name], new, old)
                # What came in broken is not this one's fault.
                bad = bad.at[i].set(_all_finite(*old) & ~_all_finite(advantage, target))
                rollout = rollout.replace(advantage=advantage, target=target)
        return rollout, bad

    def surrogate(self, key, states, policy, batch, coefs, clip: jax.Array):
        """Weight and clip range of each sample's policy loss: three float32[B]."""
        shape = batch.reward.shape
        weight, low, high = jnp.ones(shape), jnp.full(shape, clip), jnp.full(shape, clip)
        for r, k in zip(self.parts, self._keys(key)):
            if r.surrogate:
                shielded = policy.shield(coefs[r.name] == 0)
                out = r.surrogate(k, states[r.name], shielded, batch, coefs[r.name])
                if not (isinstance(out, tuple) and len(out) == 3):
                    raise EntrobError(
                        f"regularizer {r.name!r}: surrogate must return "
                        "(weight, clip_low, clip_high)"
                    )
                w, lo, hi = (_expect(r.name, "surrogate", x, shape) for x in out)
                w, low, high = _gate(coefs[r.name], (w, lo, hi), (jnp.ones(shape), low, high))
                weight = weight * w
        return weight, low, high

    def loss(self, key, states, policy: "Policy", batch, coefs):
        """Sum of loss terms: ``(float32[], bad)``."""
        total, bad = jnp.zeros(()), self._no_fault()
        for i, (r, k) in enumerate(zip(self.parts, self._keys(key))):
            if r.loss:
                coef = coefs[r.name]
                shielded = policy.shield(coef == 0)
                term = r.loss(k, states[r.name], shielded, batch, coef)
                term = _expect(r.name, "loss", term, ())
                term = _gate(coef, term, jnp.zeros(()))
                bad = bad.at[i].set(~jnp.isfinite(term))
                total = total + term
        return total, bad

    def update(self, key, states, rollout: Rollout, metrics):
        """States after an update."""
        return {
            r.name: r.update(k, states[r.name], rollout, metrics) if r.update else states[r.name]
            for r, k in zip(self.parts, self._keys(key))
        }

    def _keys(self, key):
        return [jax.random.fold_in(key, i) for i in range(len(self.parts))]

    def _no_fault(self):
        return jnp.zeros(len(self.parts), bool)


def chain(*parts: "Regularizer | Chain") -> Chain:
    """Compose regularizers; chains are flattened. Raises `EntrobError` if a name comes twice."""
    flat: list[Regularizer] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Chain) else [part])
    names = [part.name for part in flat]
    for name in names:
        if names.count(name) > 1:
            raise EntrobError(f"regularizer {name!r} comes twice in a chain")
    return Chain(tuple(flat))
