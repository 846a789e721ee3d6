"""Which environment and which params the perturbations and the instance asked for stand for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.evaluation.evaluator import keys_of_instances
from entrob.perturbations import needs_noise, perturb, perturbations
from entrob.perturbations.base import check_magnitude

Params = Any


@functools.partial(jax.jit, static_argnums=0)
def _perturb_all(name: str, keys: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Each copy's params [N, ...] perturbed by its own key [N]."""
    return jax.vmap(lambda key, own: perturb(key, own, name, magnitude))(keys, params)


# Typed, as 1, 1.0 and True are different options.
_cached_make = functools.lru_cache(maxsize=32, typed=True)(make)


def opened(environment: str, names: Sequence[str], options: dict[str, Any]) -> tuple[Any, Params]:
    """The environment that the named perturbations need, and its nominal params.

    The same object for the same arguments, since compiled programs belong to one.
    """
    if not isinstance(environment, str):
        raise EntrobError(f"an environment is given by its id, not by {short(environment)}")
    if own := {"noise", "disturbed"} & set(options):
        raise EntrobError(f"no option {min(own)!r} here: noise comes with what needs it")
    noise = any(map(needs_noise, names))
    try:
        hash(tuple(options.values()))
    except TypeError:
        return make(environment, noise, **options)
    return _cached_make(environment, noise, **options)


def drawing(
    nominal: Params, wanted: Mapping[str, float], count: int, evaluation_seed: int
) -> Callable[[Sequence[int]], Params]:
    """A function from the numbers of N instances to their params, leaves [N, ...]."""
    nominal = jax.tree.map(jnp.asarray, nominal)
    steps = []
    for position, (name, magnitude) in enumerate(wanted.items()):
        entry = perturbations.get(name, nominal)
        keys = keys_of_instances(evaluation_seed, name, nominal, count, position)
        steps.append((name, keys, check_magnitude(entry, nominal, magnitude)))

    def draw(numbers: Sequence[int]) -> Params:
        repeat = lambda leaf: jnp.broadcast_to(leaf, (len(numbers), *leaf.shape))
        params = jax.tree.map(repeat, nominal)
        for name, keys, magnitude in steps:
            params = _perturb_all(name, keys[np.asarray(numbers)], params, magnitude)
        return params

    return draw


def whole(what: str, value: Any, low: int, high: float) -> int:
    """A whole number in low..high, both included; raises `EntrobError` for anything else."""
    right = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (right and low <= value <= high):
        raise EntrobError(f"{what} must be a whole number in {low}..{high}, not {short(value)}")
    return int(value)


def short(value: Any) -> str:
    """A value on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
