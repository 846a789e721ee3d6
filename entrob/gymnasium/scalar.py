"""One copy of an environment for Gymnasium."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import jax
import numpy as np

from entrob.envs import Environment
from entrob.errors import EntrobError
from entrob.gymnasium.conversion import action_space, checked_action, observation_space
from entrob.gymnasium.exported import COUNT, EVALUATION_SEED, Exported, only
from entrob.gymnasium.stepping import Episode, advance_one, begin_one


class Env(Exported, gymnasium.Env[np.ndarray, Any]):
    """One copy of an environment, see `entrob.gymnasium`.

    Args:
      environment: entrob's id, e.g. ``"minigrid/empty-8x8"``, as `entrob.make` takes it.
      perturbations: name -> magnitude, applied in this order; none by default.
      instance: which draw of them, 0..count - 1.
      count: how many draws there are, at least 1.
      evaluation_seed: where they come from, 0..2^32 - 1.
      render_mode: None or, for grids, Pusher and Ant, ``"rgb_array"``.
      **options: what the environment is built with, as for `entrob.make`.

    Attributes:
      environment: the gymnax `Environment`.
      params: its params, perturbed.
      state: its state.
      observation_space, action_space: of the shape and dtype of what is returned and taken.

    Raises:
      EntrobError: the environment, a perturbation or an option is unknown or does not fit, or a
        magnitude or number is out of range.

    Example:
      >>> env = Env("minigrid/empty-8x8", perturbations={"wall": 6}, instance=3)
      >>> observation, info = env.reset(seed=0)
      >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": Environment.fps}  # noqa: RUF012

    def __init__(
        self,
        environment: str,
        perturbations: Mapping[str, float] | None = None,
        instance: int = 0,
        count: int = COUNT,
        evaluation_seed: int = EVALUATION_SEED,
        render_mode: str | None = None,
        **options: Any,
    ):
        self._set_up(environment, perturbations, count, evaluation_seed, render_mode, options)
        self._choose(instance)
        self.observation_space = observation_space(self.environment, self._nominal, self.params)
        self.action_space = action_space(self.environment, self._nominal)
        self._episode: Episode | None = None
        self._over = False

    def _choose(self, instance: int) -> None:
        drawn = self._draw(self._numbers([instance]))
        self.params = jax.tree.map(lambda leaf: leaf[0], drawn)

    @property
    def state(self) -> Any:
        """The environment's state; raises `EntrobError` before the first reset."""
        if self._episode is None:
            raise EntrobError("no episode has begun: call reset() first")
        return self._episode.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: (observation, info).

        Args:
          seed: fixes this episode and all that follow; None goes on with the last seed's.
          options: ``{"instance": number}`` goes over to another instance for good.

        Raises:
          EntrobError: another option, or no such instance.
        """
        instance = only(options, "instance")
        super().reset(seed=seed)
        if instance is not None:
            self._choose(instance)
        episode_seed = self.np_random.integers(2**32, dtype=np.uint32)
        self._episode, seen = begin_one(self.environment, episode_seed, self.params)
        self._over = False
        seen = jax.device_get(seen)
        return np.array(seen.observation), _plain(seen.info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step: (observation, reward, terminated, truncated, info).

        Args:
          action: of `action_space`; what lies outside a box's bounds is clipped to them.

        Raises:
          EntrobError: the action is of another form, or no episode is under way.
        """
        if self._episode is None or self._over:
            state = "no episode has begun" if self._episode is None else "the episode is over"
            raise EntrobError(f"{state}: call reset() first")
        action = checked_action(self.action_space, action, ())
        self._episode, seen = advance_one(self.environment, self._episode, action, self.params)
        seen = jax.device_get(seen)
        terminated, truncated = bool(seen.terminated), bool(seen.truncated)
        self._over = terminated or truncated
        info = _plain(seen.info)
        return np.array(seen.observation), float(seen.reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """The state as uint8[height, width, 3]; None without a render mode."""
        return None if self.render_mode is None else self._picture(self.params, self.state)


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """Zero-dimensional arrays as Python's bool and float."""
    return {name: value.item() for name, value in info.items()}
