"""Testing any policy under perturbations: ours, or whatever maps observations to actions."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from entrob.compiling import compiler_options, in_32_bits
from entrob.envs import Task, make_task
from entrob.errors import EntrobError
from entrob.evaluation.batch import Outcome
from entrob.evaluation.evaluator import Condition, Evaluator
from entrob.evaluation.exact import optimal_steps, transitions
from entrob.evaluation.sampled import play
from entrob.library.policy import Policy
from entrob.perturbations import NOMINAL
from entrob.perturbations import perturbations as known
from entrob.perturbations.base import check_magnitude

#: ``(key, carry, obs) -> (action, carry)``.
Act = Callable[[jax.Array, Any, Any], tuple[Any, Any]]
#: ``(name, function that makes a program) -> program``.
Once = Callable[[str, Callable[[], Any]], Any]
#: ``(perturbation, magnitude) -> a record per policy``.
Test = Callable[[str, float], list[dict[str, Any]]]


@in_32_bits
def evaluate(
    policies: Policy | Act | Iterable[Policy | Act],
    environment: str | None = None,
    perturbations: Mapping[str, float | Iterable[float]] | None = None,
    *,
    instances: int = 200,
    episodes: int = 1,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Test policies nominally and under perturbations, all on the same instances and episodes.

    Args:
      policies: a `Policy`, a function ``(key, carry, obs) -> (action, carry)`` of one environment,
        or several of them. If a function has a method ``initial``, an episode begins with
        ``initial()`` as its carry, else with ``()``. One that JAX can trace is compiled; another
        one, such as a wrapper of a PyTorch module, is called step by step.
      environment: id of the environment; by default the policies' own.
      perturbations: a magnitude, or several, by name.
      instances: of each perturbation at each magnitude.
      episodes: on each instance.
      seed: where the keys of instances and episodes come from.
      params: the environment's params that differ from the nominal ones; by default what the
        policies were trained with.

    Returns:
      A row per policy × condition: ``policy``, its place; ``perturbation`` and ``magnitude``, of
      which ``nominal`` and 0 come first; and what `entrob.evaluation.records.records` says.

    Raises:
      EntrobError: an unknown environment or perturbation, a magnitude out of range, no policies, or
        a function without an environment.
    """
    many: list[Policy | Act]
    many = [policies] if isinstance(policies, Policy) or callable(policies) else list(policies)
    if not many:
        raise EntrobError("there are no policies to test")
    alike: dict[Any, list[int]] = {}
    for place, policy in enumerate(many):
        alike.setdefault(_kind(policy), []).append(place)
    frames = []
    for places in alike.values():
        first = many[places[0]]
        task = _task(first, environment, params)
        conditions = _conditions(task, perturbations or {})
        evaluator = Evaluator(instances, episodes, seed)
        if isinstance(first, Policy):
            own = [policy for place in places if isinstance(policy := many[place], Policy)]
            test = _of_policies(evaluator, task, own)
        else:
            test = _of_function(evaluator, task, first)
        nominal = test(NOMINAL, 0.0)
        found = [(NOMINAL, 0.0, nominal)]
        found += [(name, m, test(name, m) if m else nominal) for name, m in conditions]
        frames += [
            {"policy": place, "perturbation": name, "magnitude": m, **record}
            for name, m, records in found
            for place, record in zip(places, records)
        ]
    table = pd.DataFrame(frames).sort_values("policy", kind="stable", ignore_index=True)
    return table


def _kind(policy: Any) -> Any:
    """Policies of a kind are tested by one program."""
    if not isinstance(policy, Policy):
        return id(policy)
    facts = policy.environment, policy.network, policy.options, policy.params
    return json.dumps(facts, default=repr)


def _task(policy: Any, environment: str | None, params: Mapping[str, Any] | None) -> Task:
    if isinstance(policy, Policy) and environment in (None, policy.environment):
        return policy.task if params is None else policy.task.with_params(dict(params))
    if environment is None:
        raise EntrobError("a function needs an environment to be tested in")
    return make_task(environment).with_params(dict(params or {}))


def _conditions(
    task: Task, wanted: Mapping[str, float | Iterable[float]]
) -> list[tuple[str, float]]:
    """Pairs of name and magnitude, checked against the perturbations' ranges."""
    pairs = []
    for name, values in wanted.items():
        entry = known.get(name, task.noisy_params)
        for value in values if isinstance(values, Iterable) else [values]:
            check_magnitude(entry, task.noisy_params, value)
            pairs.append((name, float(value)))
    return pairs


