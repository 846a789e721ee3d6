"""Distributions restricted to some of their discrete actions."""

from typing import Any

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError


def log_probs_of(name: str, dist: Any) -> jax.Array:
    """log π(a) of discrete actions, float32[..., A]; raises `EntrobError` for others."""
    if not hasattr(dist, "logits"):
        raise EntrobError(f"{name}: needs discrete actions")
    return dist.log_probs


def more_likely(log_probs: jax.Array) -> jax.Array:
    """Whether action j comes before action i when sorted by falling probability: bool[..., A, A].

    Entry [i, j]; of equally likely actions the first comes first. Summed over j it is the rank.
    """
    actions = jnp.arange(log_probs.shape[-1])
    mine, other = log_probs[..., :, None], log_probs[..., None, :]
    return (other > mine) | ((other == mine) & (actions < actions[:, None]))


def largest(log_probs: jax.Array, n: int) -> jax.Array:
    """Whether an action is among the n most likely: bool[..., A]."""
    return more_likely(log_probs).sum(-1) < n


def nucleus(log_probs: jax.Array, mass: float, crossing: bool = True) -> jax.Array:
    """Whether an action is in the nucleus, the most likely ones that make up a mass: bool[..., A].

    Args:
      log_probs: float32[..., A].
      mass: in (0, 1].
      crossing: the action whose probability crosses the mass belongs to it. Without that one the
        nucleus is empty wherever a single action has more than the mass.
    """
    probs = jnp.exp(log_probs)
    before = jnp.sum(jnp.where(more_likely(log_probs), probs[..., None, :], 0.0), -1)
    return before < mass if crossing else before + probs <= mass


def renormalize(log_probs: jax.Array, keep: jax.Array) -> jax.Array:
    """log π given that the action is one that is kept, -inf for others: float32[..., A].

    Gradients flow to the kept actions only. Where nothing is kept, all are -inf.
    """
    some = keep.any(-1, keepdims=True)
    total = jax.nn.logsumexp(log_probs, -1, where=keep | ~some, keepdims=True)
    return jnp.where(keep, log_probs - total, -jnp.inf)


def entropy(log_probs: jax.Array, keep: jax.Array) -> jax.Array:
    """Entropy in nats of π given that the action is kept, 0 where none is: float32[...]."""
    kept = jnp.where(keep, renormalize(log_probs, keep), 0.0)
    return -jnp.sum(jnp.where(keep, jnp.exp(kept) * kept, 0.0), -1)
