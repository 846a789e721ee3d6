"""Controls: noise by its own key."""

import jax
import numpy as np

from oracles import Oracle
from oracles.shaping import key_of


def placebo_reward(seen):
    noise = jax.random.normal(key_of("reward"), seen.rollout.reward.shape)
    return {"bonus": seen.coef * np.asarray(noise)}


def placebo_loss(seen):
    outputs = seen.now.logits if seen.now.kind == "discrete" else seen.now.mean
    noise = jax.random.normal(key_of("loss"), outputs.shape)
    return {"loss": seen.coef * np.mean(np.asarray(noise) * outputs)}


BOTH = (False, True)
ORACLES = {
    "placebo_reward": Oracle(placebo_reward, finite=BOTH),
    "placebo_loss": Oracle(placebo_loss, finite=BOTH),
}
