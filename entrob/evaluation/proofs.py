"""Proofs that perturbations do what they say: they are felt, 0 is nothing, instances differ.

Trajectories are compared under the same keys and the same actions, so that whatever differs is the
perturbation's doing.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entrob.agents.batching import differing
from entrob.perturbations import instance_keys, needs_noise, perturb, perturbations

#: Trajectories compared, each on an instance of its own, per way of choosing actions.
COPIES = 16
#: Steps of a trajectory at most.
STEPS = 500
#: Steps over which two programs, with and without what adds noise, must agree but for rounding.
AGREE = 20
#: The longest time for which an action is held, in steps.
HELD = 40


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was found of one perturbation of one environment.

    Attributes:
      name, category: of the perturbation.
      reaches: by magnitude, which of ``observation``, ``reward`` and ``dynamics`` differ from the
        nominal ones; dynamics: where things are (the environment's entropy features) or when an
        episode ends.
      identity: whether magnitude 0 leaves the params, and a trajectory, as they are to the bit.
      distinct: how many of the instances differ at the largest magnitude.
      instances: how many were drawn.
      declared: whether the perturbation says that instances differ.
    """

    name: str
    category: str
    reaches: Mapping[float, tuple[str, ...]]
    identity: bool
    distinct: int
    instances: int
    declared: bool

    @property
    def faults(self) -> tuple[str, ...]:
        """What it fails to prove, as clauses of a sentence; empty if it proves all."""
        largest = max(self.reaches)
        found = []
        if not self.reaches[largest]:
            found.append(f"{largest:g} reaches neither observation, reward nor dynamics")
        if not self.identity:
            found.append("0 is not the identity")
        if self.declared and self.distinct == 1 < self.instances:
            found.append("all instances are the same, and it says that they differ")
        if not self.declared and self.distinct > 1:
            found.append("instances differ, and it says that they are the same")
        return tuple(found)


