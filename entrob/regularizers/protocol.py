"""What a regularizer is: up to eight optional pure functions over explicit per-run state.

A regularizer is to the agent's objective what an optax transformation is to a gradient.
`entrob.regularizers.chain` composes several; the agent calls only the chain.
"""

import inspect
import math
from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple

import jax

from entrob.errors import BrokenMethod
from entrob.rollout import PolicyOutput, Rollout

Bonus = jax.Array | tuple[jax.Array, Any]
Shaped = jax.Array | tuple[jax.Array, jax.Array]
Weighed = tuple[jax.Array, jax.Array, jax.Array]
Evidence = Literal["code", "paper", "secondary", "memory", ""]
#: What the grades of `Regularizer.evidence` mean, as it is printed.
EVIDENCE = {
    "code": "checked against the authors' code",
    "paper": "checked against the paper",
    "secondary": "from abstracts and accounts of others",
    "memory": "from memory",
}


class Regularizer(NamedTuple):
    """A named tuple of optional hooks; ``None`` means that the hook is not used.

    ``coef`` is one traced scalar, 0 = off, larger = stronger; a hook multiplies by it itself.
    The per-run ``state`` is any pytree whose shapes stay the same between updates.

    Attributes:
      name: its name on the command line, in tables and figures.
      init: ``(key, spec, params) -> state``; spec is the agent's `Spec`, params the network's.
      behavior: ``(state, dist, coef) -> dist``, what actions are sampled from.
      reward: ``(key, state, rollout, coef) -> bonus[T, N]`` or ``(bonus, state)``, added before
        GAE.
      advantage: ``(state, rollout, coef) -> advantage[T, N]`` or ``(advantage, target)``.
      prepare: ``(state, rollout, coef) -> notes``, leaves [T, N, ...]: what surrogate and loss must
        know of whole episodes. They find it as ``batch.notes``, cut into the same minibatches.
      surrogate: ``(key, state, policy, batch, coef) -> (weight[B], clip_low[B], clip_high[B])``.
      loss: ``(key, state, policy, batch, coef) -> scalar``, added to the loss.
      update: ``(key, state, rollout, metrics) -> state``, once after each update; metrics are those
        of the gradient steps, ``params``, the network's parameters after them, and ``coef``, the
        regularizer's own coefficient at this point of training.
      schedule: ``progress -> multiplier`` of the coefficient, or None for a constant one.
      coef: default coefficient.
      domain: ``(low, high)``: coefficients lie in [low, high), see `entrob.regularizers.domain`.
      distinct: ``(coefficient, steps per minibatch) -> key``: coefficients with equal keys act
        alike (a count is what rounding leaves of a share); None: all differ.
      source: where the formula comes from.
      evidence: how it was looked up: in the authors' ``"code"``, in the ``"paper"``'s text, in
        abstracts and accounts of others (``"secondary"``), or not (``"memory"``); "" if it is new.
      label: ``"faithful"``, ``"adapted: ..."`` with the difference from the source,
        ``"degenerate: ..."`` with where and why, or ``"control: ..."``.
      actions: which kinds of actions it is for.
    """

    name: str
    init: Callable[[jax.Array, Any, Any], Any] | None = None
    behavior: Callable[[Any, Any, jax.Array], Any] | None = None
    reward: Callable[[jax.Array, Any, Rollout, jax.Array], Bonus] | None = None
    advantage: Callable[[Any, Rollout, jax.Array], Shaped] | None = None
    prepare: Callable[[Any, Rollout, jax.Array], Any] | None = None
    surrogate: Callable[[jax.Array, Any, PolicyOutput, Rollout, jax.Array], Weighed] | None = None
    loss: Callable[[jax.Array, Any, PolicyOutput, Rollout, jax.Array], jax.Array] | None = None
    update: Callable[[jax.Array, Any, Rollout, dict[str, Any]], Any] | None = None
    schedule: Callable[[jax.Array], jax.Array] | None = None
    coef: float = 0.0
    domain: tuple[float, float] = (0.0, math.inf)
    distinct: Callable[[float, int], Hashable] | None = None
    source: str = ""
    evidence: Evidence = ""
    label: str = "faithful"
    actions: tuple[str, ...] = ("discrete", "continuous")

    @property
    def graded(self) -> str:
        """The label with its evidence, as it is printed."""
        return f"{self.label} [{EVIDENCE[self.evidence]}]" if self.evidence else self.label


#: The hooks and the arguments each is called with.
HOOKS = {
    "init": ("key", "spec", "params"),
    "behavior": ("state", "dist", "coef"),
    "reward": ("key", "state", "rollout", "coef"),
    "advantage": ("state", "rollout", "coef"),
    "prepare": ("state", "rollout", "coef"),
    "surrogate": ("key", "state", "policy", "batch", "coef"),
    "loss": ("key", "state", "policy", "batch", "coef"),
    "update": ("key", "state", "rollout", "metrics"),
}


def check_signature(name: str, hook: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Raise `BrokenMethod` unless the hook is None or a function of its arguments, by position."""
    if function is None:
        return
    wanted = f"regularizer {name!r}: {hook} takes ({', '.join(arguments)})"
    if not callable(function):
        raise BrokenMethod(f"{wanted}, got no function but {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a built-in: unknown
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise BrokenMethod(f"{wanted}, got {signature}") from None
