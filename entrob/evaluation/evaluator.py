"""Testing policies of a task under perturbations, with programs that are compiled once each."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.agents.model import Model, tempered
from entrob.compiling import compiler_options, everywhere, padded, sharded
from entrob.envs import Environment, Task
from entrob.errors import EntrobError
from entrob.evaluation.batch import Outcome, Same, distinct, evaluate, views
from entrob.evaluation.records import records
from entrob.evaluation.uniform import uniform_model
from entrob.perturbations import NOMINAL, instance_keys, needs_noise, perturb, perturbations


class Condition(NamedTuple):
    """What policies are tested in: I episodes under one perturbation at one magnitude.

    Attributes:
      env: the environment.
      params: of the instances, leaves [I, ...].
      keys: PRNG keys of the episodes [I].
      horizon: steps of an episode at most.
    """

    env: Environment
    params: Any
    keys: jax.Array
    horizon: int


class Evaluator:
    """Compiles each program once and applies it to all policies and magnitudes.

    Perturbations of the environment's own params share one program, those whose environment carries
    noise another; the magnitude is data. The same keys serve every policy and magnitude, so that
    comparisons are paired.

    Args:
      instances: of every perturbation at every magnitude.
      episodes: on each instance.
      seed: where the keys of instances and episodes come from.

    Attributes:
      compile_s: seconds spent compiling so far.
    """

    def __init__(self, instances: int, episodes: int = 1, seed: int = 0):
        self.instances, self.episodes, self.seed = instances, episodes, seed
        self.compile_s = 0.0
        self._compiled: dict[Any, Any] = {}

    def condition(self, task: Task, name: str, magnitude: float) -> Condition:
        """The instances of a perturbation, or of `NOMINAL` at 0; several episodes repeat params."""
        # What perturbs the training is no part of the test.
        env, params = task.pair(noise=name != NOMINAL and needs_noise(name))
        key_episode = jax.random.split(jax.random.key(self.seed))[1]
        draw = self.once(("draw", name, type(env)), lambda: jax.jit(_draw(name)))
        keys = keys_of_instances(self.seed, name, params, self.instances)
        keys = keys[np.repeat(np.arange(self.instances), self.episodes)]
        drawn = draw(keys, params, jnp.float32(magnitude))
        keys = jax.random.split(key_episode, self.instances * self.episodes)
        return Condition(env, drawn, keys, int(params.max_steps_in_episode))

    def outcome(
        self,
        task: Task,
        model: Model,
        policies: Any,
        name: str,
        magnitude: float,
        temperature: np.ndarray | None = None,
    ) -> tuple[Outcome, int]:
        """All policies under one perturbation at one magnitude, and the horizon.

        Args:
          task: what they are tested in.
          model: the policies' functions.
          policies: their params, leaves [R, ...].
          name, magnitude: a perturbation, or `NOMINAL` and 0.
          temperature: float32[R], what they are tempered by; None: nothing.

        Returns:
          `Outcome` of NumPy arrays, leaves [R, ...], and the number of steps.
        """
        env, params, keys, horizon = self.condition(task, name, magnitude)
        runs = len(jax.tree.leaves(policies)[0])
        hot = temperature is not None and bool((temperature != 1).any())
        if hot:
            policies, model = (policies, temperature), tempered(model)
        same = None
        if (env.finite or env.few_views) and not model.recurrent:
            look = self.once(("views", type(env)), lambda: jax.jit(jax.vmap(partial(views, env))))
            same = Same(distinct(params), distinct(look(params)))
        # As few at a time as there can be, so that batches of all widths share a program.
        width = padded(1)
        blocks = [_block(policies, slice(at, at + width), width) for at in range(0, runs, width)]
        given = jax.device_put((params, keys, same), everywhere())
        shapes = tuple(x.shape for x in jax.tree.leaves(blocks[0]))
        play = self.once(
            ("play", type(env), horizon, len(keys), shapes, hot),
            lambda: self._compile(env, model, horizon, (blocks[0], *given)),
        )
        # All are begun before the first is waited for.
        found = jax.tree.map(np.asarray, [play(block, *given) for block in blocks])
        whole = jax.tree.map(lambda *parts: np.concatenate(parts)[:runs], *found)
        return whole._replace(optimum=found[0].optimum[0]), horizon

    def recorded(self, outcome: Outcome, horizon: int) -> list[dict[str, Any]]:
        """A record per policy of an outcome, see `entrob.evaluation.records.records`."""
        return records(outcome._replace(trace=None), horizon, episodes=self.episodes)

    def random(self, task: Task, name: str, magnitude: float) -> dict[str, Any]:
        """The record of the uniformly random policy under one condition."""
        env, params, keys, horizon = self.condition(task, name, magnitude)
        play = self.once(("random", type(env), horizon), lambda: _uniform(env, horizon))
        (record,) = self.recorded(jax.tree.map(np.asarray, play(params, keys)), horizon)
        return record

    def _compile(self, env: Environment, model: Model, horizon: int, args: tuple) -> Callable:
        started = time.perf_counter()

        def play(policies, params, keys, same):
            outcome = evaluate(env, model, horizon, policies, params, keys, same)
            return outcome._replace(optimum=outcome.optimum[None])

        compiled = sharded(play, (True, False, False, False)).lower(*args).compile()
        self.compile_s += time.perf_counter() - started
        return compiled

    def once(self, key: Any, make_it: Callable[[], Any]) -> Any:
        """What `make_it` makes, a program, made at the first call with a key only."""
        if key not in self._compiled:
            self._compiled[key] = make_it()
        return self._compiled[key]


def keys_of_instances(
    seed: int, name: str, params: Any, count: int, position: int = 0
) -> jax.Array:
    """The keys of a test's instances, the same for all that is compared: keys[count].

    Args:
      seed: of the test.
      name: a perturbation or `NOMINAL`.
      params: the environment's, nominal.
      count: how many instances there are.
      position: of the perturbation among several that act in turn; the first one has the keys that
        it has alone.
    """
    key = jax.random.split(jax.random.key(seed))[0]  # the other is for episodes
    key = jax.random.fold_in(key, position) if position else key
    if name == NOMINAL:
        return jax.random.split(key, count)
    return instance_keys(key, perturbations.get(name, params), count)


def _block(policies: Any, part: slice, width: int) -> Any:
    """Some of the policies as leaves [width, ...]; where they are fewer the last is repeated."""

    def cut(x):
        some = x[part]
        return np.concatenate([some, some[-1:].repeat(width - len(some), 0)])

    return jax.tree.map(cut, policies)


def _draw(name: str) -> Callable:
    """``(keys [I], params, magnitude) -> params [I]``, all the same without a perturbation."""
    if name == NOMINAL:
        repeat = lambda x, n: jnp.broadcast_to(x, (n, *jnp.shape(x)))
        return lambda keys, p, m: jax.tree.map(lambda x: repeat(x, len(keys)), p)
    return lambda keys, p, m: jax.vmap(lambda k: perturb(k, p, name, m))(keys)


def _uniform(env: Environment, horizon: int) -> Callable:
    """What tests the uniformly random policy: ``(instances, keys) -> Outcome`` of one policy."""
    model = uniform_model(env)
    # One policy that has no parameters, but still an axis of policies.
    only = {"none": jnp.zeros(1)}
    return jax.jit(
        lambda instances, keys: evaluate(env, model, horizon, only, instances, keys),
        compiler_options=compiler_options(),
    )


def instance_of(
    task: Task, perturbations: Mapping[str, float], instance: int, instances: int, seed: int
) -> tuple[Environment, Any, jax.Array]:
    """One episode of a test: ``(env, params, key of the episode)``.

    Under one perturbation it is the one of that number that an `Evaluator` of so many instances and
    that seed plays. Several act in turn, see `keys_of_instances`.

    Args:
      task: what is played.
      perturbations: magnitude by name; none: the nominal environment.
      instance: its number, below `instances`.
      instances, seed: as of `Evaluator`.

    Raises:
      EntrobError: no such instance, an unknown perturbation, or a magnitude out of range.
    """
    if not 0 <= instance < instances:
        raise EntrobError(f"instance must be in 0..{instances - 1}, not {instance}")
    env, params = task.pair(noise=any(map(needs_noise, perturbations)))
    for position, (name, magnitude) in enumerate(perturbations.items()):
        key = keys_of_instances(seed, name, params, instances, position)[instance]
        params = perturb(key, params, name, magnitude)
    key_episode = jax.random.split(jax.random.key(seed))[1]
    return env, params, jax.random.split(key_episode, instances)[instance]