def scripts(env: Any, params: Any, key: jax.Array, steps: int) -> jax.Array:
    """Actions without a policy: drawn anew at every step, and held: [2 · COPIES, steps, ...].

    Held ones get to where drawn ones do not, such as up a mountain: the i-th is held for ``1 + i``
    times a sixteenth of `HELD` steps.
    """
    space = env.action_space(params)
    hold = 1 + (HELD * jnp.arange(1, COPIES + 1)) // COPIES
    hold = jnp.concatenate([jnp.ones(COPIES, int), hold])

    def script(key, hold):
        draw = lambda t: space.sample(jax.random.fold_in(key, t // hold))
        return jax.vmap(draw)(jnp.arange(steps))

    return jax.vmap(script)(jax.random.split(key, 2 * COPIES), hold)


def follow(env: Any, params: Any, key: jax.Array, actions: jax.Array) -> dict[str, Any]:
    """One episode of given actions, leaves [T, ...], 0 after its end.

    Returns:
      ``observation`` and the ``first`` one, ``reward``, ``ended`` and ``features``.
    """
    key_reset, key_steps = jax.random.split(key)
    first, state = env.reset_env(key_reset, params)

    def step(carry, inputs):
        state, alive = carry
        key, action = inputs
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        ended = terminated | env.is_truncated(state, params)
        seen = {"observation": obs, "reward": reward, "ended": ended}
        seen["features"] = _places(env, state, obs, params)
        seen = jax.tree.map(lambda x: jnp.where(alive, x, jnp.zeros_like(x)), seen)
        return (state, alive & ~ended), seen

    keys = jax.random.split(key_steps, len(actions))
    _, seen = jax.lax.scan(step, (state, jnp.bool_(True)), (keys, actions))
    return {"first": first, **seen}


def _places(env: Any, state: Any, obs: Any, params: Any) -> jax.Array:
    """Where things are; an environment that only shows it tells nothing beside what is seen."""
    if env.entropy_features is None:
        return jnp.zeros(0)
    return env.entropy_features(state, params)


def differences(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, ...]:
    """Which of ``observation``, ``reward`` and ``dynamics`` two trajectories differ in, by bits."""
    differ = lambda *names: any(not _same_bits(one[name], other[name]) for name in names)
    found = {
        "observation": differ("first", "observation"),
        "reward": differ("reward"),
        "dynamics": differ("features", "ended"),
    }
    return tuple(name for name, differs in found.items() if differs)


def _same_bits(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def distinct(instances: Any) -> int:
    """How many of I params, leaves [I, ...], differ from all before them."""
    return len(differing(instances)[0])


class Prover:
    """Proves what perturbations do to one environment; one program plays all trajectories.

    Args:
      env: an environment with noise.
      params: its nominal `EnvParams`.
      bare: ``(env, params)`` without noise.
      key: PRNG key of trajectories and instances.
      actions: further actions to follow, [N, T, ...], such as a policy's; T as `steps` says.
    """

    def __init__(
        self, env: Any, params: Any, bare: tuple[Any, Any], key: jax.Array, actions: Any = None
    ):
        self.params = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params)
        self.key_instances, key_actions, key_episodes = jax.random.split(key, 3)
        every = scripts(env, params, key_actions, steps(params))
        self.actions = every if actions is None else jnp.concatenate([every, actions])
        self.keys = jax.random.split(key_episodes, len(self.actions))
        self._play = jax.jit(jax.vmap(lambda p, k, a: follow(env, p, k, a)))
        self.nominal = self._follow(self._repeated(self.params))
        self.quiet = self._is_quiet(*bare)

    def _follow(self, instances: Any) -> dict[str, Any]:
        return jax.tree.map(np.asarray, self._play(instances, self.keys, self.actions))

    def _repeated(self, params: Any) -> Any:
        many = len(self.keys)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (many, *jnp.shape(x))), params)

    def _is_quiet(self, env: Any, params: Any) -> bool:
        """Whether the environment without noise does what this one does with all noise at 0.

        To rounding, as they are two programs, and over `AGREE` steps, as some tasks are chaotic.
        """
        play = jax.jit(jax.vmap(lambda k, a: follow(env, params, k, a)))
        bare = play(self.keys, self.actions[:, :AGREE])
        here = {k: v if k == "first" else _head(v) for k, v in self.nominal.items()}
        pairs = zip(jax.tree.leaves(dict(bare)), jax.tree.leaves(here), strict=True)
        return all(np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) for a, b in pairs)

    def prove(self, name: str, magnitudes: tuple[float, ...], instances: int) -> Proof:
        """Prove what one perturbation does.

        Args:
          name: a perturbation that fits the params.
          magnitudes: at which it must be felt, the largest at least.
          instances: how many are drawn of the largest.
        """
        entry = perturbations.get(name, self.params)
        many = jax.vmap(lambda key, m: perturb(key, self.params, name, m), (0, None))
        draw: Callable = jax.jit(many)
        keys = instance_keys(self.key_instances, entry, COPIES)
        keys = keys[jnp.arange(len(self.keys)) % COPIES]
        reaches = {}
        for magnitude in magnitudes:
            felt = self._follow(draw(keys, jnp.float32(magnitude)))
            reaches[magnitude] = differences(self.nominal, felt)
        zero = draw(keys, jnp.float32(0))
        identity = _same_bits(zero, self._repeated(self.params))
        identity &= not differences(self.nominal, self._follow(zero))
        identity &= self.quiet or not needs_noise(name)
        tested = instance_keys(self.key_instances, entry, instances)
        count = distinct(draw(tested, jnp.float32(max(magnitudes))))
        return Proof(
            name, entry.category, reaches, identity, count, instances, entry.instances_distinct
        )


def _head(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[:, :AGREE], tree)


def steps(params: Any) -> int:
    """How long trajectories are: an episode, but `STEPS` at most."""
    return min(STEPS, int(params.max_steps_in_episode))
