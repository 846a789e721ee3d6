"""Several regularizers as one, which is all that an agent calls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.distributions import Distribution
from entrob.errors import EntrobError
from entrob.regularizers.domain import greatest
from entrob.regularizers.guards import FAULTS, Guarded, guard
from entrob.regularizers.protocol import HOOKS, Regularizer, Weighed, check_signature
from entrob.rollout import PolicyOutput, Rollout

#: State and coefficient by a regularizer's name.
States = Mapping[str, Guarded]
Coefs = Mapping[str, jax.Array | float]


class Chain(NamedTuple):
    """Several regularizers as one; states and coefficients are dictionaries by name.

    The parts are guarded where they are called, see `guard`, and their states are `Guarded`.
    """

    parts: tuple[Regularizer, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    def init(self, key: jax.Array, spec: Any, params: Any) -> dict[str, Guarded]:
        """Per-run states by name."""
        return {name: init(k, spec, params) for name, init, k in self._each("init", key)}

    def coefs(
        self, coefs: Mapping[str, jax.Array | float], progress: jax.Array
    ) -> dict[str, jax.Array]:
        """Coefficients at this point of training: schedules applied, within their domains.

        A regularizer that `coefs` does not name has its own default.
        """
        return {
            r.name: jnp.minimum(
                coefs.get(r.name, r.coef) * (r.schedule(progress) if r.schedule else 1.0),
                greatest(r.domain),
            )
            for r in self.parts
        }

    def behavior(self, states: States, dist: Distribution, coefs: Coefs) -> Distribution:
        """The distribution that actions are sampled from."""
        for name, behavior, _ in self._each("behavior"):
            dist = behavior(states[name], dist, coefs[name])
        return dist

    def reward(
        self, key: jax.Array, states: States, rollout: Rollout, coefs: Coefs
    ) -> tuple[jax.Array, States]:
        """Sum of bonuses: ``(float32[T, N], states)``."""
        total, states = jnp.zeros_like(rollout.reward), dict(states)
        for name, reward, k in self._each("reward", key):
            bonus, states[name] = reward(k, states[name], rollout, coefs[name])
            total = total + bonus
        return total, states

    def advantage(self, states: States, rollout: Rollout, coefs: Coefs) -> tuple[Rollout, States]:
        """Rollout with shaped advantages and targets: ``(rollout, states)``."""
        states = dict(states)
        for name, advantage, _ in self._each("advantage"):
            shaped, states[name] = advantage(states[name], rollout, coefs[name])
            rollout = rollout.replace(advantage=shaped[0], target=shaped[1])
        return rollout, states

    def prepare(self, states: States, rollout: Rollout, coefs: Coefs) -> dict[str, Any]:
        """Notes by name, leaves [T, N, ...]."""
        return {
            name: prepare(states[name], rollout, coefs[name])
            for name, prepare, _ in self._each("prepare")
        }

    def surrogate(
        self,
        key: jax.Array,
        states: States,
        policy: PolicyOutput,
        batch: Rollout,
        coefs: Coefs,
        clip: jax.Array | float,
    ) -> tuple[Weighed, States]:
        """Weight and clip range of each sample's policy loss: ``(three float32[B], states)``.

        Weights multiply; the clip range is handed from one to the next, and may be infinite.
        """
        shape, states = batch.reward.shape, dict(states)
        weight, low, high = jnp.ones(shape), jnp.full(shape, clip), jnp.full(shape, clip)
        for name, surrogate, k in self._each("surrogate", key):
            own = _own(batch, name).replace(clip_low=low, clip_high=high)
            out, states[name] = surrogate(k, states[name], policy, own, coefs[name])
            factor, low, high = out
            weight = weight * factor
        return (weight, low, high), states

    def loss(
        self,
        key: jax.Array,
        states: States,
        policy: PolicyOutput,
        batch: Rollout,
        coefs: Coefs,
    ) -> tuple[jax.Array, States]:
        """Sum of loss terms: ``(float32[], states)``."""
        total, states = jnp.zeros(()), dict(states)
        for name, loss, k in self._each("loss", key):
            own = _own(batch, name)
            term, states[name] = loss(k, states[name], policy, own, coefs[name])
            total = total + term
        return total, states

    def update(
        self,
        key: jax.Array,
        states: States,
        rollout: Rollout,
        metrics: Mapping[str, Any],
        coefs: Coefs,
    ) -> States:
        """States after an update."""
        states = dict(states)
        for name, update, k in self._each("update", key):
            own = {**metrics, "coef": coefs[name]}
            _, states[name] = update(k, states[name], rollout, own)
        return states

    def fault(self, states: States) -> jax.Array:
        """int32[]: what in this update first went wrong, 1 + its index in `faults`; 0: nothing."""
        if not self.parts:
            return jnp.zeros((), jnp.int32)
        found = jnp.stack([jnp.asarray(states[name].fault) for name in self.names])
        by_time = (found - 1) * len(self.parts) + jnp.arange(1, len(self.parts) + 1)
        first = jnp.where(found > 0, by_time, jnp.iinfo(jnp.int32).max).min()
        return jnp.where((found > 0).any(), first, 0).astype(jnp.int32)

    def _each(self, hook: str, key: jax.Array | None = None) -> Iterator[tuple[str, Any, Any]]:
        """Name, hook and a key of their own of the regularizers that have the hook."""
        for i, part in enumerate(self.parts):
            if function := getattr(guard(part), hook):
                yield part.name, function, None if key is None else jax.random.fold_in(key, i)


def _own(batch: Rollout, name: str) -> Rollout:
    """The batch as one regularizer sees it, with the notes that it prepared."""
    return batch.replace(notes=(batch.notes or {}).get(name))


def faults(names: Sequence[str]) -> list[str]:
    """What can be found broken in a chain of regularizers: entry i is `Chain.fault` 1 + i."""
    return [f"{name}: {fault}" for fault in FAULTS for name in names]


def chain(*parts: "Regularizer | Chain") -> Chain:
    """Compose regularizers; chains are flattened.

    Raises:
      EntrobError: a name comes twice.
      BrokenMethod: a hook cannot be called with its arguments.
    """
    flat: list[Regularizer] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Chain) else [part])
    for part in flat:
        for hook, arguments in HOOKS.items():
            check_signature(part.name, hook, getattr(part, hook), arguments)
    names = [part.name for part in flat]
    for name in names:
        if names.count(name) > 1:
            raise EntrobError(f"regularizer {name!r} comes twice in a chain")
    return Chain(tuple(flat))
