"""Testing the policies of a batch under every perturbation and magnitude."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from entrob.agents.model import Model, tempered
from entrob.evaluation.batch import TRACED, evaluate
from entrob.evaluation.records import records
from entrob.evaluation.uniform import uniform_model
from entrob.persistence.store import Damaged, Store, read_frame, read_tree, write_frame
from entrob.perturbations import NOMINAL, instance_keys, needs_noise, perturb, perturbations
from entrob.sweep.describe import headline
from entrob.sweep.experiment import Experiment, digest
from entrob.sweep.groups import Batch, Group
from entrob.sweep.program import Program, compiler_options, nominal, padded, sharded


class Tester:
    """Compiles each evaluator once and applies it to the batches of one experiment.

    Perturbations of the environment's own params share one program, those whose environment carries
    noise another; the magnitude is data. The environment without any of them is tested once, under
    the name `NOMINAL` with magnitude 0: see `entrob.statistics.nominal.with_nominal`.

    Attributes:
      tested: magnitudes by name, without any perturbation first.
      compile_s: seconds spent compiling so far.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.tested = {NOMINAL: (0.0,), **experiment.perturbations}
        self.compile_s = 0.0
        self._compiled: dict[Any, Callable] = {}

    def missing(self, store: Store, batch: Batch, progress=None) -> list[str]:
        """Names that the batch has not been tested under, or whose part is damaged."""
        wanted = []
        for name in self.tested:
            path = self.part(store, batch, name)
            try:
                if path.exists():
                    read_frame(path)
                    for traces in path.parent.glob(f"traces-{batch.id}-{name}-*.parquet"):
                        read_frame(traces)
                    continue
            except Damaged as error:
                if progress is not None:
                    progress.warn(f"{error}; tested again")
            wanted.append(name)
        return wanted

    def part(self, store: Store, batch: Batch, name: str):
        """Path of the records of one batch under one perturbation, or without any."""
        key = digest(self.experiment.hash, self.tested[name])
        return store.part("evaluation", f"{batch.id}-{name}-{key}")

    def test(self, store: Store, batch: Batch, prog: Program, names: list[str]) -> None:
        """Test a batch and store its records; raises `Damaged` if its policies cannot be read."""
        experiment, runs = self.experiment, len(batch.runs)
        params, heat = _padded((policies(store, batch, prog), _temperatures(batch)), runs)
        for name in names:
            rows = []
            for magnitude in self.tested[name]:
                outcome, horizon = self.outcome(prog, batch.group, params, name, magnitude, heat)
                outcome = jax.tree.map(np.asarray, outcome)
                cut = jax.tree.map(lambda x: x[:runs], outcome._replace(optimum=None))
                cut = cut._replace(optimum=outcome.optimum)
                if name == NOMINAL and cut.occupancy.size:
                    env, env_params = nominal(experiment, batch.group, noise=False)
                    visits = _visits(batch, env, env_params, cut.occupancy)
                    write_frame(store.part("occupancy", batch.id), visits)
                if cut.trace is not None and magnitude == self._traced(name):
                    part = store.part("traces", f"{batch.id}-{name}-{magnitude:g}")
                    write_frame(part, _traces(experiment, batch, name, magnitude, cut.trace))
                for run, record in zip(batch.runs, self._records(cut, horizon)):
                    who = {"run_id": run.id, "method": run.method.name, "seed": run.seed}
                    what = {"perturbation": name, "magnitude": magnitude}
                    rows.append({**who, **what, **record})
            write_frame(self.part(store, batch, name), pd.DataFrame(rows))

    def records(self, prog: Program, batch: Batch, policies: Any, name: str, magnitude: float):
        """A batch's policies, leaves [runs, ...], under one condition: a dictionary per run."""
        runs = len(batch.runs)
        policies, heat = _padded((policies, _temperatures(batch)), runs)
        outcome, horizon = self.outcome(prog, batch.group, policies, name, magnitude, heat)
        outcome = jax.tree.map(np.asarray, outcome)._replace(trace=None)
        return self._records(outcome, horizon)[:runs]

    def table(self, prog: Program, batch: Batch, policies: Any) -> pd.DataFrame:
        """A batch's policies, leaves [runs, ...], under everything: a row per run × condition."""
        rows = []
        for name, magnitudes in self.tested.items():
            for magnitude in magnitudes:
                found = self.records(prog, batch, policies, name, magnitude)
                for run, record in zip(batch.runs, found):
                    who = {"run_id": run.id, "method": run.method.name, "seed": run.seed}
                    rows.append({**who, "perturbation": name, "magnitude": magnitude, **record})
        return pd.DataFrame(rows)

    def _traced(self, name: str) -> float:
        """The magnitude whose traces are kept: the headline's."""
        return 0.0 if name == NOMINAL else headline(self.experiment, name)

    def random_policy(self, group: Group) -> pd.DataFrame:
        """The uniformly random policy under everything: a row per perturbation × magnitude."""
        rows = []
        for name in self.tested:
            for magnitude in self.tested[name]:
                env, instances, keys, horizon = self._instances(group, name, magnitude)
                key = ("random", type(env), horizon)
                play = self._cached(key, lambda env=env, t=horizon: _uniform(env, t))
                outcome = jax.tree.map(np.asarray, play(instances, keys))
                (record,) = self._records(outcome._replace(trace=None), horizon)
                rows.append({"perturbation": name, "magnitude": magnitude, **record})
        return pd.DataFrame(rows)

    def _instances(self, group: Group, name: str, magnitude: float):
        """``(env, params [I], keys of episodes [I], horizon)``; several episodes repeat params."""
        # What perturbs the training is no part of the test.
        noise = name != NOMINAL and needs_noise(name)
        env, env_params = nominal(self.experiment, group, noise)
        # The same keys for every method, seed and magnitude: comparisons are paired.
        key = jax.random.key(self.experiment.evaluation_seed)
        key_instance, key_episode = jax.random.split(key)
        count, episodes = self.experiment.instances, self.experiment.episodes
        draw = self._cached(("draw", name, type(env)), lambda: jax.jit(_draw(name)))
        keys = _instance_keys(key_instance, name, env_params, count)
        keys = keys[np.repeat(np.arange(count), episodes)]
        instances = draw(keys, env_params, jnp.float32(magnitude))
        keys = jax.random.split(key_episode, count * episodes)
        return env, instances, keys, int(env_params.max_steps_in_episode)

    def outcome(
        self,
        prog: Program,
        group: Group,
        policies,
        name: str,
        magnitude: float,
        temperature: np.ndarray | None = None,
    ):
        """All policies under one perturbation at one magnitude, and the horizon.

        Args:
          prog: of the group.
          group: whose nominal environment it is.
          policies: `PolicyParams`, leaves [runs, ...], a multiple of the number of devices.
          name, magnitude: a perturbation, or `NOMINAL` and 0.
          temperature: float32[runs], what they are tempered by; None: nothing.
        """
        env, instances, keys, horizon = self._instances(group, name, magnitude)
        actor, hot = prog.agent.actor, temperature is not None and bool((temperature != 1).any())
        if hot:
            policies, actor = (policies, temperature), tempered(actor)
        args = (policies, instances, keys)
        shapes = tuple(x.shape for x in jax.tree.leaves(policies))
        play = self._cached(
            ("play", type(env), horizon, len(keys), shapes, hot),
            lambda: self._compile(env, actor, horizon, args),
        )
        return play(*args), horizon

    def _records(self, outcome, horizon: int) -> list[dict[str, Any]]:
        return records(outcome, horizon, episodes=self.experiment.episodes)

    def _compile(self, env, actor: Model, horizon: int, args) -> Callable:
        started = time.perf_counter()

        def play(params, instances, keys):
            outcome = evaluate(env, actor, horizon, params, instances, keys)
            return outcome._replace(optimum=outcome.optimum[None])

        compiled = sharded(play, (True, False, False)).lower(*args).compile()
        self.compile_s += time.perf_counter() - started

        def run(*args):
            outcome = compiled(*args)
            return outcome._replace(optimum=outcome.optimum[0])

        return run

    def _cached(self, key, make_it):
        if key not in self._compiled:
            self._compiled[key] = make_it()
        return self._compiled[key]


