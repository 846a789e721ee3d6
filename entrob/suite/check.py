"""Checking a task: what its perturbations prove, and what nobody, `none` and the optimum get."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from entrob.agents.model import Model
from entrob.envs import environments, libraries, make_task
from entrob.errors import EntrobError, unknown
from entrob.evaluation.proofs import COPIES, Proof, Prover, steps
from entrob.naming import BASELINE
from entrob.persistence.store import Store
from entrob.perturbations import NOMINAL, perturbations
from entrob.suite import declaration
from entrob.sweep import runner, stored
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.files import read
from entrob.sweep.measure import Tester, read_policies
from entrob.sweep.program import Program, program
from entrob.sweep.reading import from_table
from entrob.sweep.select import select_perturbations

#: How `none` is trained on an environment that no suite has settings for, and what it is tested on.
SETTINGS: dict[str, Any] = {
    "algorithm": "ppo",
    "num_envs": 8,
    "num_steps": 128,
    "epochs": 4,
    "minibatches": 4,
    "chunk": 10,
    "frames": 1,
    "seeds": 1,
    "instances": 16,
    "episodes": 8,
    "hyper": {"learning_rate": 1e-3, "gae_lambda": 0.95, "max_grad_norm": 0.5},
    "methods": [{"name": BASELINE}],
}


class Checked(NamedTuple):
    """What was found of a task.

    Attributes:
      proofs: one per perturbation.
      scores: a row per perturbation × magnitude, the nominal one first: ``random``, ``none``,
        ``optimum`` (NaN where unknown) and ``loss``, the share of what `none` has above random in
        the nominal environment that it loses. Scores are success over all instances where the
        environment is finite, elsewhere returns.
      measure: ``"success"`` or ``"return"``.
    """

    proofs: tuple[Proof, ...]
    scores: pd.DataFrame
    measure: str


def task_of(name: str) -> Experiment:
    """The experiment that tests a task, of `none` alone.

    Args:
      name: an environment's id, which is tested under all perturbations that fit it; or
        ``SUITE:TASK``, a task of a suite, which is tested as the suite's last preset that has it
        tests it.

    Raises:
      EntrobError: there is no such environment, suite or task.
    """
    prefix, _, task = name.rpartition(":")
    if name in environments or prefix in libraries or not prefix:
        return _of_environment(name)
    _, data = read(prefix)
    if "tasks" not in data:
        raise EntrobError(f"{prefix} is no suite of tasks")
    if task not in data["tasks"]:
        raise unknown("task", task, data["tasks"])
    has = [p for p, said in data.get("presets", {}).items() if task in said.get("tasks", [task])]
    if not has:
        raise EntrobError(f"no preset of {prefix} has the task {task!r}")
    experiment = declaration.load(prefix, has[-1]).tasks[task].experiment
    return dataclasses.replace(experiment, methods=_baseline(experiment))


def _baseline(experiment: Experiment) -> tuple[Method, ...]:
    return tuple(m for m in experiment.methods if m.name == BASELINE)


def _of_environment(id: str) -> Experiment:
    task = make_task(id)
    params = task.noisy_params
    fitting = [name for name in perturbations.names() if _tests(name, params)]
    if not fitting:
        raise EntrobError(f"no perturbation fits {id}")
    some = {fitting[0]: [perturbations.get(fitting[0], params).range(params)[1]]}
    table = SETTINGS | {"environment": id, "perturbations": some, "presets": {"check": {}}}
    experiment = from_table(id, id, table, "check", task)
    return select_perturbations(dataclasses.replace(experiment, perturbations={}), tuple(fitting))


def _tests(name: str, params: Any) -> bool:
    """Whether some perturbation of a name fits and is for tests."""
    fits = [entry for entry in perturbations.variants(name) if entry.lacks(params) is None]
    return any(not entry.training_only for entry in fits)


def check(experiment: Experiment, frames: int, folder: Path | None = None) -> Checked:
    """Check the perturbations of a task, and score `none` under them.

    Args:
      experiment: as from `task_of`.
      frames: how long `none` is trained, unless `folder` holds it.
      folder: output folder of a run with `none` on this environment, or None.

    Raises:
      EntrobError: the folder holds no such run, or the task cannot be trained on.
    """
    experiment = dataclasses.replace(experiment, frames=frames)
    (group,) = stored.groups(experiment)
    prog = program(experiment, group)
    if folder is None:
        with tempfile.TemporaryDirectory() as root:
            runner.run(experiment, Store(root), "entrob check", test=False)
            params = trained(Store(root), prog)
    else:
        params = trained(_held(folder, experiment), prog)
    env, noisy = prog.task.pair(noise=True)
    bare = prog.task.pair(noise=False)
    key = jax.random.key(experiment.evaluation_seed)
    chosen = _actions(env, noisy, prog.agent.actor, jax.tree.map(lambda x: x[0], params), key)
    prover = Prover(env, noisy, bare, key, chosen)
    proofs = tuple(
        prover.prove(name, magnitudes, experiment.instances)
        for name, magnitudes in experiment.perturbations.items()
    )
    measure = "success" if prog.task.env.finite else "return"
    return Checked(proofs, _scores(experiment, prog, params, measure), measure)


def _held(folder: Path, experiment: Experiment) -> Store:
    """A folder of runs on the task's environment; raises `EntrobError`."""
    store = Store(folder)
    found = store.manifest().get("environment")
    if found is None:
        raise EntrobError(f"{folder} holds no run (no manifest.json)")
    if found != experiment.environment:
        raise EntrobError(f"{folder} is of {found}, not of {experiment.environment}")
    return store


