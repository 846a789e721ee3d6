"""From a group of methods to compiled programs, with runs spread over the devices."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from entrob.agents.actor_critic import Agent, make_agent
from entrob.agents.adversarial.adversary import FORCES, adversary_of, strength_of
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.errors import BrokenMethod, EntrobError
from entrob.perturbations import needs_noise, perturb, with_mixture, with_randomization
from entrob.regularizers import build, chain
from entrob.sweep.experiment import Experiment
from entrob.sweep.groups import Batch, Group

RUNS = PartitionSpec("runs")


class Program(NamedTuple):
    """What trains a group.

    Attributes:
      agent: its pure functions.
      env_params: the nominal params it trains on.
    """

    agent: Agent
    env_params: Any


def nominal(
    experiment: Experiment, group: Group, noise: bool, disturbed: bool = False
) -> tuple[Any, Any]:
    """The environment a group is tested in, and its params before any perturbation.

    With `noise` the noises can act, with `disturbed` an adversary's forces.
    """
    env, params = make(experiment.environment, noise, disturbed)
    for name, value in group.setting["params"].items():
        if not hasattr(params, name):
            raise EntrobError(f"{experiment.environment} has no param {name!r}")
        try:
            old = jnp.asarray(getattr(params, name))
        except (TypeError, ValueError):
            raise EntrobError(f"{experiment.environment}: param {name!r} is no number") from None
        try:
            new = np.broadcast_to(np.array(value), old.shape).astype(old.dtype)
        except ValueError:
            shape = f"{experiment.environment}: param {name!r} must be a number or of shape"
            raise EntrobError(f"{shape} {list(old.shape)}") from None
        params = params.replace(**{name: jnp.asarray(new)})
    return env, params


def program(experiment: Experiment, group: Group) -> Program:
    """The agent and environment of a group; raises `EntrobError` for what cannot be built."""
    training, randomize = group.setting["training"], group.setting["randomize"]
    mixture = group.setting.get("mixture", [])
    _check(experiment, group)
    drawn = (*randomize, *(name for name, _ in mixture))
    noise = bool(training) or any(map(needs_noise, drawn))
    adversary = adversary_of(experiment.name, group.setting["adversary"])
    forced = adversary is not None and adversary.kind in FORCES
    env, params = nominal(experiment, group, noise, forced)
    for name, magnitude in training.items():
        params = perturb(jax.random.key(experiment.evaluation_seed), params, name, magnitude)
    for name, (low, high) in randomize.items():
        env, params = with_randomization(env, params, name, low, high)
    if mixture:
        env, params = with_mixture(env, params, mixture)
    parts = [build(name, **group.options.get(name, {})) for name in group.regularizers]
    spec = Spec(
        env,
        chain(*parts),
        network=None if experiment.network == "auto" else experiment.network,
        algorithm=experiment.algorithm,
        num_envs=experiment.num_envs,
        num_steps=experiment.num_steps,
        epochs=experiment.epochs,
        minibatches=experiment.minibatches,
        adversary=adversary,
        normalize=experiment.normalize,
        time_limit=experiment.time_limit,
    )
    return Program(make_agent(spec), params)


def _check(experiment: Experiment, group: Group) -> None:
    """Raise `EntrobError` for a task that cannot be played, nominal or in a test."""
    env, params = nominal(experiment, group, noise=True)
    if not hasattr(env, "check_params"):
        return
    env.check_params(params)
    key = jax.random.key(experiment.evaluation_seed)
    for name, magnitudes in experiment.perturbations.items():
        for magnitude in magnitudes:
            env.check_params(perturb(key, params, name, magnitude))


class Swept(NamedTuple):
    """What differs between the runs of a batch besides their seeds; leaves [width, ...].

    Attributes:
      hyper: `Hyper`.
      weights: float32[width, C], those of a mixture's C perturbations, or ().
    """

    hyper: Hyper
    weights: jax.Array | tuple[()]


def hypers(experiment: Experiment, batch: Batch, width: int) -> tuple[jax.Array, Swept]:
    """Seeds uint32[width] and what is swept; short batches repeat their last run."""
    runs = [*batch.runs, *[batch.runs[-1]] * (width - len(batch.runs))]
    names = batch.group.regularizers
    coefs = {n: np.float32([r.method.coefficients.get(n, 0.0) for r in runs]) for n in names}
    default = jax.tree.map(lambda v: np.full(width, v, np.float32), Hyper())
    usual = {name: getattr(Hyper(), name) for run in runs for name in run.method.hyper}
    usual |= experiment.hyper
    own = {k: np.float32([r.method.hyper.get(k, v) for r in runs]) for k, v in usual.items()}
    own["strength"] = np.float32([strength_of(r.method.adversary) for r in runs])
    hyper = default.replace(**own, total_updates=np.full(width, experiment.updates, np.int32))
    weights = np.float32([[weight for *_, weight in r.method.mixture] for r in runs])
    seeds = np.array([r.seed for r in runs], np.uint32)
    return seeds, Swept(hyper.replace(coefs=coefs), weights if weights.size else ())


def _mixed(env_params: Any, weights: jax.Array | tuple[()]) -> Any:
    """The params with one run's weights float32[C] of the mixture, if they have one."""
    if isinstance(weights, tuple):
        return env_params
    mixture = env_params.randomization.replace(weight=weights)
    return env_params.replace(randomization=mixture)


