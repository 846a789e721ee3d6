"""SR²L: a policy that does the same at observations that look the same."""

import jax

from entrob.errors import EntrobError
from entrob.regularizers.losses import _nearby as nearby
from entrob.regularizers.protocol import Regularizer


def sr2l(
    radius: float = 0.05,
    steps: int = 5,
    cells: int | None = 4,
    schedule=None,
) -> Regularizer:
    """Add coef · mean max ½[KL(π(s) ‖ π(s̃)) + KL(π(s̃) ‖ π(s))], s̃ near s (Shen et al. 2020, SR²L).

    What it does to observations that are a little off is what it does to the true ones; noise in
    the sensors then changes little.

    Adapted: |s̃ - s| <= ε in every component, in units of its standard deviation over the batch, by
    projected gradient ascent on the sign of the gradient; where observations are standardized that
    is the paper's normalization but for the running statistics. MiniGrid's windows have no
    neighbors at a small distance: s̃ has one cell changed to empty, wall or goal, the worst of all
    codes in a few cells drawn anew for every gradient step (all 48 cost 144 evaluations of the
    network); that is a far stronger demand than noise, as a wall may be reason to turn. With a
    recurrent policy all steps of a sequence change together. Other images (MinAtar's) are taken for
    numbers, like vectors. Discrete and continuous actions, few included, are alike.

    Args:
      radius: ε, at least 0; unused on grids.
      steps: of gradient ascent, at least 1; unused on grids.
      cells: tried per gradient step on grids, at least 1, or None for all.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (radius >= 0 and steps >= 1 and (cells is None or cells >= 1)):
        raise EntrobError("sr2l: radius must be at least 0, steps and cells at least 1")

    def divergence(policy, obs):
        """Jeffreys' divergence, halved, between π there and at obs: float32[S]."""
        other = policy.at(obs).dist
        return 0.5 * (policy.dist.kl(other) + other.kl(policy.dist))

    def loss(key, state, policy, batch, coef) -> jax.Array:
        at = nearby.sites(policy, batch)
        fixed = nearby.frozen(at.policy)
        score = lambda obs: divergence(fixed, obs)
        if nearby.is_grid(at.obs):
            worst = nearby.worst_cell(key, at.obs, score, cells)
        else:
            worst = nearby.ascend(key, at.obs, radius * at.spread, score, steps)
        return coef * at.mean(divergence(at.policy, jax.lax.stop_gradient(worst)))

    return Regularizer(
        "sr2l",
        loss=loss,
        schedule=schedule,
        coef=0.1,
        source="Shen et al. 2020 (arXiv 2003.09534)",
        evidence="secondary",
        label="adapted: radius per component; on grids the worst of sampled one-cell changes",
    )
