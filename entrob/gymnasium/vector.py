"""Many copies of an environment for Gymnasium, stepped by one program."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from entrob.envs import Environment
from entrob.errors import EntrobError
from entrob.gymnasium.conversion import action_space, checked_action, observation_space
from entrob.gymnasium.exported import COUNT, EVALUATION_SEED, Exported, only
from entrob.gymnasium.instances import short, whole
from entrob.gymnasium.stepping import Episode, Seen, advance_many, begin_many


class VectorEnv(Exported, gymnasium.vector.VectorEnv[np.ndarray, Any, np.ndarray]):
    """Many copies of an environment in one compiled program, see `entrob.gymnasium`.

    A copy whose episode is over begins the next one in the following step, which reads no action of
    it and pays nothing: ``metadata["autoreset_mode"]`` is ``AutoresetMode.NEXT_STEP``.

    Args:
      environment: entrob's id, as `entrob.make` takes it.
      num_envs: how many copies, at least 1.
      perturbations: name -> magnitude, applied in this order, to all copies.
      instances: which draw each copy has, num_envs numbers in 0..count - 1; None: copy i has i, and
        from `count` on they begin again.
      count, evaluation_seed, render_mode, **options: as for `Env`.

    Attributes:
      environment: the gymnax `Environment`.
      params: the copies' params, leaves [N, ...].
      state: the copies' states, leaves [N, ...].

    Raises:
      EntrobError: as for `Env`, and for another number of instances than of copies.

    Example:
      >>> envs = VectorEnv("minigrid/empty-8x8", 4, {"wall": 6}, instances=[0, 0, 1, 1])
      >>> observations, infos = envs.reset(seed=0)
      >>> observations.shape
      (4, 7, 7, 3)
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": Environment.fps,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        environment: str,
        num_envs: int = 1,
        perturbations: Mapping[str, float] | None = None,
        instances: Sequence[int] | None = None,
        count: int = COUNT,
        evaluation_seed: int = EVALUATION_SEED,
        render_mode: str | None = None,
        **options: Any,
    ):
        self.num_envs = whole("num_envs", num_envs, 1, np.inf)
        self._set_up(environment, perturbations, count, evaluation_seed, render_mode, options)
        self._choose(np.arange(num_envs) % self.count if instances is None else instances)
        single = observation_space(self.environment, self._nominal, self.params)
        self.single_observation_space = single
        self.single_action_space = action_space(self.environment, self._nominal)
        self.observation_space = batch_space(single, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeded = [seeding.np_random() for _ in range(num_envs)]
        self._episodes: Episode | None = None
        self._over = np.zeros(num_envs, bool)

    def _choose(self, instances: Iterable[int]) -> None:
        self.params = self._draw(self._numbers(self._each("instances", instances)))

    def _each(self, what: str, values: Any) -> list[Any]:
        """One value for each copy; raises `EntrobError` unless there are that many."""
        listed = list(values) if isinstance(values, Iterable) else []
        if len(listed) != self.num_envs:
            raise EntrobError(f"{what} must be {self.num_envs} numbers, not {short(values)}")
        return listed

    @property
    def state(self) -> Any:
        """The states, leaves [N, ...]; raises `EntrobError` before the first reset."""
        if self._episodes is None:
            raise EntrobError("no episode has begun: call reset() first")
        return self._episodes.state

    # As gymnasium's own SyncVectorEnv overrides them: one for each copy, and read only.
    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The copies' generators, which their episodes' keys are drawn from."""
        return tuple(generator for generator, _ in self._seeded)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """What each of them was seeded with."""
        return tuple(seed for _, seed in self._seeded)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every copy: (observations [N, ...], infos).

        Args:
          seed: copy i gets seed + i, or its own of N seeds; None goes on with the last seeds'.
          options: ``{"instances": numbers}`` gives the copies other instances for good.

        Raises:
          EntrobError: another option, no such instance, or another number of seeds or instances.
        """
        instances = only(options, "instances")
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + i for i in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else self._each("seeds", seed)
        if instances is not None:
            self._choose(instances)
        for i, own in enumerate(seeds):
            if own is not None:
                self._seeded[i] = seeding.np_random(whole("seed", own, 0, np.inf))
        self._over[:] = False
        everyone = np.ones(self.num_envs, bool)
        begun = begin_many(self.environment, self._episode_seeds(everyone), self.params)
        self._episodes, seen = begun
        seen = jax.device_get(seen)
        return np.array(seen.observation), self._infos(seen)

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every copy: (observations, rewards, terminations, truncations, infos).

        Args:
          actions: [N, ...], of `action_space`; what lies outside a box's bounds is clipped to them.

        Returns:
          Observations [N, ...], float64[N], bool[N], bool[N], and arrays [N] by name.

        Raises:
          EntrobError: the actions are of another form, or `reset` has not been called.
        """
        if self._episodes is None:
            raise EntrobError("no episode has begun: call reset() first")
        actions = checked_action(self.single_action_space, actions, (self.num_envs,))
        self._episodes, seen = advance_many(
            self.environment,
            self._episodes,
            actions,
            self._over,
            self._episode_seeds(self._over),
            self.params,
        )
        seen = jax.device_get(seen)
        terminated, truncated = np.array(seen.terminated), np.array(seen.truncated)
        self._over = terminated | truncated
        rewards = seen.reward.astype(np.float64)  # as Gymnasium's own vector environments have them
        return np.array(seen.observation), rewards, terminated, truncated, self._infos(seen)

    def _episode_seeds(self, begins: np.ndarray) -> np.ndarray:
        """A seed for each copy that begins an episode, drawn from its generator: uint32[N]."""
        seeds = np.zeros(self.num_envs, np.uint32)
        for i in np.flatnonzero(begins):
            seeds[i] = self._seeded[i][0].integers(2**32, dtype=np.uint32)
        return seeds

    def _infos(self, seen: Seen) -> dict[str, Any]:
        """Gymnasium's form: beside each array a mask of the copies that have it, here all."""
        facts = {name: np.array(value) for name, value in seen.info.items()}
        return facts | {f"_{name}": np.ones(self.num_envs, bool) for name in facts}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The states as N pictures uint8[height, width, 3]; None without a render mode."""
        if self.render_mode is None:
            return None
        pictures = []
        for i in range(self.num_envs):
            params, state = jax.tree.map(lambda leaf, i=i: leaf[i], (self.params, self.state))
            pictures.append(self._picture(params, state))
        return tuple(pictures)