def _padded(policies: Any, runs: int) -> Any:
    """Policies of so many runs as leaves [width, ...]; the last one is repeated."""
    short = padded(runs) - runs
    return jax.tree.map(lambda x: np.concatenate([x, x[-1:].repeat(short, 0)]), policies)


def _temperatures(batch: Batch) -> np.ndarray:
    """What each run's policy is tested at: float32[runs]."""
    return np.float32([run.method.temperature for run in batch.runs])


def _draw(name: str) -> Callable:
    """``(keys [I], params, magnitude) -> params [I]``, all the same without a perturbation."""
    if name == NOMINAL:
        repeat = lambda x, n: jnp.broadcast_to(x, (n, *jnp.shape(x)))
        return lambda keys, p, m: jax.tree.map(lambda x: repeat(x, len(keys)), p)
    return lambda keys, p, m: jax.vmap(lambda k: perturb(k, p, name, m))(keys)


def _instance_keys(key: jax.Array, name: str, params: Any, count: int) -> jax.Array:
    """The keys of a test's instances, the same for all that is compared: keys[count]."""
    if name == NOMINAL:
        return jax.random.split(key, count)
    return instance_keys(key, perturbations.get(name, params), count)


def _uniform(env, horizon: int) -> Callable:
    """What tests the uniformly random policy: ``(instances, keys) -> Outcome`` of one policy."""
    model = uniform_model(env)
    # One policy that has no parameters, but still an axis of policies.
    only = {"none": jnp.zeros(1)}
    return jax.jit(
        lambda instances, keys: evaluate(env, model, horizon, only, instances, keys),
        compiler_options=compiler_options(),
    )


