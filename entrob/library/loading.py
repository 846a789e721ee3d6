"""Policies by reference: a saved folder, one of a run's, a function, or Stable-Baselines3's."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from entrob.agents.adversarial.play import player
from entrob.errors import EntrobError, unknown
from entrob.library.policy import DESCRIPTION, Policy, read_policy
from entrob.library.testing import Act
from entrob.persistence.store import Store, read_json
from entrob.registry import imported
from entrob.suite import declaration
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import group_methods
from entrob.sweep.measure import read_policies
from entrob.sweep.program import program
from entrob.sweep.reading import load


def load_policy(reference: str | Path) -> Policy | Act:
    """What can act, by reference.

    Args:
      reference: a folder that `Policy.save` wrote; ``FOLDER:METHOD:SEED``, a run of an output
        folder; ``module:attribute``, a function ``(key, carry, obs) -> (action, carry)``, see
        `entrob.evaluate`; or a ``.zip`` file of Stable-Baselines3, which has to be installed.

    Raises:
      EntrobError: there is no such thing, or it cannot be read.
    """
    text = str(reference)
    if (Path(text) / DESCRIPTION).exists():
        return read_policy(text)
    if text.endswith(".zip"):
        return _of_stable_baselines(Path(text))
    folder, _, rest = text.partition(":")
    if Path(folder).is_dir():
        method, colon, seed = rest.rpartition(":")
        if not colon or not seed.isdecimal():
            raise EntrobError(f"{text} names no policy: say FOLDER:METHOD:SEED, or save one there")
        return _of_run(Path(folder), method, int(seed))
    if ":" not in text:
        raise EntrobError(f"there is no policy {text}")
    found = imported("policy", text)
    if not callable(found):
        raise EntrobError(f"policy {text!r} is no function")
    act: Act = found
    return act


def _of_run(folder: Path, method: str, seed: int) -> Policy:
    """One of the trained policies of an output folder."""
    store = Store(folder)
    manifest = store.manifest()
    if "experiment" not in manifest:
        raise EntrobError(f"{folder} holds no run (no manifest.json)")
    known, gone = set(), manifest.get("superseded", [])
    for path in store.parts("runs"):
        rows = store.read(path)
        known |= {f"{row.method}:{row.seed}" for row in rows.itertuples()}
        current = ~rows.run_id.isin(gone)
        here = rows.index[(rows.method == method) & (rows.seed == seed) & current]
        if len(here):
            batch = path.stem.removeprefix("runs-")
            weights = store.part("policies", batch, ".msgpack")
            return _read(manifest, weights, rows, int(here[0]))
    raise unknown(f"run in {folder}", f"{method}:{seed}", sorted(known))


def _read(manifest: dict[str, Any], path: Path, rows: Any, place: int) -> Policy:
    experiment = _experiment_of(path.parents[1], manifest)
    name = rows.method.iloc[place]
    method = next((m for m in experiment.methods if m.name == name), Method(name))
    (group,) = group_methods((method,))
    prog = program(experiment, group)
    weights = read_policies(path, len(rows), prog)
    if prog.agent.adversary:
        weights = player(weights, "protagonist")
    facts = {key: manifest[key] for key in ("experiment", "preset", "git_commit", "versions")}
    return Policy(
        experiment.environment,
        jax.tree.map(lambda x: np.asarray(x)[place], weights),
        prog.agent.spec.network,
        params=method.params,
        temperature=method.temperature,
        log_std=prog.agent.spec.log_std,
        provenance={
            **facts,
            "method": name,
            "coefficients": method.coefficients,
            "seed": int(rows.seed.iloc[place]),
            "frames": manifest["frames_per_run"],
        },
    )


def _experiment_of(root: Path, manifest: dict[str, Any]) -> Experiment:
    """What a folder was made by; raises `EntrobError` if that is not to be found."""
    name, preset = manifest["experiment"], manifest["preset"]
    root = root.resolve()
    above = root.parents[1] / "manifest.json"  # of a suite: it has a folder by task and stage
    suite = read_json(above).get("suite") if above.exists() else None
    try:
        task = declaration.load(suite, preset).tasks.get(root.parent.name) if suite else None
        return task.experiment if task else load(name, preset)
    except EntrobError as error:
        raise EntrobError(
            f"the file of the experiment {name!r} is not to be found, so that its policies cannot "
            "be read: run in the folder where it is"
        ) from error


class _StableBaselines:
    """A model of Stable-Baselines3 as a function; it samples as in training."""

    def __init__(self, model: Any):
        self._model = model

    def initial(self) -> Any:
        return None

    def __call__(self, key: jax.Array, carry: Any, obs: Any) -> tuple[Any, Any]:
        if isinstance(obs, jax.core.Tracer):
            raise TypeError("PyTorch cannot be traced")
        start = np.array([carry is None])
        action, carry = self._model.predict(np.asarray(obs), carry, start, deterministic=False)
        return action, carry


def _of_stable_baselines(path: Path) -> Act:
    try:
        from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
    except ImportError as error:
        raise EntrobError(f"{path} needs stable-baselines3, which is not installed") from error
    if not path.exists():
        raise EntrobError(f"there is no policy {path}")
    for algorithm in (PPO, A2C, DQN, SAC, TD3, DDPG):
        try:
            return _StableBaselines(algorithm.load(path, device="cpu"))
        except Exception:  # of another algorithm: each complains in its own way
            continue
    raise EntrobError(f"{path} is no model of Stable-Baselines3's own algorithms")
