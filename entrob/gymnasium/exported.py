"""What the scalar and the vector environment have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from entrob.errors import EntrobError
from entrob.gymnasium.instances import Params, drawing, opened, short, whole

#: What experiment files test with unless they say otherwise.
COUNT, EVALUATION_SEED = 200, 0


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
        modes = ["rgb_array"] if self.environment.pictures else []
        if render_mode is not None and render_mode not in modes:
            known = " or ".join(["None", *map(repr, modes)])
            raise EntrobError(f"{environment}: render_mode must be {known}, not {render_mode!r}")
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "render_modes": modes}
        if modes:
            self.metadata["render_fps"] = self.environment.fps

    def _picture(self, params: Params, state: Any) -> np.ndarray:
        """One state as uint8[height, width, 3]."""
        pictures = self.environment.pictures(params, jax.tree.map(lambda leaf: leaf[None], state))
        picture: np.ndarray = pictures[0]
        return picture

    def _numbers(self, instances: Sequence[int]) -> list[int]:
        return [whole("instance", number, 0, self.count - 1) for number in instances]


def only(options: dict[str, Any] | None, name: str) -> Any:
    """The one option that `reset` takes, None if it is not given."""
    if wrong := sorted(map(str, set(options or {}) - {name})):
        raise EntrobError(f"reset takes no option {wrong[0]!r}, only {name!r}")
    return (options or {}).get(name)