def _of_policies(evaluator: Evaluator, task: Task, policies: list[Policy]) -> Test:
    """``(perturbation, magnitude) -> a record per policy``, of policies of a kind."""
    weights = jax.tree.map(lambda *x: np.stack(x), *(policy.weights for policy in policies))
    heat = np.array([policy.temperature for policy in policies], np.float32)
    model = policies[0].model

    def test(name: str, magnitude: float) -> list[dict[str, Any]]:
        found = evaluator.outcome(task, model, weights, name, magnitude, heat)
        return evaluator.recorded(*found)

    return test


def _of_function(evaluator: Evaluator, task: Task, act: Act) -> Test:
    """As `_of_policies`, of one function."""
    initial = getattr(act, "initial", tuple)
    played = _traced if _traces(act, initial, task) else _stepped

    def test(name: str, magnitude: float) -> list[dict[str, Any]]:
        condition = evaluator.condition(task, name, magnitude)
        own = condition.env is task.env, condition.horizon
        once: Once = lambda what, make: evaluator.once((what, "of a function", *own), make)
        return evaluator.recorded(played(act, initial, condition, once), condition.horizon)

    return test


def _traces(act: Act, initial: Callable[[], Any], task: Task) -> bool:
    """Whether JAX can trace a function."""
    obs, _ = jax.eval_shape(task.env.reset_env, jax.random.key(0), task.params)
    try:
        jax.eval_shape(act, jax.random.key(0), initial(), obs)
    except Exception:  # whatever a user's function says of tracers
        return False
    return True


def _traced(act: Act, initial: Callable[[], Any], condition: Condition, once: Once) -> Outcome:
    env, params, keys, horizon = condition

    def episode(params: Any, key: jax.Array) -> Any:
        chosen = lambda key, carry, state, obs: act(key, carry, obs)
        return play(env, chosen, initial(), params, key, horizon)

    program = once("play", lambda: jax.jit(jax.vmap(episode), compiler_options=compiler_options()))
    *found, _ = jax.tree.map(np.asarray, program(params, keys))
    return _outcome(condition, once, *found)


def _stepped(act: Act, initial: Callable[[], Any], condition: Condition, once: Once) -> Outcome:
    """As `entrob.evaluation.sampled.play` does, the function called once per episode and step."""
    env, params, keys, horizon = condition
    count = len(keys)

    def begin(key: jax.Array, params: Any) -> tuple[Any, ...]:
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)
        pairs = jax.vmap(jax.random.split)(jax.random.split(key_steps, horizon))
        return obs, state, pairs, env.goal_distance(state, params)

    def step(key: jax.Array, state: Any, action: jax.Array, params: Any) -> tuple[Any, ...]:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        ended = terminated | env.is_truncated(state, params)
        success = env.is_success(state, params)
        ended |= success & env.ends_at_success
        return obs, state, reward, ended, success, env.goal_distance(state, params)

    compiled: Callable[[Callable[..., Any]], Any] = lambda f: once(
        f.__name__, lambda: jax.jit(jax.vmap(f))
    )
    obs, state, pairs, distance = compiled(begin)(keys, params)
    distance = np.array(distance)
    carries = [initial() for _ in range(count)]
    alive, steps = np.ones(count, bool), np.zeros(count, np.int32)
    returns = np.zeros(count, np.float32)
    for time in range(horizon):
        if not alive.any():
            break
        seen, actions = jax.tree.map(np.asarray, obs), []
        for i in range(count):
            here = jax.tree.map(lambda x, i=i: x[i], seen)
            action, carries[i] = act(pairs[i, time, 0], carries[i], here)
            actions.append(np.asarray(action))
        key_steps, chosen = pairs[:, time, 1], jnp.asarray(np.stack(actions))
        obs, state, *found = compiled(step)(key_steps, state, chosen, params)
        reward, ended, success, far = (np.asarray(x) for x in found)
        returns += np.where(alive, reward, 0)
        steps = np.where(alive & success & (steps == 0), time + 1, steps)
        distance = np.where(alive, far, distance)
        alive &= ~ended
    return _outcome(condition, once, steps, returns, distance)


def _outcome(condition: Condition, once: Once, steps: Any, returns: Any, distance: Any) -> Outcome:
    """The outcome of one policy, whose success probabilities are unknown."""
    one: Callable[[Any], np.ndarray] = lambda x: np.asarray(x)[None]
    unknown = np.full((1, len(steps)), np.nan, np.float32)
    optimum, env = np.full(len(steps), -1), condition.env
    if env.finite:
        solve = once(
            "solve", lambda: jax.jit(jax.vmap(lambda p: optimal_steps(transitions(env, p))))
        )
        optimum = np.asarray(solve(condition.params))
    return Outcome(one(steps), one(returns), one(distance), unknown, unknown[:, :0], None, optimum)