def mesh() -> jax.sharding.Mesh:
    """All devices in a row: runs are independent, so they shard without communication."""
    return jax.sharding.Mesh(np.array(jax.devices()), ("runs",))


def compiler_options() -> dict[str, Any]:
    """Options for a CPU, where two things that XLA does by default cost more than they gain.

    Its fusion emitters make small matrix products slower and long kinematic chains very slow to
    compile; splitting operations among threads takes cores that other shards work on.
    """
    if jax.default_backend() != "cpu":
        return {}
    disabled = {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}
    return {"xla_cpu_use_fusion_emitters": False, **disabled}


def sharded(f: Callable, over: tuple[bool, ...]) -> Callable:
    """Jit `f` with its runs spread over the devices; `over` says which arguments have runs."""
    specs = tuple(RUNS if o else PartitionSpec() for o in over)
    mapped = jax.shard_map(f, mesh=mesh(), in_specs=specs, out_specs=RUNS, check_vma=False)
    # Arguments are left where they are: XLA puts arrays of size 0 elsewhere than is said.
    return jax.jit(mapped, compiler_options=compiler_options())


def memory_limit() -> int:
    """Bytes that one batch may take: half of the device's or of the machine's memory."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] * len(jax.devices()) // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def padded(runs: int) -> int:
    """The number of runs rounded up to a multiple of the number of devices."""
    devices = len(jax.devices())
    return -(-runs // devices) * devices


class Trainer(NamedTuple):
    """Compiled functions for batches of one width.

    Attributes:
      width: runs side by side.
      init: ``(seeds, swept, env_params) -> state``.
      chunk: ``(state, swept, env_params) -> (state, curves)``.
      bytes: device memory that a chunk takes.
      compile_s: seconds that compiling took.
    """

    width: int
    init: Callable
    chunk: Callable
    bytes: int
    compile_s: float


def compile_trainer(experiment: Experiment, prog: Program, batch: Batch) -> Trainer:
    """Compile what trains a batch; raises `BrokenMethod` if a regularizer does not fit."""
    width = padded(len(batch.runs))
    agent, env_params = prog
    start = time.perf_counter()

    def init(seeds, swept, env_params):
        one = lambda key, own: agent.init(key, own.hyper, _mixed(env_params, own.weights))
        return jax.vmap(one)(jax.vmap(jax.random.PRNGKey)(seeds), swept)

    def chunk(state, swept, env_params):
        def one(state, own):
            mixed = _mixed(env_params, own.weights)
            return agent.train_chunk(state, own.hyper, mixed, updates=experiment.chunk)

        return jax.vmap(one)(state, swept)

    seeds, hyper = hypers(experiment, batch, width)
    with _user_code():
        init = sharded(init, (True, True, False)).lower(seeds, hyper, env_params).compile()
        state = init.out_info
        lowered = sharded(chunk, (True, True, False)).lower(state, hyper, env_params)
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    size = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return Trainer(width, init, compiled, size, time.perf_counter() - start)


@contextlib.contextmanager
def _user_code():
    """Report what goes wrong while a user's code is traced as one line: `BrokenMethod`."""
    try:
        yield
    except EntrobError as error:
        raise BrokenMethod(str(error)) from error
    except Exception as error:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        code = last.tb_frame.f_code
        where = f"{code.co_name} ({Path(code.co_filename).name}:{last.tb_lineno})"
        text = (str(error).strip().splitlines() or [""])[0]
        raise BrokenMethod(
            f"user code does not trace: {type(error).__name__} in {where}: {text}"
        ) from error
