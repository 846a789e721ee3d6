"""Small vectors and matrices, many at once: the copies along the last axis of every array.

Sums are written term by term: XLA fuses those with what they are of, and reductions not.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Numpy's arrays at rest, JAX's in motion: numpy's types know nothing of their arithmetic.
Array = Any

#: A matrix times an array's first axis. GPUs would otherwise multiply with ten bits.
dot = functools.partial(jnp.tensordot, axes=1, precision=jax.lax.Precision.HIGHEST)


def last(x: np.ndarray) -> np.ndarray:
    """In float32, with a last axis for the copies."""
    return np.asarray(x, np.float32)[..., None]


def side_by_side(f: Callable) -> Callable:
    """Make a function of arrays [..., B] add what `jax.vmap` maps over to their last axis."""
    f = jax.custom_batching.custom_vmap(f)

    @f.def_vmap
    def rule(size, mapped, *args):
        def fold(x, is_mapped):
            x = jnp.moveaxis(x, 0, -2) if is_mapped else jnp.repeat(x[..., None, :], size, -2)
            return x.reshape(*x.shape[:-2], -1)

        def unfold(x):
            return jnp.moveaxis(x.reshape(*x.shape[:-1], size, -1), -2, 0)

        out = jax.tree.map(unfold, f(*jax.tree.map(fold, args, tuple(mapped))))
        return out, jax.tree.map(lambda _: True, out)

    return f


def in_blocks(f: Callable, size: int) -> Callable:
    """Make a function of arrays [..., B] take B in turns of `size`, which caches hold."""

    def blocked(*args):
        copies = jax.tree.leaves(args)[0].shape[-1]
        blocks = -(-copies // size)
        if blocks == 1:
            return f(*args)

        def split(x):
            rest = [(0, 0)] * (x.ndim - 1)
            x = jnp.pad(x, [*rest, (0, blocks * size - copies)], mode="edge")
            return jnp.moveaxis(x.reshape(*x.shape[:-1], blocks, size), -2, 0)

        def join(x):
            x = jnp.moveaxis(x, 0, -2)
            return x.reshape(*x.shape[:-2], -1)[..., :copies]

        out = jax.lax.map(lambda block: f(*block), jax.tree.map(split, args))
        return jax.tree.map(join, out)

    return blocked


def solve(a: Array, b: Array) -> jax.Array:
    """Solve symmetric positive definite systems [n, n, B] by Gauss-Jordan elimination."""
    n = len(a)
    a = jnp.concatenate([a, b[:, None]], 1)
    for k in range(n):
        # Columns up to the pivot's are not needed again.
        column, a = a[:, 0], a[:, 1:]
        pivot = a[k] / column[k]
        own = (np.arange(n) == k)[:, None, None]
        a = jnp.where(own, pivot, a - column[:, None] * pivot)
    return a[:, 0]


def total(terms: Iterable[Array]) -> jax.Array:
    """The sum, term by term: a reduction would not be fused with its inputs."""
    result: Any = sum(terms)  # which begins at 0, so its type is not an array's
    return result


def outer(weight: Array, x: Array) -> jax.Array:
    """Sum over c of weight[c] x[c, i] x[c, j]: [n, n, B]. Term by term: reductions are slower."""
    return total(w * row[:, None] * row for w, row in zip(weight, x))


def weigh(weight: Array, x: Array) -> jax.Array:
    """Sum over c of weight[c] x[c]."""
    return total(w * row for w, row in zip(weight, x))


def along(x: Array, y: Array) -> jax.Array:
    """Rows [c, n, B] times [n, B]."""
    return total(x[:, i] * y[i] for i in range(len(y)))


def pairwise(x: Array, y: Array) -> jax.Array:
    """Products of every vector [i, 3, B] with every other [j, 3, B]: [i, j, B]."""
    return total(x[:, None, m] * y[None, :, m] for m in range(3))


def diagonal(x: Array) -> jax.Array:
    return np.eye(len(x), dtype=np.float32)[..., None] * x


def cross(x: Array, y: Array) -> jax.Array:
    """Of vectors [..., 3, B]."""
    x, y = ([v[..., i, :] for i in range(3)] for v in (x, y))
    return jnp.stack([x[i - 2] * y[i - 1] - x[i - 1] * y[i - 2] for i in range(3)], -2)


def rotate(mat: Array, x: Array) -> jax.Array:
    """Matrices [..., 3, 3, B] times vectors [..., 3, B]."""
    return total(mat[..., m, :] * x[..., m, None, :] for m in range(3))


def matmul(x: Array, y: Array) -> jax.Array:
    """Matrices [..., 3, 3, B] times matrices."""
    return total(x[..., :, m, None, :] * y[..., None, m, :, :] for m in range(3))
