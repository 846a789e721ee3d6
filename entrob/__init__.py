"""entrob: which regularizers make reinforcement-learning policies robust?"""

import importlib
from typing import TYPE_CHECKING

from entrob.errors import EntrobError

if TYPE_CHECKING:
    from entrob.envs import make
    from entrob.perturbations import compose, perturb, perturbation
    from entrob.regularizers import Regularizer, chain, regularizer

__version__ = "0.1.0"

__all__ = [
    "EntrobError",
    "Regularizer",
    "chain",
    "compose",
    "make",
    "perturb",
    "perturbation",
    "regularizer",
]

# Loaded on first use: importing gymnax starts JAX's backend, and the command line must choose the
# number of devices before that.
_HOME = {
    "make": "entrob.envs",
    "compose": "entrob.perturbations",
    "perturb": "entrob.perturbations",
    "perturbation": "entrob.perturbations",
    "Regularizer": "entrob.regularizers",
    "chain": "entrob.regularizers",
    "regularizer": "entrob.regularizers",
}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'entrob' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
