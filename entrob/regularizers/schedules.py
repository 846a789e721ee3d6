"""Schedules: functions of training progress in [0, 1) that multiply a coefficient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def constant(value: float = 1.0) -> Schedule:
    """`value` throughout."""
    return lambda progress: jnp.full_like(progress, value)


def linear(start: float = 1.0, end: float = 0.0) -> Schedule:
    """From `start` to `end` in a straight line."""
    return lambda progress: start + (end - start) * progress


def cosine(start: float, end: float = 1.0) -> Schedule:
    """Cosine warm-down: end + (start - end)/2 · (1 + cos(π · progress)) (paper, B.1)."""
    return lambda progress: end + 0.5 * (start - end) * (1.0 + jnp.cos(jnp.pi * progress))


def phase(begin: float = 0.0, end: float = 1.0) -> Schedule:
    """1 while ``begin <= progress < end``, else 0."""
    return lambda progress: jnp.where((progress >= begin) & (progress < end), 1.0, 0.0)


#: The schedules by the name they have in experiment files.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "phase": phase,
}