def policies(store: Store, batch: Batch, prog: Program) -> Any:
    """What acts in each run of a trained batch, see `read_policies`."""
    return read_policies(store.part("policies", batch.id, ".msgpack"), batch, prog)


def read_policies(path: Path, batch: Batch, prog: Program) -> Any:
    """The policies of a batch's runs from a file: `PolicyParams`, leaves [runs, ...].

    Raises:
      Damaged: the file cannot be read, or holds policies of another network.
    """
    policy = prog.agent.init(jax.random.PRNGKey(0), None, prog.env_params).policy
    like = jax.tree.map(lambda x: np.zeros((len(batch.runs), *x.shape), x.dtype), policy)
    return read_tree(path, like)


def _visits(batch: Batch, env: Any, params: Any, occupancy: np.ndarray) -> pd.DataFrame:
    """A row per run: expected visits to each cell in the nominal environment, float[W * H]."""
    pos = np.asarray(env.states(params).pos)
    rows = []
    for run, visits in zip(batch.runs, occupancy):
        cells = np.zeros(params.walls.shape, np.float32)
        np.add.at(cells, (pos[:, 0], pos[:, 1]), visits)
        who = {"run_id": run.id, "method": run.method.name, "seed": run.seed}
        rows.append({**who, "width": cells.shape[0], "visits": cells.ravel()})
    return pd.DataFrame(rows)


def _traces(
    experiment: Experiment, batch: Batch, name: str, magnitude: float, trace: np.ndarray
) -> pd.DataFrame:
    """A row per run × instance: the points x0, y0, x1, y1, … of its episode.

    The seeds of a method share out the instances, so that there are some `TRACED` traces of it.
    """
    rows, share = [], -(-TRACED // experiment.seeds)
    for run, paths in zip(batch.runs, trace):
        who = {"run_id": run.id, "method": run.method.name, "seed": run.seed}
        who |= {"perturbation": name, "magnitude": magnitude}
        begin = (run.seed - experiment.first_seed) * share
        for instance in sorted({i % len(paths) for i in range(begin, begin + share)}):
            points = paths[instance][~np.isnan(paths[instance][:, 0])].ravel()
            rows.append({**who, "instance": instance, "points": points})
    return pd.DataFrame(rows)
