"""Checking an environment: whether it keeps the contract, and what it does not offer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs import make
from entrob.envs.environment import Environment, offers
from entrob.envs.widening import Params
from entrob.errors import EntrobError

#: Steps of the episodes that are played.
STEPS = 20


@dataclasses.dataclass(frozen=True)
class Abilities:
    """What was found of an environment that keeps the contract.

    Attributes:
      id: of the environment.
      lacking: what follows, by optional ability that it does not have, see
        `entrob.envs.Environment`.
    """

    id: str
    lacking: dict[str, str]

    def __str__(self) -> str:
        if not self.lacking:
            return f"{self.id} keeps the contract and has every optional ability"
        lines = [f"{self.id} keeps the contract; of the optional abilities it lacks"]
        return "\n".join([*lines, *(f"  {name}: {what}" for name, what in self.lacking.items())])


def check_environment(id: str, **options: Any) -> Abilities:
    """Play an environment with random actions, and say what it lacks.

    Args:
      id: as of `entrob.make`.
      **options: what it is built with.

    Returns:
      `Abilities`, which print as a list.

    Raises:
      EntrobError: it does not keep the contract: what is wrong, in one line.
    """
    env, params = make(id, **options)
    faults = _faults(env, params)
    if faults:
        raise EntrobError(f"{id} breaks the contract: {'; '.join(faults)}")
    return Abilities(id, _lacking(env))


def _lacking(env: Environment) -> dict[str, str]:
    consequences = {
        "finite": "it is evaluated by sampling, not exactly",
        "is_success": "it is scored by its return",
        "goal_distance": "there are no final distances",
        "entropy_features": "state entropy is that of the flat observation",
        "observation_spread": "observations can be blurred in raw units only "
        "(observation_noise_raw)",
        "disturbance": "no adversary's forces act on it",
        "trace": "no trajectories are drawn",
        "scene": "nothing stands in drawings",
        "pictures": "there are no animations",
        "cell": "there are no maps of occupancy",
        "network": "the network follows from the observation's shape",
        "check_params": "its params are held to their declared ranges, each for itself",
    }
    return {name: what for name, what in consequences.items() if not offers(env, name)}


def _faults(env: Environment, params: Params) -> list[str]:
    """What breaks the contract, a clause each."""
    key = jax.random.key(0)
    try:
        obs, state = jax.eval_shape(env.reset_env, key, params)
        action = jax.eval_shape(env.action_space(params).sample, key)
        after = jax.eval_shape(env.step_env, key, state, action, params)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        return [f"it does not trace ({type(error).__name__}: {reason})"]
    found = []
    loose = [x for x in jax.tree.leaves(params) if not isinstance(x, jax.Array | np.ndarray)]
    if loose:
        found.append(f"{len(loose)} leaves of its params are no arrays, so they cannot be stacked")
    if _form(obs) != _form(after[0]):
        found.append("step_env's observation has not the shape and dtype of reset_env's")
    if _form(state) != _form(after[1]):
        found.append("step_env's state has not the shapes and dtypes of reset_env's")
    for name, value in {"reward": after[2], "terminated": after[3]}.items():
        if value.shape != ():
            found.append(f"its {name} has shape {list(value.shape)} and is no scalar")
    if env.entropy_features is not None:
        axes = len(jax.eval_shape(env.entropy_features, state, params).shape)
        if axes != 1:
            found.append(f"entropy_features has {axes} axes, not one")
    return found or [*_table_faults(env, params), *_play_faults(env, params)]


def _table_faults(env: Environment, params: Params) -> list[str]:
    if not env.finite:
        return []
    try:
        index = np.asarray(jax.vmap(env.state_index)(env.states(params)))
    except NotImplementedError:
        return ["it says that it is finite and has no states or state_index"]
    counted = np.array_equal(index, np.arange(len(index)))
    return [] if counted else ["state_index does not give the places of states"]


def _play_faults(env: Environment, params: Params) -> list[str]:
    def play(key: jax.Array) -> Any:
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)

        def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
            key_act, key_env = jax.random.split(key)
            action = env.action_space(params).sample(key_act)
            obs, state, reward, terminated, _ = env.step_env(key_env, state, action, params)
            return state, (obs, reward, terminated, env.is_truncated(state, params))

        return obs, jax.lax.scan(step, state, jax.random.split(key_steps, STEPS))[1]

    program = jax.jit(play)
    one, other = (jax.tree.leaves(program(jax.random.key(0))) for _ in range(2))
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
    whole = all(jnp.isfinite(x).all() for x in one)
    found = [] if same else ["two episodes under one key differ"]
    return found if whole else [*found, "observations or rewards are not finite"]


def _form(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)
