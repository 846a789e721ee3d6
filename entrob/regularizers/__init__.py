"""Regularizers: pure functions that are added to the objective, by name.

A new one is one decorated function::

    @entrob.regularizer("l2_logits", coef=1e-3)
    def l2_logits(policy, batch, coef):
        return coef * (policy.logits ** 2).mean()
"""

import inspect
from collections.abc import Callable
from typing import Any

from entrob.errors import EntrobError
from entrob.registry import Registry, imported
from entrob.regularizers import controls, intrinsic, losses, schedules, shaping, temperature
from entrob.regularizers.chaining import Chain, chain
from entrob.regularizers.controls import (
    placebo_loss,
    placebo_reward,
)
from entrob.regularizers.domain import check_coefficient
from entrob.regularizers.intrinsic import (
    apt,
    count_entropy,
    discounted_count_entropy,
    orpo_chi2,
    orpo_kl,
    orpo_root_chi2,
    re3,
    rise,
    state_action_entropy,
    state_entropy,
    vcse,
)
from entrob.regularizers.losses import (
    aent,
    alpha_divergence,
    epo,
    kl,
    lp_reg,
    lrpg,
    policy_entropy,
    siren,
    spine,
    sr2l,
    tsallis,
    value_gradient,
)
from entrob.regularizers.protocol import HOOKS, Regularizer
from entrob.regularizers.shaping import (
    agentic_aepo,
    clip_cov,
    ear,
    empg,
    hapo,
    kl_cov,
    self_imitation,
    steer,
)
from entrob.regularizers.temperature import (
    aepo,
    aer,
    sac_temperature,
)
from entrob.rollout import PolicyOutput, Rollout

__all__ = [
    "HOOKS",
    "Chain",
    "PolicyOutput",
    "Regularizer",
    "Rollout",
    "aent",
    "aepo",
    "aer",
    "agentic_aepo",
    "alpha_divergence",
    "apt",
    "build",
    "chain",
    "check_coefficient",
    "clip_cov",
    "count_entropy",
    "discounted_count_entropy",
    "ear",
    "empg",
    "epo",
    "family",
    "hapo",
    "kl",
    "kl_cov",
    "load",
    "lp_reg",
    "lrpg",
    "orpo_chi2",
    "orpo_kl",
    "orpo_root_chi2",
    "placebo_loss",
    "placebo_reward",
    "policy_entropy",
    "re3",
    "regularizer",
    "regularizers",
    "rise",
    "sac_temperature",
    "self_imitation",
    "siren",
    "spine",
    "sr2l",
    "state_action_entropy",
    "state_entropy",
    "steer",
    "tsallis",
    "value_gradient",
    "vcse",
]


#: Name -> factory ``(**options) -> Regularizer``. The name ``none`` is the empty chain.
class Regularizers(Registry[Callable[..., Regularizer]]):
    """Factories by name; a package may declare a `Regularizer` itself."""

    def _adopt(self, name: str, found: Any) -> None:
        if isinstance(found, Regularizer):
            _register_ready(found)
        else:
            super()._adopt(name, found)


#: The families, in the order in which they are listed.
FAMILIES = (losses, shaping, temperature, intrinsic, controls)

regularizers = Regularizers("regularizer")
for _family in FAMILIES:
    for _factory in _family.FACTORIES:
        regularizers.register(_factory.__name__, _factory)


