"""Policies that can act, be played, shown and saved."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from entrob.agents.model import Gaussian, Model, PolicyParams, make_model, tempered
from entrob.agents.normalizer import Average
from entrob.compiling import in_32_bits
from entrob.envs import Environment, Task, make_task
from entrob.envs.render import save_gif
from entrob.errors import EntrobError
from entrob.estimators.moments import Moments
from entrob.evaluation.evaluator import instance_of
from entrob.persistence.store import write_bytes, write_json

#: Files of a saved policy.
WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"
#: Of the description; a file of another one is refused.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode of T steps.

    Attributes:
      env: what was played.
      params: its params, perturbed.
      states: leaves [T + 1, ...], the first one before the first step.
      observations: [T + 1, ...].
      actions: [T, ...], as they were executed.
      rewards: float32[T].
      terminated, truncated: how it ended.
      success: whether it ever succeeded.
    """

    env: Environment
    params: Any
    states: Any
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    success: bool

    @property
    def episode_return(self) -> float:
        """The sum of rewards."""
        return float(self.rewards.sum())

    def gif(self, path: str | Path, fps: float | None = None) -> None:
        """Write the episode as an animation; `fps` is by default the environment's.

        Raises:
          EntrobError: nothing can draw this environment.
        """
        if self.env.pictures is None:
            raise EntrobError(f"{self.env.name} cannot be drawn: it has no pictures")
        pictures = self.env.pictures(self.params, self.states)
        save_gif(path, list(pictures), self.env.fps if fps is None else fps)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained policy, and what it was trained in.

    Attributes:
      environment: id of the environment.
      weights: `PolicyParams`: the network's parameters and what observations are standardized by.
      network: name of the network, see `entrob.agents.model.NETWORKS`, or a module; None: the
        environment's own.
      options: what the environment was built with.
      params: its params that differ from the nominal ones, by name.
      temperature: what the distribution over actions is tempered by.
      log_std: how a log standard deviation is bounded, see `entrob.agents.spec.Spec`.
      provenance: how it came about, as JSON-like values.
    """

    environment: str
    weights: PolicyParams
    network: str | nn.Module | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    log_std: str = "clip"
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def task(self) -> Task:
        """What it was trained in, without what perturbed the training."""
        return make_task(self.environment, **self.options).with_params(dict(self.params))

    @functools.cached_property
    def model(self) -> Model:
        """Functions of `weights`, without the temperature."""
        return make_model(self.task.env, self.network, gaussian=Gaussian(self.log_std))

    @functools.cached_property
    def _players(self) -> dict[tuple[bool, int], Callable[..., Any]]:
        """What plays an episode, by whether the environment is without noise and by horizon."""
        return {}

    def initial(self) -> Any:
        """What the policy remembers when an episode begins."""
        return self.model.initial()

    def act(self, key: jax.Array, carry: Any, obs: jax.Array) -> tuple[jax.Array, Any]:
        """Sample an action for one environment.

        Pure and traceable; `jax.jit` it to call it often, `jax.vmap` it for many environments.

        Args:
          key: PRNG key.
          carry: what the policy remembers, `initial` at first.
          obs: one observation.

        Returns:
          ``(action, carry)``.
        """
        if self.temperature == 1:
            return self.model.act(key, self.weights, carry, obs)
        hot = self.weights, np.float32(self.temperature)
        return tempered(self.model).act(key, hot, carry, obs)

    @in_32_bits
    def episode(
        self, *, seed: int = 0, instance: int = 0, instances: int = 200, **perturbations: float
    ) -> Episode:
        """Play one episode.

        Args:
          seed: as of `entrob.evaluate`.
          instance: which instance of the perturbations, below `instances`.
          instances: how many a test has.
          **perturbations: magnitude by name, e.g. ``wall=6``; none: the nominal environment.

        Raises:
          EntrobError: an unknown perturbation, a magnitude out of range, or no such instance.
        """
        env, params, key = instance_of(self.task, perturbations, instance, instances, seed)
        horizon = int(params.max_steps_in_episode)
        which = env is self.task.env, horizon
        if which not in self._players:
            self._players[which] = jax.jit(lambda p, key: _played(env, self, p, key, horizon))
        play = self._players[which]
        states, observations, actions, rewards, flags = play(params, key)
        ended = np.asarray(flags["terminated"] | flags["truncated"])
        steps = int(np.argmax(ended)) + 1 if ended.any() else horizon
        head: Callable[[Any, int], Any] = lambda tree, n: jax.tree.map(
            lambda x: np.asarray(x)[:n], tree
        )
        return Episode(
            env,
            params,
            head(states, steps + 1),
            head(observations, steps + 1),
            head(actions, steps),
            head(rewards, steps),
            bool(flags["terminated"][steps - 1]),
            bool(flags["truncated"][steps - 1]),
            bool(flags["success"][:steps].any()),
        )

    def gif(self, path: str | Path, **episode: Any) -> Episode:
        """Play an episode, write it as an animation and return it; arguments of `episode`."""
        played: Episode = self.episode(**episode)
        played.gif(path)
        return played

    def save(self, folder: str | Path) -> None:
        """Write the policy: `WEIGHTS` (safetensors) and `DESCRIPTION` (JSON).

        Raises:
          EntrobError: the folder cannot be written, or the network is a module, which has no name.
        """
        if isinstance(self.network, nn.Module):
            raise EntrobError("a policy of a network of your own cannot be saved: it has no name")
        folder, moments = Path(folder), self.weights.moments
        tree = {"network": self.weights.network}
        if moments:
            tree["moments"] = moments._asdict()
        flat = flax.traverse_util.flatten_dict(tree, sep="/")
        arrays = {name: np.ascontiguousarray(x) for name, x in flat.items()}
        write_bytes(folder / WEIGHTS, safetensors.numpy.save(arrays))
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        write_json(
            folder / DESCRIPTION,
            {"format": FORMAT, **{k: v for k, v in facts.items() if k != "weights"}},
        )


def _played(
    env: Environment, policy: Policy, params: Any, key: jax.Array, horizon: int
) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
    """States and observations [T + 1], actions, rewards and flags [T], also after the end."""
    key_reset, key_steps = jax.random.split(key)
    obs, state = env.reset_env(key_reset, params)

    def step(loop: Any, key: jax.Array) -> tuple[Any, Any]:
        obs, state, carry = loop
        key_act, key_env = jax.random.split(key)
        action, carry = policy.act(key_act, carry, obs)
        obs, state, reward, terminated, _ = env.step_env(key_env, state, action, params)
        flags = {"terminated": terminated, "truncated": env.is_truncated(state, params)}
        flags["success"] = env.is_success(state, params)
        return (obs, state, carry), (state, obs, action, reward, flags)

    keys = jax.random.split(key_steps, horizon)
    _, (states, seen, actions, rewards, flags) = jax.lax.scan(
        step, (obs, state, policy.initial()), keys
    )
    whole: Callable[[Any, Any], Any] = lambda first, rest: jax.tree.map(
        lambda a, b: jax.numpy.concatenate([jax.numpy.asarray(a, b.dtype)[None], b]), first, rest
    )
    return whole(state, states), whole(obs, seen), actions, rewards, flags


def read_policy(folder: str | Path) -> Policy:
    """A policy that `Policy.save` wrote.

    Raises:
      EntrobError: the folder holds none, or one of another format.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        arrays = safetensors.numpy.load((folder / WEIGHTS).read_bytes())
    except FileNotFoundError as error:
        raise EntrobError(f"{folder} holds no policy (no {Path(error.filename).name})") from None
    except (ValueError, OSError, safetensors.SafetensorError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise EntrobError(f"the policy in {folder} cannot be read ({reason})") from error
    if facts.pop("format", None) != FORMAT:
        raise EntrobError(f"the policy in {folder} was saved by another version of entrob")
    tree = flax.traverse_util.unflatten_dict(arrays, sep="/")
    moments = tree.get("moments", ())
    if moments:
        moments = (Average if "variance" in moments else Moments)(**moments)
    return Policy(weights=PolicyParams(tree["network"], moments), **facts)
