"""What stands between a regularizer and the agent: off is off to the last bit, faults are caught.

`guard` wraps a regularizer as optax wraps a transformation: the same hooks, over a state that holds
the regularizer's own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import PolicyOutput

#: What may be at fault, in the order of an update: a hook that returned what is not finite, or the
#: gradient of surrogate or loss though their values are fine.
FAULTS = ("behavior", "reward", "advantage", "surrogate", "loss", "gradient", "update")


class Guarded(NamedTuple):
    """The state of a guarded regularizer.

    Attributes:
      inner: the regularizer's own, any pytree.
      fault: int32[], 1 + the index in `FAULTS` of what it was first caught at while switched on; 0
        if at nothing.
      probe: float32[], 0; the gradient by it is above 0 if one that is not finite flowed back
        through what the regularizer made of the policy.
    """

    inner: Any = ()
    fault: Any = np.int32(0)
    probe: Any = np.float32(0)

    def caught(self, fault: str, bad: jax.Array) -> "Guarded":
        """The state after a look at one thing; `bad` is a bool[]. The first fault stays."""
        code = jnp.int32(1 + FAULTS.index(fault))
        return self._replace(fault=jnp.where(bad & (self.fault == 0), code, self.fault))


def guard(regularizer: Regularizer) -> Regularizer:
    """The same regularizer, which does nothing at a coefficient of 0 and whose faults are caught.

    Where the coefficient is 0, what the hooks return is replaced by what the agent would have
    without them, and no gradient flows back through them, even if either is NaN. What is returned
    has the form that `Regularizer` asks for, else an `EntrobError` names the hook while the program
    is traced.

    Returns:
      Hooks over `Guarded` states. All but ``init``, ``behavior`` and ``prepare``, which return the
      state, the distribution and the notes, return ``(value, state)``: the bonus,
      ``(advantage, target)``, ``(weight, clip_low, clip_high)``, the loss, and nothing.
    """
    r: Any = regularizer  # of each hook that is used below it is known that it is not None

    def init(key, spec, params):
        return Guarded(r.init(key, spec, params) if r.init else ())

    def behavior(state, dist, coef):
        return gate(coef, r.behavior(state.inner, dist, coef), dist)

    def reward(key, state, rollout, coef):
        if r.behavior:
            # Actions were drawn from what is no distribution.
            broken = ~jnp.isfinite(rollout.log_prob).all()
            state = state.caught("behavior", (coef != 0) & broken)
        if not r.reward:
            return jnp.zeros_like(rollout.reward), state
        out = r.reward(key, state.inner, rollout, coef)
        out = out if isinstance(out, tuple) else (out, state.inner)
        if len(out) != 2:
            raise EntrobError(
                f"regularizer {r.name!r}: reward must return bonus[T, N] or (bonus, state)"
            )
        bonus = _expect(r.name, "reward", out[0], rollout.reward.shape)
        bonus = gate(coef, bonus, jnp.zeros_like(bonus))
        return bonus, into(state, "reward", out[1], coef, ~all_finite(bonus))

    def advantage(state, rollout, coef):
        old = (rollout.advantage, rollout.target)
        out = r.advantage(state.inner, rollout, coef)
        new = out if isinstance(out, tuple) else (out, rollout.target)
        if len(new) != 2:
            raise EntrobError(
                f"regularizer {r.name!r}: advantage must return advantage[T, N] or "
                "(advantage, target)"
            )
        for array in new:
            _expect(r.name, "advantage", array, rollout.reward.shape)
        new = gate(coef, new, old)
        # What came in broken is not this one's fault.
        return new, state.caught("advantage", all_finite(*old) & ~all_finite(*new))

    def prepare(state, rollout, coef):
        notes = r.prepare(state.inner, rollout, coef)
        for leaf in jax.tree.leaves(notes):
            if jnp.shape(leaf)[:2] != rollout.reward.shape:
                raise EntrobError(
                    f"regularizer {r.name!r}: prepare must return leaves of shape "
                    f"{[*rollout.reward.shape, '...']}, got {list(jnp.shape(leaf))}"
                )
        return notes

    def surrogate(key, state, policy, batch, coef):
        shape = batch.reward.shape
        out = r.surrogate(key, state.inner, seen(policy, state, coef), batch, coef)
        if not (isinstance(out, tuple) and len(out) == 3):
            raise EntrobError(
                f"regularizer {r.name!r}: surrogate must return (weight, clip_low, clip_high)"
            )
        out = tuple(_expect(r.name, "surrogate", x, shape) for x in out)
        out = gate(coef, out, (jnp.ones(shape), batch.clip_low, batch.clip_high))
        # A clip range may be infinite.
        bad = ~all_finite(out[0]) | jnp.isnan(out[1] + out[2]).any()
        return out, state.caught("surrogate", bad)

    def loss(key, state, policy, batch, coef):
        term = r.loss(key, state.inner, seen(policy, state, coef), batch, coef)
        term = gate(coef, _expect(r.name, "loss", term, ()), jnp.zeros(()))
        return term, state.caught("loss", ~all_finite(term))

    def update(key, state, rollout, metrics):
        coef = metrics["coef"]
        return (), into(state, "update", r.update(key, state.inner, rollout, metrics), coef)

    def seen(policy, state, coef):
        return _shielded(policy, coef == 0, state.probe)

    def into(state, hook, inner, coef, bad=False):
        """The new own state, at fault if it became NaN; infinity may stand for none yet."""
        inner = _keeps_form(r.name, hook, state.inner, inner)
        spoiled = (coef != 0) & _has_nan(inner) & ~_has_nan(state.inner)
        return state.caught(hook, bad | spoiled)._replace(inner=inner)

    hooks: dict[str, Any] = {
        "behavior": behavior, "advantage": advantage, "prepare": prepare,
        "surrogate": surrogate, "loss": loss, "update": update,
    }  # fmt: skip
    used = {name: hook for name, hook in hooks.items() if getattr(r, name)}
    if r.reward or r.behavior:
        used["reward"] = reward
    return r._replace(init=init, **used)


@jax.custom_vjp
def shield(x, off, probe):
    """The identity, whose gradient is exactly zero where `off`, even if it would be NaN.

    The gradient by `probe` is 1 if the gradient by x is then not finite, else 0.
    """
    return x


def _shield_bwd(off, cotangent):
    passed = jax.tree.map(lambda c: jnp.where(off, jnp.zeros_like(c), c), cotangent)
    bad = ~all_finite(*jax.tree.leaves(passed))
    return passed, None, bad.astype(jnp.float32)


shield.defvjp(lambda x, off, probe: (x, off), _shield_bwd)


def _shielded(policy: PolicyOutput, off: jax.Array, probe: jax.Array | float) -> PolicyOutput:
    """The same output, through which no gradient flows where `off`, not even NaN."""
    whole = policy.dist, policy.value, policy.params
    dist, value, params = shield(whole, off, jnp.float32(probe))
    return policy._replace(dist=dist, value=value, params=params)


def gate(coef: jax.Array, on: Any, otherwise: Any) -> Any:
    """`on` where the coefficient is not 0, else `otherwise`; 0 · NaN would be NaN."""
    return jax.tree.map(lambda a, b: jnp.where(coef == 0, b, a), on, otherwise)


def all_finite(*arrays: jax.Array) -> jax.Array:
    """bool[]: whether all elements of all arrays are finite."""
    return jnp.stack([jnp.isfinite(x).all() for x in arrays]).all()


def _has_nan(tree: Any) -> jax.Array:
    """bool[]: whether a floating-point leaf has a NaN."""
    arrays = [x for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    floats = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isnan(x).any() for x in floats]).any() if floats else jnp.zeros((), bool)


def _keeps_form(name: str, hook: str, old: Any, new: Any) -> Any:
    """The new state; raises `EntrobError` if its structure, shapes or dtypes are not the old's."""
    leaf = lambda x: f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__
    form = lambda tree: jax.tree.map(leaf, tree)
    if form(old) != form(new):
        raise EntrobError(
            f"regularizer {name!r}: {hook} must return a state like the one it was given, "
            f"{form(old)}, got {form(new)}"
        )
    return new


def _expect(name: str, hook: str, array: Any, shape: tuple[int, ...]) -> jax.Array:
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
