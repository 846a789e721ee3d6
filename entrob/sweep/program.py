"""From a group of methods to what trains it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from entrob.agents.actor_critic import Agent, make_agent
from entrob.agents.adversarial.adversary import FORCES, adversary_of, strength_of
from entrob.agents.spec import Hyper, Spec
from entrob.agents.training import Swept, Trainer, compile_trainer
from entrob.compiling import padded
from entrob.envs import Task, task_of
from entrob.envs.wrappers import with_disturbance
from entrob.perturbations import needs_noise, perturb, with_mixture, with_randomization
from entrob.regularizers import build, chain
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import Group, RunBatch, group_methods, runs_of


class Program(NamedTuple):
    """What trains a group.

    Attributes:
      agent: its pure functions.
      env_params: the nominal params it trains on.
      task: what its policies are tested in.
    """

    agent: Agent
    env_params: Any
    task: Task


def nominal(experiment: Experiment, group: Group) -> Task:
    """What a group is tested in, before any perturbation; raises `EntrobError` for wrong params."""
    return experiment.task.with_params(group.setting["params"])


def program(experiment: Experiment, group: Group) -> Program:
    """The agent and environment of a group; raises `EntrobError` for what cannot be built."""
    training, randomize = group.setting["training"], group.setting["randomize"]
    mixture = group.setting.get("mixture", [])
    task = nominal(experiment, group)
    _check(experiment, task)
    drawn = (*randomize, *(name for name, _ in mixture))
    noise = bool(training) or any(map(needs_noise, drawn))
    adversary = adversary_of(experiment.name, group.setting["adversary"])
    forced = adversary is not None and adversary.kind in FORCES
    env, params = (_disturbed(task, group) if forced else task).pair(noise)
    for name, magnitude in training.items():
        params = perturb(jax.random.key(experiment.evaluation_seed), params, name, magnitude)
    for name, (low, high) in randomize.items():
        env, params = with_randomization(env, params, name, low, high)
    if mixture:
        env, params = with_mixture(env, params, mixture)
    parts = [build(name, **group.options.get(name, {})) for name in group.regularizers]
    settings = experiment.agent_of(group.setting.get("agent", {}))
    settings |= {"network": None} if settings["network"] == "auto" else {}
    spec = Spec(
        env,
        chain(*parts),
        algorithm=experiment.algorithm,
        num_envs=experiment.num_envs,
        num_steps=experiment.num_steps,
        epochs=experiment.epochs,
        minibatches=experiment.minibatches,
        adversary=adversary,
        normalize=experiment.normalize,
        **settings,
    )
    return Program(make_agent(spec), params, task)


def _disturbed(task: Task, group: Group) -> Task:
    """The task with an adversary's forces acting; raises `EntrobError` where none can."""
    disturbed = task_of(task.id, with_disturbance(task.env))
    return disturbed.with_params(group.setting["params"])


def _check(experiment: Experiment, task: Task) -> None:
    """Raise `EntrobError` for a task that cannot be played, nominal or in a test."""
    env, params = task.pair(noise=True)
    env.check_params(params)
    key = jax.random.key(experiment.evaluation_seed)
    for name, magnitudes in experiment.perturbations.items():
        for magnitude in magnitudes:
            env.check_params(perturb(key, params, name, magnitude))


def hypers(experiment: Experiment, batch: RunBatch, width: int) -> tuple[np.ndarray, Swept]:
    """Seeds uint32[width] and what is swept; short batches repeat their last run."""
    runs = [*batch.runs, *[batch.runs[-1]] * (width - len(batch.runs))]
    names = batch.group.regularizers
    row: Callable[[list[Any]], np.ndarray] = lambda values: np.array(values, np.float32)
    coefs = {n: row([r.method.coefficients.get(n, 0.0) for r in runs]) for n in names}
    default = jax.tree.map(lambda v: np.full(width, v, np.float32), Hyper())
    usual = {name: getattr(Hyper(), name) for run in runs for name in run.method.hyper}
    usual |= experiment.hyper
    own = {k: row([r.method.hyper.get(k, v) for r in runs]) for k, v in usual.items()}
    own["strength"] = row([strength_of(r.method.adversary) for r in runs])
    hyper = default.replace(**own, total_updates=np.full(width, experiment.updates, np.int32))
    weights = row([[weight for *_, weight in r.method.mixture] for r in runs])
    seeds = np.array([r.seed for r in runs], np.uint32)
    return seeds, Swept(hyper.replace(coefs=coefs), weights if weights.size else ())


def compiled(experiment: Experiment, prog: Program, batch: RunBatch) -> Trainer:
    """Compile what trains a batch; raises `BrokenMethod` if a regularizer does not fit."""
    width = padded(len(batch.runs))
    seeds, swept = hypers(experiment, batch, width)
    return compile_trainer(prog.agent, prog.env_params, seeds, swept, experiment.chunk)


def timed_alone(
    experiment: Experiment, method: Method
) -> tuple[Trainer, Callable[[], Any], Callable[[Any], tuple[Any, float]]]:
    """All runs of one method side by side, to be timed and not to be kept.

    Returns:
      ``(trainer, begin, chunk)``: what was compiled, ``begin() -> state``, and
      ``chunk(state) -> (state, seconds)``.

    Raises:
      BrokenMethod: a regularizer does not fit.
    """
    (group,) = group_methods((method,))
    prog = program(experiment, group)
    batch = RunBatch("", group, runs_of(experiment, method))
    trainer = compiled(experiment, prog, batch)
    seeds, swept = hypers(experiment, batch, trainer.width)

    def chunk(state: Any) -> tuple[Any, float]:
        started = time.perf_counter()
        state, _ = jax.block_until_ready(trainer.chunk(state, swept, prog.env_params))
        return state, time.perf_counter() - started

    return trainer, lambda: trainer.init(seeds, swept, prog.env_params), chunk
