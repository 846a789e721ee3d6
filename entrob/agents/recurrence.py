"""The recurrence of an LSTM, with a backward pass that is cheaper than what JAX derives.

JAX differentiates a scan by adding up the gradient of its weights at every step: for 256 units a
product of a few rows and a sum over 262,144 numbers. Here the backward scan carries only what
depends on the step after it, the memory's gradient; that of the weights is one matrix product over
all steps.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Carry = tuple[jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def recurrence(
    recurrent: jax.Array,
    gates: jax.Array,
    carry: Carry,
    is_first: jax.Array,
    products: DTypeLike | None = None,
) -> Carry:
    """The memories of an LSTM over T steps (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    ``i, f, g, o = gates[t] + h @ recurrent``, then ``c = σ(f) c + σ(i) tanh(g)`` and
    ``h = σ(o) tanh(c)``, from zeros where an episode begins.

    Args:
      recurrent: float[W, 4 W], weights.
      gates: float[T, N, 4 W], the inputs' share of the gates, biases included.
      carry: ``(c, h)`` before the first step, float[N, W] each.
      is_first: bool[T, N], where an episode begins.
      products: dtype of the factors of the weights' gradient, None for their own.

    Returns:
      ``(c, h)`` after each step, float[T, N, W] each. It can be differentiated once, in reverse.
    """
    return _scan(recurrent, gates, carry, is_first)[0]


def _scan(recurrent, gates, carry, is_first):
    """``(carries, activated gates)`` of every step: σ(i), σ(f), tanh(g), σ(o)."""
    # Of a few rows, XLA's CPU backend takes four square products faster than a wide one.
    blocks = jnp.split(recurrent, 4, axis=1)

    def step(loop, inputs):
        gates, is_first = inputs
        c, h = _cleared(is_first, loop)
        shares = jnp.split(gates, 4, axis=-1)
        i, f, g, o = (share + h @ block for share, block in zip(shares, blocks))
        i, f, g, o = _sigmoid(i), _sigmoid(f), jnp.tanh(g), _sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (c, h), ((c, h), (i, f, g, o))

    return jax.lax.scan(step, carry, (gates, is_first))[1]


def _forward(recurrent, gates, carry, is_first, products):
    carries, activated = _scan(recurrent, gates, carry, is_first)
    return carries, (recurrent, carry, is_first, carries, activated)


def _backward(products, residuals, cotangents):
    """Backpropagation through time: the gradients of `recurrence`'s arguments."""
    recurrent, carry, is_first, (cs, hs), activated = residuals
    before = jax.tree.map(lambda m, ms: jnp.concatenate([m[None], ms[:-1]]), carry, (cs, hs))
    c_before, h_before = _cleared(is_first, before)
    blocks = jnp.split(recurrent.T, 4, axis=0)

    def step(loop, inputs):
        dc, dh = loop
        (dc_here, dh_here), (i, f, g, o), c_before, tanh_c, is_first = inputs
        dh = dh + dh_here
        dc = dc + dc_here + dh * o * (1 - tanh_c**2)
        # By the gates before their activation: σ' = σ (1 - σ), tanh' = 1 - tanh².
        dgates = (
            dc * g * i * (1 - i),
            dc * c_before * f * (1 - f),
            dc * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        )
        dh = sum(d @ block for d, block in zip(dgates, blocks))
        return _cleared(is_first, (dc * f, dh)), dgates

    steps = cotangents, activated, c_before, jnp.tanh(cs), is_first
    nothing = jax.tree.map(jnp.zeros_like, carry)
    dmemory, dgates = jax.lax.scan(step, nothing, steps, reverse=True)
    dgates = jnp.concatenate(dgates, axis=-1)
    # Of rows: with two axes to sum over, XLA's CPU backend transposes one factor first.
    weights = jnp.einsum(
        "rw,rg->wg",
        h_before.reshape(-1, h_before.shape[-1]).astype(products),
        dgates.reshape(-1, dgates.shape[-1]).astype(products),
        preferred_element_type=recurrent.dtype,
    )
    return weights, dgates, dmemory, None


recurrence.defvjp(_forward, _backward)


def _sigmoid(x: jax.Array) -> jax.Array:
    """σ(x) as a tanh, which costs a CPU less than an exponential and a division."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _cleared(is_first: jax.Array, carry: Carry) -> Carry:
    """The memory float[..., W] with zeros where an episode begins, bool[...]."""
    return jax.tree.map(lambda m: jnp.where(is_first[..., None], 0.0, m), carry)
