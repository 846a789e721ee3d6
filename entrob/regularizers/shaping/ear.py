"""EAR: advantages reshaped by how sure the policy was in the whole episode."""

import jax.numpy as jnp

from entrob.regularizers.domain import MIXTURE
from entrob.regularizers.episodes import piece_of, sum_by_piece
from entrob.regularizers.protocol import Regularizer


def ear(schedule=None) -> Regularizer:
    """A ← A · (1 + coef · (H̄ - H_i) / H̄), H_i the episode's mean entropy (ETTRL, 2508.11356).

    H̄ is the mean of H_i over episodes. Episodes in which the policy was sure count more, others
    less, and those with H_i > 2 H̄ the other way round. The value target stays.

    coef = 1 is the paper's; less is a mixture with A.

    Adapted: an episode is its piece inside the rollout; A is GAE's,
    which PPO standardizes, not one that is standardized within a group of episodes. Entropy is
    H / log A, which leaves the formula alone, or the entropy share of a continuous policy (see
    `TanhNormal.entropy_share`), as a negative H would turn the factor's sense. Degenerate where
    entropy hardly depends on the state.

    Args:
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.
    """

    def advantage(state, rollout, coef):
        piece, entropy = piece_of(rollout), rollout.dist.entropy_share()
        length = sum_by_piece(jnp.ones_like(entropy), piece)
        own = sum_by_piece(entropy, piece) / jnp.maximum(length, 1.0)
        overall = own.sum() / (length > 0).sum()
        surprise = jnp.where(overall > 0, own / jnp.where(overall > 0, overall, 1.0), 1.0)
        return rollout.advantage * (1.0 + coef * (1.0 - surprise[piece]))

    return Regularizer(
        "ear",
        advantage=advantage,
        schedule=schedule,
        coef=1.0,
        domain=MIXTURE,
        source="Liu et al. 2025 (2508.11356)",
        evidence="secondary",
        label="adapted: pieces of episodes, entropy as a share of its maximum",
    )
