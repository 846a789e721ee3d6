"""entrob: which regularizers make reinforcement-learning policies robust?"""

import importlib
from typing import TYPE_CHECKING, Any

from entrob.errors import EntrobError

if TYPE_CHECKING:
    from entrob import envs, perturbations, regularizers
    from entrob.envs import Environment, make, register
    from entrob.envs.checking import check_environment
    from entrob.library import Policy, evaluate, load_policy, train
    from entrob.perturbations import compose, perturb, perturbation
    from entrob.regularizers import Regularizer, chain, regularizer

__version__ = "0.1.0"

__all__ = [
    "EntrobError",
    "Environment",
    "Policy",
    "Regularizer",
    "chain",
    "check_environment",
    "compose",
    "envs",
    "evaluate",
    "load_policy",
    "make",
    "perturb",
    "perturbation",
    "perturbations",
    "register",
    "regularizer",
    "regularizers",
    "train",
]

# Loaded on first use: importing gymnax starts JAX's backend, and the command line must choose the
# number of devices before that.
_HOME = {
    "Environment": "entrob.envs",
    "make": "entrob.envs",
    "register": "entrob.envs",
    "check_environment": "entrob.envs.checking",
    "Policy": "entrob.library",
    "evaluate": "entrob.library",
    "load_policy": "entrob.library",
    "train": "entrob.library",
    "compose": "entrob.perturbations",
    "perturb": "entrob.perturbations",
    "perturbation": "entrob.perturbations",
    "Regularizer": "entrob.regularizers",
    "chain": "entrob.regularizers",
    "regularizer": "entrob.regularizers",
}
_MODULES = ("envs", "perturbations", "regularizers")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"entrob.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'entrob' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
