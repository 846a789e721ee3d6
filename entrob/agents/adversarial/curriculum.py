"""QARL's curriculum: how rational its adversary is, and when it becomes more so.

The adversary maximizes -R + τ H. In every episode τ is drawn from a gamma distribution of shape κ
and rate `RATE`; with κ it falls from 0.05 to 0.001 on average, in units of the reward. After
`WINDOW` episodes (Reddi et al. 2024, section 4)

    κ ← argmin KL(Γ_κ' ‖ Γ_1)  s.t.  KL(Γ_κ' ‖ Γ_κ) ≤ 0.5,  Σ w_i R_i / Σ w_i ≥ bound,

w_i = Γ_κ'(τ_i) / Γ_κi(τ_i), with κ_i what τ_i was drawn with.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

RATE = 1000.0
#: The shape of the curriculum's first distribution and of its target.
FIRST, TARGET = 50.0, 1.0
#: Episodes per step of the curriculum, and the largest step, in nats.
WINDOW, STEP = 30, 0.5
# Shapes that are tried within a step, on a geometric grid, and bisections for its ends.
CANDIDATES, BISECTIONS = 256, 30


class Curriculum(NamedTuple):
    """Where one run's curriculum stands.

    Attributes:
      shape: float32[], κ.
      bound: float32[], the return that must be kept; NaN until the first window is full, where
        that is to say.
      count: int32[], episodes in the window.
      temperatures, shapes, returns: float32[WINDOW], of these episodes: τ, the κ it was drawn
        with, and the protagonist's undiscounted return.
    """

    shape: jax.Array
    bound: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count
    temperatures: jax.Array
    shapes: jax.Array
    returns: jax.Array


def start(bound: float | None) -> Curriculum:
    """The curriculum before training; bound None is that of the first window."""
    empty = jnp.zeros(WINDOW)
    kept = jnp.float32(jnp.nan if bound is None else bound)
    return Curriculum(jnp.float32(FIRST), kept, jnp.int32(0), empty, empty + FIRST, empty)


def draw(key: jax.Array, shape: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Temperatures τ of episodes, gamma with this shape and `RATE`: float32[size]."""
    return jax.random.gamma(key, shape, size) / RATE


def kl(p: jax.Array, q: jax.Array | float) -> jax.Array:
    """KL(Γ_p ‖ Γ_q) in nats, between gamma distributions of these shapes and one rate."""
    return (p - q) * digamma(p) - gammaln(p) + gammaln(q)


def advance(
    curriculum: Curriculum,
    temperatures: jax.Array,
    shapes: jax.Array,
    returns: jax.Array,
    ended: jax.Array,
) -> Curriculum:
    """Put a rollout's episodes into the window; if it is full, take a step and begin anew.

    At most one step is taken: what does not fit the window any more is left out.

    Args:
      temperatures, shapes, returns: float32[T, N], of the episodes, at each of their steps.
      ended: bool[T, N], whether an episode ended with the step.
    """
    ended = ended.ravel()
    place = jnp.where(ended, curriculum.count + jnp.cumsum(ended) - 1, WINDOW)
    olds = curriculum.temperatures, curriculum.shapes, curriculum.returns
    window = (
        old.at[place].set(new.ravel(), mode="drop")
        for old, new in zip(olds, (temperatures, shapes, returns))
    )
    count = jnp.minimum(curriculum.count + ended.sum(), WINDOW).astype(jnp.int32)
    filled = Curriculum(curriculum.shape, curriculum.bound, count, *window)
    bound = jnp.where(jnp.isnan(filled.bound), filled.returns.mean(), filled.bound)
    stepped = filled._replace(bound=bound, count=jnp.int32(0))
    stepped = stepped._replace(shape=solve(stepped))
    return jax.tree.map(lambda a, b: jnp.where(count == WINDOW, a, b), stepped, filled)


def solve(curriculum: Curriculum) -> jax.Array:
    """The next κ given a full window: float32[]; the present one if no other is allowed."""
    now = curriculum.shape
    # KL grows to both sides of the present κ.
    low, high = (_edge(now, jnp.log(end / now)) for end in (1e-3, 1e3))
    tried = jnp.exp(jnp.linspace(low, high, CANDIDATES)) * now
    # The target itself, where it is within reach.
    reached = jnp.clip(TARGET, tried[0], tried[-1])
    tried = jnp.append(tried, reached)
    tau = curriculum.temperatures * RATE
    old = curriculum.shapes
    ratio = (tried[:, None] - old) * jnp.log(tau) - gammaln(tried)[:, None] + gammaln(old)
    expected = jax.nn.softmax(ratio, axis=-1) @ curriculum.returns
    cost = jnp.where(expected >= curriculum.bound, kl(tried, TARGET), jnp.inf)
    best = jnp.argmin(cost)
    return jnp.where(jnp.isfinite(cost[best]), tried[best], now)


def _edge(now: jax.Array, end: jax.Array) -> jax.Array:
    """How far towards `end`, in log κ from the present one, KL stays within `STEP`: float32[]."""

    def halve(_, ends):
        inside, outside = ends
        middle = (inside + outside) / 2
        far = kl(jnp.exp(middle) * now, now) > STEP
        return jnp.where(far, inside, middle), jnp.where(far, middle, outside)

    return jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(end), end))[0]
