"""What a perturbation is, the registry of them, and how one or several are applied."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from entrob.envs.widening import Params
from entrob.errors import EntrobError, unknown
from entrob.registry import Names

Apply = Callable[[jax.Array, Params, jax.Array], Params]
#: What a perturbation acts on; tables print it as its class.
Category = Literal[
    "routes",
    "random walls",
    "shifts",
    "action noise",
    "observation noise",
    "dynamics",
    "attacks",
]
CATEGORIES: tuple[str, ...] = get_args(Category)
#: What records call the environment without any perturbation.
NOMINAL = "nominal"
# Folded into an instance's key to draw its stratum, apart from what a perturbation draws of it.
SALT = 0x73747261
#: Keys tried per stratum: one that none of them falls into has a chance of e^-32.
CANDIDATES = 32


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """A family of perturbed environments, indexed by a key (which instance) and a magnitude.

    Attributes:
      name: what it is called on the command line and in result tables.
      fn: pure ``(key, params, magnitude float32[]) -> params``, same shapes and dtypes.
      low: smallest magnitude.
      high: largest magnitude, on the paper's 8×8 grid where it depends on the size of a grid.
      paper: the magnitude the paper tests, None if it does not use this perturbation.
      category: its class: "routes" close the way that was learned, "random walls" stand anywhere,
        "shifts" move the goal or the start, "action noise" and "observation noise" blur every step,
        "dynamics" change how bodies move, everywhere alike, "attacks" are learned by an adversary.
      integer: magnitudes are whole numbers.
      instances_distinct: different keys give different environments, so that worst case and CVaR
        over instances mean something.
      stratified: it draws by `stratum`, so that a test's instances have equal shares of what it
        tells apart, see `instance_keys`.
      training_only: it changes what an agent learns from and not what it is tested on.
      requires: fields the params must have, and not as None; ``"noise.slip"`` is one of a field.
      limit: the largest magnitude for given params where it depends on their shapes.
      unit: what the magnitude measures, as the label of an axis.
      doc: one line on what it does.
    """

    name: str
    fn: Apply
    low: float = 0.0
    high: float = 1.0
    paper: float | None = None
    category: Category = "dynamics"
    integer: bool = False
    instances_distinct: bool = True
    stratified: bool = False
    training_only: bool = False
    requires: tuple[str, ...] = ()
    limit: Callable[[Params], float] | None = None
    unit: str = "magnitude"
    doc: str = ""

    def range(self, params: Params) -> tuple[float, float]:
        """The smallest and largest magnitude for these params."""
        return self.low, self.high if self.limit is None else self.limit(params)

    def lacks(self, params: Params) -> str | None:
        """The first required field that the params lack, None if they have all."""
        return next((field for field in self.requires if not _has(params, field)), None)


def _has(params: Params, path: str) -> bool:
    for field in path.split("."):
        params = getattr(params, field, None)
    return params is not None


class Perturbations(Names[tuple[Perturbation, ...]]):
    """Perturbations by name, where one name may serve several families of params.

    A `wall` is a column of cells on a grid and a row of blocks on a table: two perturbations of one
    name, told apart by the fields that they require.
    """

    def register(self, name: str, value: Perturbation) -> Perturbation:
        """Add a perturbation; raises `EntrobError` if all params that fit it fit another one too,
        or the other way around, if its category is unknown, or its name that of the nominal.
        """
        if name == NOMINAL:
            raise EntrobError(f"no {self.kind} can be called {name!r}: that is the lack of one")
        if value.category not in CATEGORIES:
            raise unknown("category of a perturbation", value.category, CATEGORIES)
        others = self._entries.get(name, ())
        required = set(value.requires)
        if any(required <= set(o.requires) or required >= set(o.requires) for o in others):
            raise EntrobError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = (*others, value)
        return value

    def _adopt(self, name: str, found: Any) -> None:
        """Register a `Perturbation`; a decorated function did so when it was imported."""
        if isinstance(found, Perturbation):
            self.register(found.name, found)

    def of(self, name: str, fn: Apply) -> Perturbation:
        """The perturbation of a name that was made from a function here; asks no other packages,
        which may need this one whole."""
        return next(entry for entry in self._entries[name] if entry.fn is fn)

    def variants(self, name: str) -> tuple[Perturbation, ...]:
        """All perturbations of a name, in the order of registration; raises `EntrobError`."""
        self._load_plugins()  # they may bring a variant of a name that is known already
        return self._entry(name)

    def get(self, name: str, params: Params | None = None) -> Perturbation:
        """The perturbation of a name that fits the params, without params the first one.

        Raises:
          EntrobError: the name is unknown, or the params lack what its perturbations change.
        """
        variants = self.variants(name)
        if params is None:
            return variants[0]
        missing: list[str] = []
        for variant in variants:
            field = variant.lacks(params)
            if field is None:
                return variant
            missing.append(field)
        fields = " or ".join(map(repr, missing))
        remedy = REMEDIES.get(missing[0], "this environment has none")
        raise EntrobError(f"perturbation {name!r} needs params with {fields}: {remedy}")


#: What to say about a required field that params lack.
REMEDIES = {
    "noise": "make the environment with entrob.make(id, noise=True)",
    "noise.action_noise": "the actions of this environment are no box with bounds",
    "noise.observation_noise": "this environment's observations are whole numbers, "
    "see observation_dropout",
    "noise.observation_spread": "the environment does not declare its observation_spread, "
    "see observation_noise_raw",
}

#: Perturbation name -> `Perturbation`, one per family of params.
perturbations = Perturbations("perturbation")


def needs_noise(name: str) -> bool:
    """Whether a perturbation acts on environments made with noise only; raises `EntrobError`."""
    return any("noise" in variant.requires for variant in perturbations.variants(name))


def perturbation(name: str, **declared: Any) -> Callable[[Apply], Apply]:
    """Register the decorated function as a perturbation and return it unchanged.

    The function need not treat magnitude 0 specially: `perturb` makes it the identity.

    Args:
      name: its name; another perturbation may have it if it is for other params, that is if each
        of the two requires a field that the other does not. Raises `EntrobError` otherwise.
      **declared: the other fields of `Perturbation`; `doc` defaults to the docstring's first line.

    Example:
      >>> @perturbation("long_pole", high=2.0, requires=("length",))
      ... def long_pole(key, params, magnitude):
      ...     return params.replace(length=params.length * (1 + magnitude))
    """

    def register(fn: Apply) -> Apply:
        summary = (fn.__doc__ or "").strip().partition("\n")[0]
        entry = Perturbation(name=name, fn=fn, **{"doc": summary, **declared})
        if not entry.low <= 0 <= entry.high:
            raise EntrobError(f"the range of perturbation {name!r} must contain 0, the identity")
        perturbations.register(name, entry)
        return fn

    return register


def perturb(key: jax.Array, params: Params, name: str, magnitude: jax.Array | float) -> Params:
    """Draw one instance of a perturbation: one key, one layout.

    Pure, and traceable in `key`, `params` and `magnitude`, so one compilation serves them all.

    Args:
      key: which instance; the same key draws nested or equal instances at every magnitude.
      params: `EnvParams` to perturb.
      name: a registered perturbation.
      magnitude: float[] or int[]; 0 returns `params` bit for bit. A traced one is not checked.

    Returns:
      Params of the same structure, shapes and dtypes.

    Raises:
      EntrobError: the name is unknown, the magnitude is no number or out of range, or the params
        lack what the perturbation changes.
    """
    entry = perturbations.get(name, params)
    magnitude = check_magnitude(entry, params, magnitude)
    perturbed = entry.fn(key, params, magnitude)
    _check_same_form(entry, params, perturbed)
    # Leaves that were passed on are left alone: they may be Python numbers, which jit folds.
    return jax.tree.map(
        lambda old, new: old if new is old else jnp.where(magnitude == 0, old, new),
        params,
        perturbed,
    )


def stratum(key: jax.Array) -> jax.Array:
    """Where in 0..1 an instance lies, uniformly over keys: float32[].

    What a perturbation draws by it comes in equal shares in a test, see `instance_keys`.
    """
    return jax.random.uniform(jax.random.fold_in(key, SALT))


def instance_keys(key: jax.Array, entry: Perturbation, count: int) -> jax.Array:
    """The keys of a test's instances: keys[count].

    Those of a stratified perturbation are chosen among `CANDIDATES` times as many so that one
    `stratum` lies in each of the `count` equal parts of 0..1, in random order. Each is an ordinary
    key, of whose other draws nothing is said.

    Args:
      key: PRNG key of the test.
      entry: the perturbation.
      count: number of instances, static.
    """
    if not entry.stratified:
        return jax.random.split(key, count)
    key_order, key_candidates = jax.random.split(key)
    candidates = jax.random.split(key_candidates, CANDIDATES * count)
    part = jnp.floor(count * jax.vmap(stratum)(candidates)).astype(jnp.int32)
    number = jnp.arange(len(candidates))
    first = jnp.full(count, len(candidates) - 1).at[part].min(number)
    return candidates[jax.random.permutation(key_order, first)]


def compose(key: jax.Array, params: Params, steps: Iterable[tuple[str, Any]]) -> Params:
    """Apply several perturbations from left to right, each with a key of its own.

    The i-th one gets ``fold_in(key, i)``, so changing one magnitude leaves the other draws alone.
    A later perturbation sees the result of the earlier ones and never covers its start or goal.

    Args:
      key: which instance.
      params: `EnvParams` to perturb.
      steps: ``(name, magnitude)`` pairs, as for `perturb`.
    """
    for position, (name, magnitude) in enumerate(steps):
        params = perturb(jax.random.fold_in(key, position), params, name, magnitude)
    return params


def check_magnitude(entry: Perturbation, params: Params, magnitude: Any) -> jax.Array:
    """The magnitude as float32[]; raises if it is concrete and wrong."""
    kind = "a whole number" if entry.integer else "a number"
    if not isinstance(magnitude, jax.core.Tracer):
        low, high = entry.range(params)
        try:
            value = float(magnitude)
            right = not isinstance(magnitude, str) and low <= value <= high  # NaN is not
            right = right and (not entry.integer or value == int(value))
        except (TypeError, ValueError):
            right = False
        if not right:
            given = " ".join(repr(magnitude).split())
            raise EntrobError(
                f"the magnitude of perturbation {entry.name!r} must be {kind} "
                f"in {low:g}..{high:g}, not {given}"
            )
    return jnp.asarray(magnitude, jnp.float32)


def _check_same_form(entry: Perturbation, params: Params, perturbed: Params) -> None:
    """Raise unless structure, shapes and dtypes are those of the nominal params."""

    def form(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)

    if form(params) != form(perturbed):
        raise EntrobError(
            f"perturbation {entry.name!r} must return params of the same fields, shapes and dtypes"
        )
