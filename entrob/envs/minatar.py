"""Two of gymnax's MinAtar games, those whose speeds and intervals are params.

gymnax's Breakout has none that a perturbation could change, its Freeway one. The games step as
gymnax's do, bit for bit where nothing is perturbed, and have no notion of success. Entropy features
say where the player is: between two observations of 10×10×C bits all things that moved count alike,
so that a screen full of bullets would be novelty enough.
"""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments.minatar import asterix, space_invaders

from entrob.envs.classic import traced
from entrob.envs.environment import Environment
from entrob.ranges import COUNT32, Range, declare

_FRAMES = Range(0, 2**31 - 1, whole=True)
declare(
    asterix.EnvParams,
    ramp_interval=COUNT32, init_spawn_speed=COUNT32, init_move_interval=COUNT32,
    shot_cool_down=_FRAMES,
)  # fmt: skip
declare(
    space_invaders.EnvParams,
    shot_cool_down=_FRAMES, enemy_move_interval=COUNT32, enemy_shot_interval=COUNT32,
)  # fmt: skip


class Asterix(asterix.MinAsterix, Environment):
    """gymnax's Asterix: collect gold, evade enemies; both cross the screen."""

    network = "minatar"

    @property
    def default_params(self) -> asterix.EnvParams:
        return traced(super().default_params)

    def step_env(self, key: jax.Array, state: Any, action: jax.Array, params: Any):
        """gymnax's step, with an interval between moves that stays above 0.

        gymnax shortens it as long as enemies still come faster, which ends in time only from its
        own start; at 0 nothing would move any more.
        """
        obs, state, *rest = super().step_env(key, state, action, params)
        return obs, state.replace(move_speed=jnp.maximum(state.move_speed, 1)), *rest

    def entropy_features(self, state: Any, params: Any) -> jax.Array:
        """The player's cell (x, y): float32[2]."""
        return jnp.stack([state.player_x, state.player_y]).astype(jnp.float32)


class SpaceInvaders(space_invaders.MinSpaceInvaders, Environment):
    """gymnax's SpaceInvaders: shoot the aliens, evade their bullets."""

    network = "minatar"

    @property
    def default_params(self) -> space_invaders.EnvParams:
        return traced(super().default_params)

    def entropy_features(self, state: Any, params: Any) -> jax.Array:
        """The cannon's column, and how many aliens are left: float32[2]."""
        left = jnp.count_nonzero(state.alien_map)
        return jnp.stack([state.pos, left]).astype(jnp.float32)
