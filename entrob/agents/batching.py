"""How a batch is worked on, where `vmap` alone is not the fastest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: Of a batch, the share that `where_needed` works on at a time.
SHARE = 16


def one_at_a_time(f: Callable) -> Callable:
    """On a CPU, make `vmap` run `f` for one run after the other.

    The activations of one agent's network fit the cache and those of 75 do not: three times
    faster there. Accelerators keep the plain `vmap`. `f` must not close over traced values.
    """
    if jax.default_backend() != "cpu":
        return f
    return jax.custom_batching.sequential_vmap(f)


def differing(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which elements of a batch differ, by their bits; not to be traced.

    Args:
      batch: leaves [N, ...].

    Returns:
      ``(first, index)``: where each of the U different ones comes first, ascending int[U], and
      which of them each element is, int32[N].
    """
    leaves = [np.asarray(x) for x in jax.tree.leaves(batch)]
    rows = [np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8) for x in leaves if x.size]
    row = np.concatenate(rows, 1)
    whole = row.view(np.dtype((np.void, row.shape[1]))).ravel()
    _, first, index = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[index].astype(np.int32)


def where_needed(f: Callable) -> Callable:
    """``(needed, otherwise, *args)``: `f(*args)` where `needed`, else `otherwise`.

    Under `vmap`, however many there are, `f` runs for those members of the batch that need it, a
    sixteenth of the batch at a time, and not for all of them. It is not to be differentiated.

    Args:
      f: a function of arrays; it must not close over traced values.

    Returns:
      A function of bool[], a pytree like that of `f`, and its arguments.
    """

    @jax.custom_batching.custom_vmap
    def for_some(needed, otherwise, args):
        size = -(-len(needed) // SHARE)
        (which,) = jnp.nonzero(needed, size=SHARE * size, fill_value=len(needed))
        count = needed.sum()

        def more(carry):
            done, found = carry
            here = jax.lax.dynamic_slice(which, (done,), (size,))
            new = jax.vmap(f)(*jax.tree.map(lambda x: x[here], args))
            put = lambda old, x: old.at[here].set(x, mode="drop")  # what fills up is nobody's
            return done + size, jax.tree.map(put, found, new)

        return jax.lax.while_loop(lambda carry: carry[0] < count, more, (0, otherwise))[1]

    @for_some.def_vmap
    def _(axis_size, batched, *given):
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        apart = lambda x: x.reshape(axis_size, -1, *x.shape[1:])
        found = for_some(*jax.tree.map(flat, _everywhere(axis_size, batched, given)))
        return jax.tree.map(apart, found), jax.tree.map(lambda _: True, found)

    @jax.custom_batching.custom_vmap
    def for_one(needed, otherwise, args):
        return jax.lax.cond(needed, lambda: f(*args), lambda: otherwise)

    @for_one.def_vmap
    def _(axis_size, batched, *given):
        found = for_some(*_everywhere(axis_size, batched, given))
        return found, jax.tree.map(lambda _: True, found)

    return lambda needed, otherwise, *args: for_one(needed, otherwise, args)


def _everywhere(size: int, batched: Any, given: Any) -> Any:
    """Arguments of a batching rule, leaves [size, ...] whether they were batched or not."""
    repeat = lambda x, own: x if own else jnp.broadcast_to(x, (size, *jnp.shape(x)))
    return jax.tree.map(repeat, tuple(given), tuple(batched))
