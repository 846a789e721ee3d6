"""Worst expectations of a vector over distributions near a nominal one.

For a nominal row p, a vector v and a divergence D(q, p) a *ball* asks for inf E_q[v] over
{q : D(q, p) <= radius} and a *penalty* for inf E_q[v] + λ D(q, p) over all q: the ambiguity of
robust MDPs (Iyengar 2005; Nilim and El Ghaoui 2005) and of robust regularized MDPs (RRMDP, Tang,
Liu and Xu 2024, arXiv 2411.18612).  D is total variation ½ Σ |q - p|, where q may put mass on any
state, the Kullback-Leibler divergence Σ q log(q/p) or χ² Σ (q - p)²/p, where it may not leave the
support of p.  Every answer carries the row that attains it and, from weak duality, how far from
the infimum it can be.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import rel_entr

from entrob.theory.mdp import as_float64, check_distribution, check_number, float64

LARGEST_LOG_RATE = 37.0
"""log β where the search for KL's tilt ends, β in units of 1 / range of v."""

ROUNDING, MAX_STEPS = 1e-14, 100
"""Loss, in units of the range of v, at which that search stops, and its steps at most."""

SMALLEST_RADIUS = 1e-300
"""A KL radius of 0 is solved as this one, whose logarithm exists."""


class WorstCase(NamedTuple):
    """The least expectation and where it is attained.

    Attributes:
      value: float64[], row·v + cost.
      row: float64[S], the distribution q; in the ball up to rounding.
      cost: float64[], λ D(q, p) for a penalty, 0 for a ball.
      gap: float64[], value - a lower bound of the infimum, >= 0; rounding where exact.
    """

    value: jax.Array
    row: jax.Array
    cost: jax.Array
    gap: jax.Array


class Ambiguity(NamedTuple):
    """What the adversary may do to one row.

    Attributes:
      divergence: (q, p) -> D(q, p) over the last axis, infinite where q leaves p's support.
      worst: (p, v, size) -> `WorstCase`, unchecked; size is the radius, or λ.
      penalized: whether size is λ > 0 and not a radius >= 0.
    """

    divergence: Callable[[jax.Array, jax.Array], jax.Array]
    worst: Callable[[jax.Array, jax.Array, jax.Array], WorstCase]
    penalized: bool


def total_variation(q: jax.Array, p: jax.Array) -> jax.Array:
    """½ Σ |q - p| over the last axis, in 0..1."""
    return jnp.abs(q - p).sum(-1) / 2


def kl_divergence(q: jax.Array, p: jax.Array) -> jax.Array:
    """Σ q log(q/p) over the last axis, in nats; infinite where q leaves p's support."""
    return rel_entr(q, p).sum(-1)


def chi_square(q: jax.Array, p: jax.Array) -> jax.Array:
    """Σ (q - p)²/p over the last axis; infinite where q leaves p's support."""
    outside = jnp.where(q > 0, jnp.inf, 0.0)
    return jnp.where(p > 0, (q - p) ** 2 / jnp.where(p > 0, p, 1), outside).sum(-1)


def _tv_ball(p: jax.Array, v: jax.Array, radius: jax.Array) -> WorstCase:
    """Mass `radius` moves from the best states to the worst, as in a fractional knapsack."""
    order = jnp.argsort(-v)
    mass = p[order]
    taken = jnp.clip(radius - (jnp.cumsum(mass) - mass), 0, mass)
    return _moved(p, v, jnp.zeros_like(p).at[order].set(taken), 0.0)


def _tv_penalty(p: jax.Array, v: jax.Array, penalty: jax.Array) -> WorstCase:
    """E[min(v, min v + λ)]: a unit of mass moves to the worst state if it gains more than λ."""
    return _moved(p, v, jnp.where(v - v.min() > penalty, p, 0), penalty)


def _moved(p: jax.Array, v: jax.Array, taken: jax.Array, price: jax.Array | float) -> WorstCase:
    row = (p - taken).at[jnp.argmin(v)].add(taken.sum())
    cost = price * total_variation(row, p)
    return WorstCase(row @ v + cost, row, cost, jnp.zeros(()))


def _kl_ball(p: jax.Array, v: jax.Array, radius: jax.Array) -> WorstCase:
    """The tilted row p e^{-βv} whose divergence is `radius`, by Newton's method in log β.

    The dual is sup_λ -λ log E[e^{-v/λ}] - λ radius (Hu and Hong 2013) with λ = 1/β.  At λ -> 0 it
    is the least v of the support, attained once radius >= -log of that value's mass.
    """
    scale, x = _standardized(p, v - _least(p, v))
    radius = jnp.maximum(radius, SMALLEST_RADIUS)
    beta = jnp.exp(_log_rate(p, x, radius))
    tilted, log_mean = _tilt(p, x, beta)
    divergence = -beta * (tilted @ x) - log_mean
    # D is convex, so this share of the way from p to the row is inside even after rounding.
    row = p + jnp.minimum(1, radius / jnp.maximum(divergence, radius)) * (tilted - p)
    bound = -(log_mean + radius) / beta
    return WorstCase(row @ v, row, jnp.zeros(()), scale * jnp.maximum(row @ x - bound, 0))


