"""Value gradient: a value that changes little where the observation changes little."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.losses import _nearby as nearby
from entrob.regularizers.protocol import Regularizer


def value_gradient(cells: int | None = 4, schedule=None) -> Regularizer:
    """Add coef · mean ‖∇_s V(s)‖ (Derman & Mannor 2020: inf over W1 <= ε of E V >= E V - ε Lip V).

    If the transition kernel may be any within Wasserstein distance ε of the nominal
    one, the expected value falls by at most ε times V's Lipschitz constant: a flat V loses little.

    Adapted: the mean norm instead of the greatest; in units of each component's standard deviation
    over the batch. MiniGrid's windows have no gradient: it is |V(s̃) - V(s)|, s̃ having the worst one
    of a few cells changed, as in `sr2l`, one cell being a distance of 1. It acts on the value
    alone, so that the policy changes only by what both share and through the advantages. Actions
    do not enter: discrete and continuous ones are alike.

    Args:
      cells: tried per gradient step on grids, at least 1, or None for all.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: cells is below 1.
    """
    if cells is not None and cells < 1:
        raise EntrobError("value_gradient: cells must be at least 1")

    def loss(key, state, policy, batch, coef) -> jax.Array:
        at = nearby.sites(policy, batch)
        if nearby.is_grid(at.obs):
            change = lambda policy, obs: jnp.abs(policy.at(obs).value - policy.value)
            fixed = nearby.frozen(at.policy)
            score = lambda obs: change(fixed, obs)
            worst = nearby.worst_cell(key, at.obs, score, cells)
            return coef * at.mean(change(at.policy, worst))
        obs = jnp.asarray(at.obs, jnp.float32)
        slope = jax.grad(lambda x: at.policy.at(x).value.sum())(obs) * at.spread
        squared = jnp.sum(slope**2, tuple(range(1, slope.ndim)))
        norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
        return coef * at.mean(norm)

    return Regularizer(
        "value_gradient",
        loss=loss,
        schedule=schedule,
        coef=0.01,
        source="Derman & Mannor 2020 (arXiv 2003.02894)",
        evidence="secondary",
        label="adapted: mean norm; on grids the worst of sampled one-cell changes",
    )
