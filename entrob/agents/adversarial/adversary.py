"""Adversaries: what a second player may do against the one that learns to act, the protagonist.

Testing lets the protagonist act alone, as in all the sources. How it plays is in `play`,
how it learns in `response`.
"""

from typing import Any, NamedTuple

from gymnax.environments import spaces

from entrob.envs.forces import disturbance_of
from entrob.errors import EntrobError, unknown
from entrob.ranges import FINITE, NOT_NEGATIVE, SHARE


class Kind(NamedTuple):
    """What the leaderboard says of a kind of adversary: see `Regularizer` for the fields."""

    source: str
    label: str
    doc: str


_ACTION_ROBUST = "Tessler, Efroni, Mannor 2019, Action Robust Reinforcement Learning (1901.09184)"
_BOTH_LEARN = "PPO for DDPG; both players learn in every update, not ten times to one"

#: Kinds of adversaries.
KINDS: dict[str, Kind] = {
    "pr_mdp": Kind(
        _ACTION_ROBUST,
        f"adapted: {_BOTH_LEARN}",
        "PR-MDP: with probability `strength` the adversary's action is executed instead.",
    ),
    "nr_mdp": Kind(
        _ACTION_ROBUST,
        f"adapted: {_BOTH_LEARN}",
        "NR-MDP: (1 - strength) a + strength b is executed, b being the adversary's action.",
    ),
    "rarl": Kind(
        "Pinto, Davidson, Sukthankar, Gupta 2017, Robust Adversarial RL (1703.02702)",
        "adapted: PPO for TRPO; players alternate update by update, on one rollout each",
        "RARL: an adversary exerts forces on the environment, together up to `strength` in "
        "units of `entrob.envs.forces`, and gains what the protagonist loses.",
    ),
    "qarl": Kind(
        "Reddi et al. 2024, Robust Adversarial RL via Bounded Rationality Curricula (2311.01642)",
        "adapted: PPO for SAC; self-normalized importance weights; at most one curriculum step per "
        "update; the return must not fall below that of the first window unless a bound is given",
        "QARL: RARL whose adversary also gains τ times its policy's entropy. τ is drawn in every "
        "episode from a gamma distribution whose shape a curriculum takes from 50 to 1, so that "
        "the adversary becomes more rational as fast as the protagonist bears it.",
    ),
}

#: The kinds with an action space of their own, whose players take turns in learning.
FORCES = ("rarl", "qarl")


#: Strength of an adversary that says none: what Tessler et al. report.
STRENGTH = 0.1


class Adversary(NamedTuple):
    """A second player, zero-sum. How strong it is, is in `Hyper`: it may differ between runs.

    Attributes:
      kind: one of `KINDS`.
      bound: ``"qarl"`` only: undiscounted return, in the environment's units, that the
        protagonist must keep for the curriculum to go on; None: what it had in the first window.
    """

    kind: str
    bound: float | None = None


def check_adversary(adversary: Adversary, strength: float = STRENGTH) -> Adversary:
    """The adversary itself; raises `EntrobError` for what cannot be one.

    Args:
      adversary: it.
      strength: of ``"pr_mdp"`` and ``"nr_mdp"`` α in [0, 1], the adversary's share; of forces
        at least 0, the largest that Σ |force| / unit may be, with the units of
        `entrob.envs.forces.Disturbance`: 1 is about as strong as the agent.
    """
    kind, bound = adversary
    if kind not in KINDS:
        raise unknown("adversary", kind, KINDS)
    (NOT_NEGATIVE if kind in FORCES else SHARE).check("an adversary's strength", strength)
    if bound is not None and kind != "qarl":
        raise EntrobError(f"a bound is for the adversary 'qarl', not for {kind!r}")
    if bound is not None:
        FINITE.check("an adversary's bound", bound)
    return adversary


def adversary_of(where: str, table: dict[str, Any]) -> Adversary | None:
    """The adversary that a table declares, None if the table is empty; raises `EntrobError`.

    Args:
      where: what an error calls the file.
      table: fields of `Adversary`, and its ``strength``, which `strength_of` reads.
    """
    if not table:
        return None
    known = (*Adversary._fields, "strength")
    for key in table:
        if key not in known:
            raise unknown(f"key in {where}: adversary", key, known)
    static = {key: value for key, value in table.items() if key != "strength"}
    return check_adversary(Adversary(**{"kind": "", **static}), strength_of(table))


def strength_of(table: dict[str, Any]) -> float:
    """The strength that a table declares, see `check_adversary`."""
    return table.get("strength", STRENGTH)


def misfit(env: Any, adversary: Adversary) -> str | None:
    """Why an environment cannot have an adversary, None if it can.

    Args:
      env: gymnax environment, whether or not forces can act on it already.
      adversary: a checked one.
    """
    if adversary.kind in FORCES and disturbance_of(env) is None:
        return f"adversary {adversary.kind!r} needs forces, and none can act on {env.name}"
    space = env.action_space(env.default_params)
    if adversary.kind == "nr_mdp" and isinstance(space, spaces.Discrete):
        return f"adversary 'nr_mdp' mixes actions, and those of {env.name} are discrete"
    return None
