"""What the scalar and the vector environment have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from entrob.envs.minigrid import MiniGrid
from entrob.envs.render import render_grid
from entrob.errors import EntrobError
from entrob.gymnasium.instances import Params, drawing, opened, short, whole

#: What experiment files test with unless they say otherwise.
COUNT, EVALUATION_SEED = 200, 0
#: Steps per second of pictures: a grid has no clock, Pusher and Ant take 50 ms per step.
GRID_FPS, PHYSICS_FPS = 10, 20


class Exported:
    """What the scalar and the vector environment have in common."""

    metadata: dict[str, Any]

    def _set_up(
        self,
        environment: str,
        wanted: Mapping[str, float] | None,
        count: int,
        evaluation_seed: int,
        render_mode: str | None,
        options: dict[str, Any],
    ) -> None:
        wanted = {} if wanted is None else wanted
        if not isinstance(wanted, Mapping):
            raise EntrobError(f"perturbations are names with magnitudes, not {short(wanted)}")
        self.environment, nominal = opened(environment, list(wanted), options)
        self.count = whole("count", count, 1, np.inf)
        seed = whole("evaluation_seed", evaluation_seed, 0, 2**32 - 1)
        self._draw = drawing(nominal, wanted, self.count, seed)
        self._nominal = nominal
        self._artist = artist(self.environment)
        modes = ["rgb_array"] if self._artist else []
        if render_mode is not None and render_mode not in modes:
            known = " or ".join(["None", *map(repr, modes)])
            raise EntrobError(f"{environment}: render_mode must be {known}, not {render_mode!r}")
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "render_modes": modes}
        if self._artist:
            self.metadata["render_fps"] = self._artist[1]

    def _numbers(self, instances: Sequence[int]) -> list[int]:
        return [whole("instance", number, 0, self.count - 1) for number in instances]


def artist(env: Any) -> tuple[Callable[[Params, Any], np.ndarray], int] | None:
    """What draws a state, ``(params, state) -> uint8[height, width, 3]``, and pictures a second.

    None for an environment of which there are no pictures.
    """
    if isinstance(env, MiniGrid):
        return lambda params, state: render_grid(env, params, state), GRID_FPS
    if not any(base.__module__.startswith("entrob.envs.mujoco.") for base in type(env).__mro__):
        return None
    from entrob.envs.mujoco.render import draw_episode  # loads MuJoCo, as the environment has

    def draw(params: Params, state: Any) -> np.ndarray:
        states = jax.tree.map(lambda leaf: leaf[None], state)
        picture: np.ndarray = draw_episode(env, params, states)[0]
        return picture

    return draw, PHYSICS_FPS


def only(options: dict[str, Any] | None, name: str) -> Any:
    """The one option that `reset` takes, None if it is not given."""
    if wrong := sorted(map(str, set(options or {}) - {name})):
        raise EntrobError(f"reset takes no option {wrong[0]!r}, only {name!r}")
    return (options or {}).get(name)
