"""What a regularizer is: up to eight optional pure functions over explicit per-run state.

A regularizer is to the agent's objective what an optax transformation is to a gradient.
`chain` composes several; the agent calls only the chain.
"""

import inspect
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from entrob.distributions import Distribution
from entrob.errors import BrokenMethod, EntrobError
from entrob.regularizers.domain import greatest
from entrob.regularizers.guards import (
    all_finite,
    expect,
    gate,
    has_nan,
    keeps_form,
    shielded_policy,
)
from entrob.rollout import PolicyOutput, Rollout

#: What `Chain` keeps by a regularizer's name: its state, any pytree, and its coefficient.
States = Mapping[str, Any]
Coefs = Mapping[str, jax.Array]
Bonus = jax.Array | tuple[jax.Array, Any]
Shaped = jax.Array | tuple[jax.Array, jax.Array]
Weighed = tuple[jax.Array, jax.Array, jax.Array]
Evidence = Literal["code", "paper", "secondary", "memory", ""]
#: What the grades of `Regularizer.evidence` mean, as it is printed.
EVIDENCE = {
    "code": "checked against the authors' code",
    "paper": "checked against the paper",
    "secondary": "from abstracts and accounts of others",
    "memory": "from memory",
}


class Regularizer(NamedTuple):
    """A named tuple of optional hooks; ``None`` means that the hook is not used.

    ``coef`` is one traced scalar, 0 = off, larger = stronger; a hook multiplies by it itself.
    The per-run ``state`` is any pytree whose shapes stay the same between updates.

    Attributes:
      name: its name on the command line, in tables and figures.
      init: ``(key, spec, params) -> state``; spec is the agent's `Spec`, params the network's.
      behavior: ``(state, dist, coef) -> dist``, what actions are sampled from.
      reward: ``(key, state, rollout, coef) -> bonus[T, N]`` or ``(bonus, state)``, added before
        GAE.
      advantage: ``(state, rollout, coef) -> advantage[T, N]`` or ``(advantage, target)``.
      prepare: ``(state, rollout, coef) -> notes``, leaves [T, N, ...]: what surrogate and loss must
        know of whole episodes. They find it as ``batch.notes``, cut into the same minibatches.
      surrogate: ``(key, state, policy, batch, coef) -> (weight[B], clip_low[B], clip_high[B])``.
      loss: ``(key, state, policy, batch, coef) -> scalar``, added to the loss.
      update: ``(key, state, rollout, metrics) -> state``, once after each update; metrics are those
        of the gradient steps, ``params``, the network's parameters after them, and ``coef``, the
        regularizer's own coefficient at this point of training.
      schedule: ``progress -> multiplier`` of the coefficient, or None for a constant one.
      coef: default coefficient.
      domain: ``(low, high)``: coefficients lie in [low, high), see `entrob.regularizers.domain`.
      distinct: ``(coefficient, steps per minibatch) -> key``: coefficients with equal keys act
        alike (a count is what rounding leaves of a share); None: all differ.
      source: where the formula comes from.
      evidence: how it was looked up: in the authors' ``"code"``, in the ``"paper"``'s text, in
        abstracts and accounts of others (``"secondary"``), or not (``"memory"``); "" if it is new.
      label: ``"faithful"``, ``"adapted: ..."`` with the difference from the source,
        ``"degenerate: ..."`` with where and why, or ``"control: ..."``.
      actions: which kinds of actions it is for.
    """

    name: str
    init: Callable[[jax.Array, Any, Any], Any] | None = None
    behavior: Callable[[Any, Any, jax.Array], Any] | None = None
    reward: Callable[[jax.Array, Any, Rollout, jax.Array], Bonus] | None = None
    advantage: Callable[[Any, Rollout, jax.Array], Shaped] | None = None
    prepare: Callable[[Any, Rollout, jax.Array], Any] | None = None
    surrogate: Callable[[jax.Array, Any, PolicyOutput, Rollout, jax.Array], Weighed] | None = None
    loss: Callable[[jax.Array, Any, PolicyOutput, Rollout, jax.Array], jax.Array] | None = None
    update: Callable[[jax.Array, Any, Rollout, dict[str, Any]], Any] | None = None
    schedule: Callable[[jax.Array], jax.Array] | None = None
    coef: float = 0.0
    domain: tuple[float, float] = (0.0, math.inf)
    distinct: Callable[[float, int], Hashable] | None = None
    source: str = ""
    evidence: Evidence = ""
    label: str = "faithful"
    actions: tuple[str, ...] = ("discrete", "continuous")

    @property
    def graded(self) -> str:
        """The label with its evidence, as it is printed."""
        return f"{self.label} [{EVIDENCE[self.evidence]}]" if self.evidence else self.label


