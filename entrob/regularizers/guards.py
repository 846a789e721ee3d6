"""What a chain of regularizers does to what its parts return: switch off, watch, check the form."""

from typing import Any

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.rollout import PolicyOutput


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


def shielded_policy(
    policy: PolicyOutput, off: jax.Array, probe: jax.Array | float = 0.0
) -> PolicyOutput:
    """The same output, through which no gradient flows where `off`, not even NaN.

    The gradient by `probe`, float32[], is above 0 where one flows that is not finite.
    """
    whole = policy.dist, policy.value, policy.params
    dist, value, params = shield(whole, off, jnp.float32(probe))
    return policy._replace(dist=dist, value=value, params=params)


def gate(coef: jax.Array, on: Any, otherwise: Any) -> Any:
    """`on` where the coefficient is not 0, else `otherwise`; 0 · NaN would be NaN."""
    return jax.tree.map(lambda a, b: jnp.where(coef == 0, b, a), on, otherwise)


def all_finite(*arrays: jax.Array) -> jax.Array:
    """bool[]: whether all elements of all arrays are finite."""
    return jnp.stack([jnp.isfinite(x).all() for x in arrays]).all()


def has_nan(tree: Any) -> jax.Array:
    """bool[]: whether a floating-point leaf has a NaN."""
    arrays = [x for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    floats = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isnan(x).any() for x in floats]).any() if floats else jnp.zeros((), bool)


def keeps_form(name: str, hook: str, old: Any, new: Any) -> Any:
    """The new state; raises `EntrobError` if its structure, shapes or dtypes are not the old's."""
    leaf = lambda x: f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__
    form = lambda tree: jax.tree.map(leaf, tree)
    if form(old) != form(new):
        raise EntrobError(
            f"regularizer {name!r}: {hook} must return a state like the one it was given, "
            f"{form(old)}, got {form(new)}"
        )
    return new


def expect(name: str, hook: str, array: Any, shape: tuple[int, ...]) -> jax.Array:
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