def _log_rate(p: jax.Array, x: jax.Array, radius: jax.Array) -> jax.Array:
    """log β with KL(β) = radius, for x in 0..1 on p's support: float64[].

    KL(β) increases, with derivative β² Var_β(x) <= β²/4 in log β: hence KL(β) <= β²/8 and the lower
    end of the bracket.  Newton's method on log KL, which has slope 2 for small β; bisection where
    that leaves the bracket or does not halve the step.
    """
    center = p @ x
    least = jnp.sum(jnp.where(x == 0, p, 0))
    low = jnp.minimum(jnp.log(8 * radius) / 2, LARGEST_LOG_RATE)
    spread = jnp.maximum(p @ (x - center) ** 2, SMALLEST_RADIUS)
    start = jnp.where(radius >= -jnp.log(least), jnp.inf, jnp.log(2 * radius / spread) / 2)
    start = jnp.clip(start, low, LARGEST_LOG_RATE)
    high = jnp.full_like(low, LARGEST_LOG_RATE)

    def advance(carry):
        at, low, high, last, _, steps = carry
        beta = jnp.exp(at)
        tilted, log_mean = _tilt(p, x, beta)
        mean = tilted @ x
        divergence = -beta * mean - log_mean
        excess = divergence - radius
        low, high = jnp.where(excess < 0, at, low), jnp.where(excess < 0, high, at)
        slope = beta**2 * (tilted @ (x - mean) ** 2)
        safe = (slope > 0) & (divergence > 0)
        ratio = jnp.where(safe, divergence, radius) / radius
        step = -jnp.log(ratio) * ratio * radius / jnp.where(safe, slope, 1)
        ahead = at + step
        newton = safe & (ahead > low) & (ahead < high) & (jnp.abs(step) <= last / 2)
        # What is lost to the infimum: inside the ball by the dual, outside by returning into it.
        loss = jnp.where(excess > 0, excess * (center - mean) / radius, -excess / beta)
        done = (loss <= ROUNDING) | (high - low <= ROUNDING)
        moved = jnp.where(newton, ahead, (low + high) / 2)
        return jnp.where(done, at, moved), low, high, jnp.abs(moved - at), done, steps + 1

    unfinished = lambda carry: ~carry[4] & (carry[5] < MAX_STEPS)
    first = (start, low, high, 2 * (high - low), jnp.array(False), jnp.array(0))
    return jax.lax.while_loop(unfinished, advance, first)[0]


def _kl_penalty(p: jax.Array, v: jax.Array, penalty: jax.Array) -> WorstCase:
    """-λ log E[e^{-v/λ}], attained by p e^{-v/λ} normalized (Donsker and Varadhan)."""
    low = _least(p, v)
    scale, x = _standardized(p, v - low)
    beta = scale / penalty
    row, log_mean = _tilt(p, x, beta)
    cost = penalty * kl_divergence(row, p)
    value = row @ v + cost
    return WorstCase(value, row, cost, jnp.abs(value - (low - penalty * log_mean)))


def _least(p: jax.Array, v: jax.Array) -> jax.Array:
    """The least v on p's support: float64[]."""
    return jnp.min(jnp.where(p > 0, v, jnp.inf))