#: The hooks and the arguments each is called with.
HOOKS = {
    "init": ("key", "spec", "params"),
    "behavior": ("state", "dist", "coef"),
    "reward": ("key", "state", "rollout", "coef"),
    "advantage": ("state", "rollout", "coef"),
    "prepare": ("state", "rollout", "coef"),
    "surrogate": ("key", "state", "policy", "batch", "coef"),
    "loss": ("key", "state", "policy", "batch", "coef"),
    "update": ("key", "state", "rollout", "metrics"),
}

#: The hooks whose values are watched while they are on, in the order of `faults`.
WATCHED = ("behavior", "reward", "advantage", "surrogate", "loss", "update")
#: What may be at fault: a hook, or the gradient of surrogate or loss though their values are fine.
FAULTS = (*WATCHED, "gradient")


def faults(names: tuple[str, ...]) -> list[str]:
    """What can be found broken in a chain of these regularizers, in the order of `blame`."""
    return [f"{name}: {fault}" for fault in FAULTS for name in names]


def blame(bad: dict[str, jax.Array]) -> jax.Array:
    """bool[len(FAULTS) · R] from the regularizers at fault, bool[R] by fault."""
    return jnp.concatenate([bad[fault] for fault in FAULTS])


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
        for r in self.parts:
            if r.behavior:
                dist = gate(coefs[r.name], r.behavior(states[r.name], dist, coefs[r.name]), dist)
        return dist

    def reward(
        self, key: jax.Array, states: States, rollout: Rollout, coefs: Coefs
    ) -> tuple[jax.Array, dict[str, Any], jax.Array]:
        """Sum of bonuses: ``(float32[T, N], states, bad)``."""
        total, bad, states = jnp.zeros_like(rollout.reward), self._no_fault(), dict(states)
        for i, (r, k) in enumerate(zip(self.parts, self._keys(key))):
            if r.reward:
                old = states[r.name]
                out = r.reward(k, old, rollout, coefs[r.name])
                out = out if isinstance(out, tuple) else (out, old)
                if len(out) != 2:
                    raise EntrobError(
                        f"regularizer {r.name!r}: reward must return bonus[T, N] or (bonus, state)"
                    )
                bonus = expect(r.name, "reward", out[0], rollout.reward.shape)
                states[r.name] = keeps_form(r.name, "reward", old, out[1])
                bonus = gate(coefs[r.name], bonus, jnp.zeros_like(bonus))
                broken = ~jnp.isfinite(bonus).all() | self._spoiled(r, states, old, coefs)
                bad = bad.at[i].set(broken)
                total = total + bonus
        return total, states, bad

    def advantage(
        self, states: States, rollout: Rollout, coefs: Coefs
    ) -> tuple[Rollout, jax.Array]:
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
                    expect(r.name, "advantage", array, rollout.reward.shape)
                advantage, target = gate(coefs[r.name], new, old)
                # What came in broken is not this one's fault.
                bad = bad.at[i].set(all_finite(*old) & ~all_finite(advantage, target))
                rollout = rollout.replace(advantage=advantage, target=target)
        return rollout, bad

    def prepare(self, states: States, rollout: Rollout, coefs: Coefs) -> dict[str, Any]:
        """Notes by name, leaves [T, N, ...]."""
        notes = {}
        for r in self.parts:
            if r.prepare:
                notes[r.name] = r.prepare(states[r.name], rollout, coefs[r.name])
                for leaf in jax.tree.leaves(notes[r.name]):
                    if jnp.shape(leaf)[:2] != rollout.reward.shape:
                        raise EntrobError(
                            f"regularizer {r.name!r}: prepare must return leaves of shape "
                            f"{[*rollout.reward.shape, '...']}, got {list(jnp.shape(leaf))}"
                        )
        return notes

    def behavior_faults(self, rollout: Rollout, coefs: Coefs) -> jax.Array:
        """bool[R]: whether actions were drawn from what is no distribution while one was on."""
        broken = ~jnp.isfinite(rollout.log_prob).all()
        on = [jnp.asarray(coefs[r.name] != 0) & (r.behavior is not None) for r in self.parts]
        return jnp.stack(on) & broken if on else self._no_fault()

    def surrogate(
        self,
        key: jax.Array,
        states: States,
        policy: PolicyOutput,
        batch: Rollout,
        coefs: Coefs,
        clip: jax.Array | float,
        probes: jax.Array | None = None,
    ) -> tuple[Weighed, jax.Array]:
        """Weight and clip range of each sample's policy loss: ``(three float32[B], bad)``.

        A clip range may be infinite. By `probes`, float32[R], see `shielded_policy`.
        """
        probes = self._no_probes() if probes is None else probes
        shape, bad = batch.reward.shape, self._no_fault()
        weight, low, high = jnp.ones(shape), jnp.full(shape, clip), jnp.full(shape, clip)
        for i, (r, k) in enumerate(zip(self.parts, self._keys(key))):
            if r.surrogate:
                shielded = shielded_policy(policy, coefs[r.name] == 0, probes[i])
                own = batch.replace(
                    notes=(batch.notes or {}).get(r.name), clip_low=low, clip_high=high
                )
                out = r.surrogate(k, states[r.name], shielded, own, coefs[r.name])
                if not (isinstance(out, tuple) and len(out) == 3):
                    raise EntrobError(
                        f"regularizer {r.name!r}: surrogate must return "
                        "(weight, clip_low, clip_high)"
                    )
                w, lo, hi = (expect(r.name, "surrogate", x, shape) for x in out)
                w, low, high = gate(coefs[r.name], (w, lo, hi), (jnp.ones(shape), low, high))
                bad = bad.at[i].set(~all_finite(w) | jnp.isnan(low + high).any())
                weight = weight * w
        return (weight, low, high), bad

    def loss(
        self,
        key: jax.Array,
        states: States,
        policy: PolicyOutput,
        batch: Rollout,
        coefs: Coefs,
        probes: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Sum of loss terms: ``(float32[], bad)``; for `probes`, see `shielded_policy`."""
        probes = self._no_probes() if probes is None else probes
        total, bad = jnp.zeros(()), self._no_fault()
        for i, (r, k) in enumerate(zip(self.parts, self._keys(key))):
            if r.loss:
                coef = coefs[r.name]
                shielded = shielded_policy(policy, coef == 0, probes[i])
                own = batch.replace(notes=(batch.notes or {}).get(r.name))
                term = r.loss(k, states[r.name], shielded, own, coef)
                term = expect(r.name, "loss", term, ())
                term = gate(coef, term, jnp.zeros(()))
                bad = bad.at[i].set(~jnp.isfinite(term))
                total = total + term
        return total, bad

    def update(
        self,
        key: jax.Array,
        states: States,
        rollout: Rollout,
        metrics: Mapping[str, Any],
        coefs: Coefs,
    ) -> tuple[dict[str, Any], jax.Array]:
        """States after an update: ``(states, bad)``."""
        bad, states = self._no_fault(), dict(states)
        for i, (r, k) in enumerate(zip(self.parts, self._keys(key))):
            if r.update:
                old = states[r.name]
                new = r.update(k, old, rollout, {**metrics, "coef": coefs[r.name]})
                states[r.name] = keeps_form(r.name, "update", old, new)
                bad = bad.at[i].set(self._spoiled(r, states, old, coefs))
        return states, bad

    def _spoiled(self, r: Regularizer, states: States, old: Any, coefs: Coefs) -> jax.Array:
        """bool[]: whether a state of one that is on became NaN; infinity may stand for none yet."""
        return (coefs[r.name] != 0) & has_nan(states[r.name]) & ~has_nan(old)

    def _keys(self, key: jax.Array) -> list[jax.Array]:
        return [jax.random.fold_in(key, i) for i in range(len(self.parts))]

    def _no_probes(self) -> jax.Array:
        return jnp.zeros(len(self.parts))

    def _no_fault(self) -> jax.Array:
        return jnp.zeros(len(self.parts), bool)


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
            _check_signature(part.name, hook, getattr(part, hook), arguments)
    names = [part.name for part in flat]
    for name in names:
        if names.count(name) > 1:
            raise EntrobError(f"regularizer {name!r} comes twice in a chain")
    return Chain(tuple(flat))


def _check_signature(name: str, hook: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Raise `BrokenMethod` unless the hook is None or a function of its arguments, by position."""
    if function is None:
        return
    wanted = f"regularizer {name!r}: {hook} takes ({', '.join(arguments)})"
    if not callable(function):
        raise BrokenMethod(f"{wanted}, got no function but {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a built-in: unknown
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise BrokenMethod(f"{wanted}, got {signature}") from None