def regularizer(
    name: str,
    coef: float = 1.0,
    hook: str = "loss",
    source: str = "",
    label: str = "faithful",
) -> Callable[[Callable[..., Any]], Callable[..., Regularizer]]:
    """Decorate one hook function to make it a registered regularizer.

    Args:
      name: its name on the command line, in tables and figures.
      coef: default coefficient, at least 0.
      hook: which hook the function is, see `Regularizer`. The function takes the hook's
        arguments by name, in any order, and leaves out those it does not need.
      source: where the formula comes from.
      label: how it stands to its source, see `Regularizer`.

    Returns:
      The decorator; the decorated function becomes a factory of the `Regularizer` and carries
      the function's docstring.

    Raises:
      EntrobError: unknown hook, an argument that the hook does not have, or a name that is taken.
    """
    if hook not in HOOKS:
        raise EntrobError(f"regularizer {name!r}: unknown hook {hook!r}, one of {', '.join(HOOKS)}")
    allowed = HOOKS[hook]

    def decorate(function: Callable[..., Any]) -> Callable[..., Regularizer]:
        wanted = tuple(inspect.signature(function).parameters)
        extra = [w for w in wanted if w not in allowed]
        if extra:
            raise EntrobError(
                f"regularizer {name!r}: {hook} takes {', '.join(allowed)}; got {', '.join(extra)}"
            )

        def adapted(*args: Any) -> Any:
            given = dict(zip(allowed, args))
            return function(**{w: given[w] for w in wanted})

        def factory(schedule: schedules.Schedule | None = None) -> Regularizer:
            made = Regularizer(name, schedule=schedule, coef=coef, source=source, label=label)
            hooks: dict[str, Any] = {hook: adapted}
            return made._replace(**hooks)

        factory.__doc__ = function.__doc__
        factory.__name__, factory.__module__ = function.__name__, function.__module__
        return regularizers.register(name, factory)

    return decorate


def family(name: str) -> str:
    """Which of entrob's families a registered regularizer belongs to, by what it does.

    Returns:
      ``"losses"``, ``"shaping"``, ``"temperature"``, ``"intrinsic"`` or ``"controls"``, of which
      nothing is claimed; one from elsewhere is put beside those that have its hooks.
    """
    factory = regularizers.get(name)
    for own in FAMILIES:
        if factory in own.FACTORIES:
            return own.__name__.rpartition(".")[2]
    made = factory()
    if made.reward:
        return "intrinsic"
    if made.advantage or made.surrogate:
        return "shaping"
    return "losses" if made.loss else "temperature"


def build(name: str, **options: Any) -> Regularizer:
    """A registered regularizer with options.

    A ``schedule`` may be given as in an experiment file: ``{"kind": "cosine", "start": 5.0}``.

    Raises:
      EntrobError: the name, an option or a schedule is unknown.
    """
    factory = regularizers.get(name)
    schedule = options.get("schedule")
    try:
        if isinstance(schedule, dict):
            kind = schedules.SCHEDULES.get(schedule.get("kind", ""))
            if kind is None:
                known = ", ".join(schedules.SCHEDULES)
                raise EntrobError(f"regularizer {name!r}: schedule kind must be one of {known}")
            arguments = {key: value for key, value in schedule.items() if key != "kind"}
            options = {**options, "schedule": kind(**arguments)}
        elif schedule is not None and not callable(schedule):
            raise EntrobError(f"regularizer {name!r}: schedule must be a table with a kind")
        made = factory(**options)
    except TypeError as error:
        raise EntrobError(f"regularizer {name!r}: {error}") from error
    if not isinstance(made, Regularizer):
        raise EntrobError(f"regularizer {name!r}: its factory must return an entrob Regularizer")
    return made._replace(name=name)


def load(reference: str) -> str:
    """Make ``module:attribute`` available and return the name it is registered under.

    The attribute is a decorated function or a factory of a `Regularizer`. A plain registered
    name is returned as it is.

    Raises:
      EntrobError: the module does not import, has no such attribute, or the name is unknown.
    """
    if ":" not in reference:
        regularizers.get(reference)
        return reference
    factory = imported("regularizer", reference)
    for name in regularizers.names():
        if regularizers.get(name) is factory:
            return name
    if isinstance(factory, Regularizer):
        return _register_ready(factory)
    try:
        made = factory() if callable(factory) else None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise EntrobError(
            f"regularizer {reference!r} is neither decorated nor a Regularizer ({reason})"
        ) from error
    if not isinstance(made, Regularizer):
        raise EntrobError(f"regularizer {reference!r} is neither decorated nor a Regularizer")
    regularizers.register(made.name, factory)
    return made.name


def _register_ready(made: Regularizer) -> str:
    """Register a `Regularizer` that is no factory; a second time changes nothing."""
    if made.name not in regularizers or regularizers.get(made.name)() is not made:
        regularizers.register(
            made.name,
            lambda schedule=None: made if schedule is None else made._replace(schedule=schedule),
        )
    return made.name
