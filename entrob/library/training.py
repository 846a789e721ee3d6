"""Training agents with a few lines."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from entrob.agents.actor_critic import make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.agents.training import Swept, compile_trainer
from entrob.compiling import in_32_bits, padded
from entrob.envs import make_task
from entrob.errors import EntrobError
from entrob.library.policy import Policy
from entrob.persistence.provenance import provenance
from entrob.ranges import COUNT, COUNT32, SEED, check
from entrob.regularizers import Regularizer, build, chain, check_coefficient, load


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
      policies: one per seed.
      curves: a row per seed × chunk: ``seed``, ``frames``, and what
        `entrob.agents.actor_critic.Agent.train_chunk` records, means over the chunk's updates; of
        episodes ``episodes``, their number, and ``return_mean``, ``success`` and ``length_mean``.
      diverged: bool by seed; a diverged run stands still from then on.
    """

    policies: list[Policy]
    curves: pd.DataFrame
    diverged: dict[int, bool]


@in_32_bits
def train(
    environment: str,
    *regularizers: Regularizer | str | Callable[..., Regularizer],
    coef: float | Mapping[str, float] | None = None,
    frames: int = 1_000_000,
    seeds: int = 1,
    first_seed: int = 0,
    chunk: int = 50,
    params: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    hyper: Mapping[str, float] | None = None,
    **spec: Any,
) -> Trained:
    """Train an agent with several seeds side by side.

    Args:
      environment: id of the environment, as `entrob.make` takes it.
      *regularizers: what is added to the objective: made ones, names, or decorated functions.
      coef: the coefficient of the one regularizer, or coefficients by name; by default each has
        its own default.
      frames: environment steps per run, rounded up to whole chunks.
      seeds: number of runs.
      first_seed: their seeds are ``first_seed``, ``first_seed + 1``, ...
      chunk: updates between two points of a curve.
      params: params of the environment that differ from the nominal ones, by name.
      options: what the environment is built with.
      hyper: fields of `entrob.agents.spec.Hyper`, e.g. ``{"learning_rate": 3e-4}``.
      **spec: fields of `entrob.agents.spec.Spec`, e.g. ``algorithm="ppo"``, ``num_envs=16``.

    Returns:
      `Trained`.

    Raises:
      EntrobError: a name that is not known, a number outside of its range, or a regularizer that
        does not trace.
    """
    COUNT.check("frames", frames), COUNT32.check("chunk", chunk), COUNT.check("seeds", seeds)
    SEED.check("first_seed + seeds", first_seed + seeds)
    parts = [_made(part) for part in regularizers]
    coefs = _coefficients(parts, coef)
    task = make_task(environment, **(options or {})).with_params(dict(params or {}))
    settings = _known("Spec", Spec._fields, spec, ("env", "regularizer"))
    hyper = _known("Hyper", [f.name for f in dataclasses.fields(Hyper)], hyper or {}, ("coefs",))
    check("hyper: ", hyper, Hyper)
    agent = make_agent(Spec(task.env, chain(*parts), **settings))
    per_update = agent.spec.frames_per_update
    chunks = math.ceil(frames / (per_update * chunk))
    width = padded(seeds)
    numbers = {**hyper, "total_updates": chunks * chunk}
    swept = jax.tree.map(lambda x: np.full(width, x, np.float32), Hyper(**numbers, coefs=coefs))
    swept = Swept(swept.replace(total_updates=np.full(width, chunks * chunk, np.int32)), ())
    numbered = np.arange(first_seed, first_seed + width, dtype=np.uint32)
    trainer = compile_trainer(agent, task.params, numbered, swept, chunk)
    state, rows = trainer.init(numbered, swept, task.params), []
    for done in range(1, chunks + 1):
        state, curves = trainer.chunk(state, swept, task.params)
        found = {name: np.asarray(values)[:seeds] for name, values in curves.items()}
        rows.append(_point(found, numbered[:seeds], done * chunk * per_update))
    policy = jax.tree.map(np.asarray, state.policy)
    facts = {"regularizers": coefs, "frames": chunks * chunk * per_update, **provenance()}
    return Trained(
        [
            Policy(
                environment,
                jax.tree.map(lambda x, i=i: x[i], policy),
                agent.spec.network,
                dict(options or {}),
                dict(params or {}),
                log_std=agent.spec.log_std,
                provenance={**facts, "seed": int(numbered[i])},
            )
            for i in range(seeds)
        ],
        pd.concat(rows, ignore_index=True),
        {int(s): bool(x >= 0) for s, x in zip(numbered[:seeds], np.asarray(state.diverged_at))},
    )


def _made(part: Regularizer | str | Callable[..., Regularizer]) -> Regularizer:
    if isinstance(part, Regularizer):
        return part
    if isinstance(part, str):
        return build(load(part))
    made = part()
    if not isinstance(made, Regularizer):
        raise EntrobError(f"{part!r} makes no regularizer")
    return made


def _coefficients(
    parts: list[Regularizer], coef: float | Mapping[str, float] | None
) -> dict[str, float]:
    """Checked coefficients by name."""
    default = {part.name: part.coef for part in parts}
    if coef is None:
        given: Mapping[str, float] = {}
    elif isinstance(coef, Mapping):
        given = coef
    elif len(parts) == 1:
        given = {parts[0].name: coef}
    else:
        raise EntrobError("one coefficient for several regularizers: give them by name")
    for name in given:
        if name not in default:
            raise EntrobError(f"coef names {name!r}, which is no regularizer of this run")
    by_name = {part.name: part for part in parts}
    return {n: check_coefficient(by_name[n], float(given.get(n, v))) for n, v in default.items()}


def _known(
    what: str, fields: Any, given: Mapping[str, Any], reserved: tuple[str, ...]
) -> dict[str, Any]:
    """The settings, whose names must be fields of a class."""
    for name in given:
        if name not in fields or name in reserved:
            raise EntrobError(f"{what} has no field {name!r} to be set")
    return dict(given)


def _point(curves: dict[str, np.ndarray], seeds: np.ndarray, frames: int) -> pd.DataFrame:
    """A row per seed of one chunk's curves, float32[seeds, updates] each."""
    sums = {"return_sum": "return_mean", "success_sum": "success", "length_sum": "length_mean"}
    episodes = curves["episodes"].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {new: curves[old].sum(1) / episodes for old, new in sums.items()}
    others = {k: x for k, x in curves.items() if k not in {*sums, "episodes"}}
    # Activity is measured in the last update of a chunk.
    others = {k: x[:, -1] if k == "activity" else x.mean(1) for k, x in others.items()}
    return pd.DataFrame({"seed": seeds, "frames": frames, "episodes": episodes, **means, **others})