def trained(store: Store, prog: Program) -> Any:
    """The policies of `none` in a store that have not diverged: leaves [runs, ...].

    Raises:
      EntrobError: there are none.
      Damaged: they cannot be read, or are of another network.
    """
    found, gone = [], store.manifest().get("superseded", [])
    for path in store.parts("runs"):
        rows = store.read(path)
        ours = (rows.method == BASELINE) & (rows.status != "diverged") & ~rows.run_id.isin(gone)
        if ours.any():
            batch = path.stem.removeprefix("runs-")
            held = read_policies(store.part("policies", batch, ".msgpack"), len(rows), prog)
            found.append(jax.tree.map(lambda x, ours=ours: x[ours.to_numpy()], held))
    if not found:
        raise EntrobError(f"{store.root} holds no finished run of {BASELINE!r}")
    return jax.tree.map(lambda *x: np.concatenate(x), *found)


def _actions(env: Any, params: Any, model: Model, policy: Any, key: jax.Array) -> jax.Array:
    """What a policy does in the nominal environment: [COPIES, T, ...]."""

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)

        def step(carry, key):
            obs, state, memory = carry
            key_act, key_env = jax.random.split(key)
            action, memory = model.act(key_act, policy, memory, obs)
            obs, state, *_ = env.step_env(key_env, state, action, params)
            return (obs, state, memory), action

        keys = jax.random.split(key_steps, steps(params))
        return jax.lax.scan(step, (obs, state, model.initial()), keys)[1]

    # The keys of `Prover`'s own trajectories do not matter: what is compared shares its actions.
    return jax.jit(jax.vmap(episode))(jax.random.split(key, COPIES))


def _scores(experiment: Experiment, prog: Program, params: Any, measure: str) -> pd.DataFrame:
    """A row per perturbation × magnitude, as in `Checked`."""
    tester = Tester(experiment)
    random = tester.random_policy(prog.task).set_index(["perturbation", "magnitude"])
    column = {"success": "success", "return": "return_mean"}[measure]
    rows = []
    for name, magnitudes in tester.tested.items():
        for magnitude in magnitudes:
            outcome, horizon = tester.evaluator.outcome(
                prog.task, prog.agent.actor, params, name, magnitude
            )
            if measure == "success":
                reached = outcome.steps_to_success > 0
                best, none = outcome.optimum, reached.mean()
                optimum = np.mean(best <= horizon) if (best >= 0).all() else np.nan
            else:
                none, optimum = outcome.episode_return.mean(), np.nan
            rows.append(
                {
                    "perturbation": name,
                    "magnitude": magnitude,
                    "random": random.loc[(name, magnitude), column],
                    "none": none,
                    "optimum": optimum,
                }
            )
    table = pd.DataFrame(rows)
    nominally = table[table.perturbation == NOMINAL].iloc[0]
    gain = nominally["none"] - nominally["random"]
    table["loss"] = (nominally["none"] - table["none"]) / gain if gain > 0 else np.nan
    return table