def _standardized(p: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The range of x >= 0 on p's support and x in units of it, 0 where p is."""
    x = jnp.where(p > 0, x, 0)
    scale = x.max()
    return scale, x / jnp.where(scale > 0, scale, 1)


def _tilt(p: jax.Array, x: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """p e^{-βx} normalized, and log E[e^{-βx}], precise for small β too; x >= 0, least 0."""
    weight = p * jnp.exp(-beta * x)
    total = weight.sum()
    loss = p @ jnp.expm1(-beta * x)
    small = loss > -0.5
    return weight / total, jnp.where(small, jnp.log1p(jnp.where(small, loss, 0)), jnp.log(total))


def _chi_square_ball(p: jax.Array, v: jax.Array, radius: jax.Array) -> WorstCase:
    """q ∝ p (c - v)₊ with χ² = radius, exactly, by sorting.

    E(c - v)₊² = (1 + radius) (E(c - v)₊)² is a quadratic equation in c between two values of v;
    with the mean m, variance s² and mass P of the states below c it gives c = m + s/√κ and the
    value m - s √κ, κ = P (1 + radius) - 1.  With no state cut off this is E[v] - √(radius Var v).
    The lower bound is the dual sup_c E[v∧c] - √(radius Var(v∧c)) (Iyengar 2005, Lemma 3.2).
    """
    x = v - _least(p, v)
    values, first, second = _excesses(p, x, jnp.argsort(v))
    # The ratio of the two moments falls in c; where both are 0 no state has mass below c.
    last = jnp.max(jnp.where(second >= (1 + radius) * first**2, jnp.arange(len(v)), 0))
    below = x <= values[last]
    inside = jnp.where(below, p, 0)
    P = inside.sum()
    m = inside @ x / P
    s = jnp.sqrt(inside @ (x - m) ** 2 / P)
    # P (1 + radius) - 1, written so that it is exactly `radius` when no state is cut off.
    kappa = jnp.maximum(P * radius - jnp.sum(jnp.where(below, 0, p)), 0)
    slope = jnp.where(s > 0, jnp.sqrt(kappa) / jnp.where(s > 0, s, 1), 0)
    weight = inside * jnp.maximum(1 + (m - x) * slope, 0)
    row = weight / weight.sum()
    cut = jnp.minimum(x, jnp.where(kappa > 0, m + s / jnp.sqrt(kappa), jnp.inf))
    mean = p @ cut
    bound = mean - jnp.sqrt(radius * (p @ (cut - mean) ** 2))
    return WorstCase(row @ v, row, jnp.zeros(()), jnp.maximum(row @ x - bound, 0))


def _chi_square_penalty(p: jax.Array, v: jax.Array, penalty: jax.Array) -> WorstCase:
    """sup_c E[v∧c] - Var(v∧c)/(4λ), attained by q = p (c - v)₊/(2λ), where E(c - v)₊ = 2λ."""
    x = v - _least(p, v)
    values, first, _ = _excesses(p, x, jnp.argsort(v))
    last = jnp.max(jnp.where(first <= 2 * penalty, jnp.arange(len(v)), 0))
    P = jnp.sum(jnp.where(x <= values[last], p, 0))
    cut = jnp.minimum(x, values[last] + (2 * penalty - first[last]) / P)
    mean = p @ cut
    weight = p * jnp.maximum(1 + (mean - cut) / (2 * penalty), 0)
    row = jnp.where(cut < x, 0, weight)
    row = row / row.sum()
    cost = penalty * chi_square(row, p)
    bound = mean - p @ (cut - mean) ** 2 / (4 * penalty)
    return WorstCase(row @ v + cost, row, cost, jnp.abs(row @ x + cost - bound))


def _excesses(p: jax.Array, x: jax.Array, order: jax.Array) -> tuple[jax.Array, ...]:
    """x in ascending order, and E(c - x)₊ and E(c - x)₊² at each c = x: float64[S] each.

    Sums of positive terms from one value to the next, so that nothing cancels.
    """
    values, mass = x[order], p[order]
    step = jnp.diff(values, prepend=values[0])
    below = jnp.cumsum(mass) - mass
    first = jnp.cumsum(below * step)
    before = first - below * step
    return values, first, jnp.cumsum(step * (2 * before + below * step))


AMBIGUITIES: dict[str, Ambiguity] = {
    "tv": Ambiguity(total_variation, _tv_ball, penalized=False),
    "kl": Ambiguity(kl_divergence, _kl_ball, penalized=False),
    "chi2": Ambiguity(chi_square, _chi_square_ball, penalized=False),
    "tv_penalty": Ambiguity(total_variation, _tv_penalty, penalized=True),
    "kl_penalty": Ambiguity(kl_divergence, _kl_penalty, penalized=True),
    "chi2_penalty": Ambiguity(chi_square, _chi_square_penalty, penalized=True),
}
"""Name -> ambiguity; the size is a radius (>= 0), or λ (> 0, units of v) for a penalty."""


def check_ambiguity(ambiguity: str, size) -> jax.Array:
    """The size as float64[].

    Raises:
      ValueError: an unknown name, a negative radius, a penalty <= 0, or more than one number.
    """
    if ambiguity not in AMBIGUITIES:
        raise ValueError(f"unknown ambiguity {ambiguity!r}: known are {', '.join(AMBIGUITIES)}")
    size = check_number("size", size, strict=AMBIGUITIES[ambiguity].penalized)
    if size.ndim:
        raise ValueError(f"size must be one number, not of shape {list(size.shape)}: use jax.vmap")
    return size


@float64
def worst_expectation(p, v, ambiguity: str, size) -> WorstCase:
    """The least expectation of v when the adversary may change p.

    `jax.vmap` over any of p, v and size inside ``jax.enable_x64(True)``.

    Args:
      p: float64[S], the nominal distribution.
      v: float64[S], finite.
      ambiguity: a key of `AMBIGUITIES`.
      size: radius >= 0 (TV: 0..1, more changes nothing; KL: nats), or λ > 0 in units of v.

    Raises:
      ValueError: p is no distribution, v not finite or of another length, or `check_ambiguity`.
    """
    size = check_ambiguity(ambiguity, size)
    p = as_float64("p", p, (None,))
    v = as_float64("v", v, p.shape[-1:])
    check_distribution("p", p)
    if not isinstance(v, jax.core.Tracer) and not np.isfinite(v).all():
        raise ValueError("v has values that are not finite")
    return jax.jit(AMBIGUITIES[ambiguity].worst)(p, v, size)
