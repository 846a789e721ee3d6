"""The adversary as a player: its policy, and how it moves beside the protagonist.

Both players have a policy and a critic of their own, of the same kind of network. How the
adversary learns from what happened is in `response`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnax.environments import spaces

from entrob.agents.adversarial import curriculum as curricula
from entrob.agents.adversarial.adversary import FORCES, Adversary, check_adversary, misfit
from entrob.agents.learn import Learner
from entrob.agents.model import Model, PolicyParams, make_model
from entrob.agents.spec import Build, Spec
from entrob.envs.wrappers.disturbance import DisturbedEnvironment
from entrob.errors import EntrobError
from entrob.regularizers.chaining import Chain

# Folded into keys, so that the protagonist draws what it would draw alone.
SALT = 0x72697661


class AdversaryBuild(NamedTuple):
    """The adversary's static part.

    Attributes:
      declared: what it may do.
      build: its spec, which has no regularizers, its policy's functions and its optimizer.
      unit: k numbers, what a force of strength 1 is along each axis; empty if it exerts none.
    """

    declared: Adversary
    build: Build
    unit: tuple[float, ...]

    @property
    def model(self) -> Model:
        """Functions of its policy."""
        return self.build.model

    @property
    def quantal(self) -> bool:
        """Whether it has a temperature."""
        return self.declared.kind == "qarl"


class Game(NamedTuple):
    """Who the protagonist plays against at the moment.

    Attributes:
      adversary: its static part.
      learner: its policy and its optimizer's state.
      curriculum: `Curriculum` of its temperatures, or ().
      strength: float32[], see `check_adversary`.
    """

    adversary: AdversaryBuild
    learner: Learner
    curriculum: Any
    strength: jax.Array | float


class Standing(NamedTuple):
    """What the adversary keeps during an episode, in each of N environments.

    Attributes:
      carry: its policy's, leaves [N, ...].
      temperature: float32[N], τ of ``"qarl"``, else ().
      shape: float32[N], the κ that τ was drawn with, else ().
    """

    carry: Any
    temperature: Any = ()
    shape: Any = ()


class Moves(NamedTuple):
    """What it did in T steps of N environments.

    Attributes:
      obs: [T, N, ...], what it saw.
      action, log_prob, dist, value: as of `Rollout`.
      acted: bool[T, N], whether its action was executed, not the protagonist's; None: both were.
      temperature, shape: float32[T, N], as of `Standing`.
      carry: its policy's after the step; None once it is not needed any more.
      episode_return: float32[T, N], the protagonist's undiscounted return up to this step.
      next_value: float32[T, N], its value of the true next observations.
    """

    obs: Any
    action: jax.Array
    log_prob: jax.Array
    dist: Any
    value: jax.Array
    acted: jax.Array | None
    temperature: Any
    shape: Any
    carry: Any
    episode_return: Any = None
    next_value: Any = None


def build_adversary(
    adversary: Adversary, spec: Spec, optimizer: optax.GradientTransformation
) -> AdversaryBuild:
    """Build the adversary's side of a game.

    Args:
      adversary: what it may do.
      spec, optimizer: the protagonist's; for forces, the environment is one made with
        ``disturbed=True``.

    Raises:
      EntrobError: the adversary is none, or does not fit the environment.
    """
    env, declared = spec.env, check_adversary(adversary)
    if reason := misfit(env, declared):
        raise EntrobError(reason)
    spec = spec._replace(regularizer=Chain(()))
    made = lambda model: Build(spec, Chain(()), model, optimizer)
    if declared.kind not in FORCES:
        model = make_model(env, spec.network, gaussian=spec.gaussian)
        return AdversaryBuild(declared, made(model), ())
    if not isinstance(env, DisturbedEnvironment):
        raise EntrobError(f"make {env.name} with entrob.make(id, disturbed=True): forces act on it")
    unit = env.disturbance_space().high
    # In shares of the strength, so that the density of a strength of 0 is finite.
    box = spaces.Box(-1.0, 1.0, unit.shape)
    model = make_model(env, spec.network, box, spec.gaussian)
    return AdversaryBuild(declared, made(model), tuple(unit.tolist()))


def begin(adversary: AdversaryBuild, n: int, key: jax.Array) -> Standing:
    """N episodes that begin."""
    carry = adversary.model.init_carry(n)
    if not adversary.quantal:
        return Standing(carry)
    shape = jnp.float32(curricula.FIRST)
    fresh = curricula.draw(jax.random.fold_in(key, SALT), shape, (n,))
    return Standing(carry, fresh, jnp.full(n, shape))


def init(adversary: AdversaryBuild, standing: Standing, obs: jax.Array, key: jax.Array) -> Any:
    """Its network's parameters.

    Args:
      standing, obs: of N environments.
      key: the protagonist's; folded before use.
    """
    view = seen(adversary, obs, standing.temperature)
    return adversary.model.init(jax.random.fold_in(key, SALT), view)


def seen(adversary: AdversaryBuild, obs: jax.Array, temperature: Any) -> jax.Array:
    """What it observes: of ``"qarl"`` τ is appended, in units of the first one's mean."""
    if not adversary.quantal:
        return obs
    shown = temperature * (curricula.RATE / curricula.FIRST)
    return jnp.concatenate([obs, shown[..., None]], -1)


def interfere(
    game: Game,
    heads: Callable,
    standing: Standing,
    obs: jax.Array,
    is_first: jax.Array,
    executed: jax.Array,
    env_state: Any,
    key: jax.Array,
) -> tuple[jax.Array, Any, Standing, Moves]:
    """One move in N environments.

    Args:
      game: who moves.
      heads: its policy, ``(carry, obs, is_first) -> (dist, value, carry)``.
      standing: of the episodes.
      obs, is_first: [N, ...] and bool[N], see `Model.step`.
      executed: [N, ...], the protagonist's action.
      env_state: leaves [N, ...].
      key: PRNG key.

    Returns:
      ``(executed, env_state, Standing, Moves)``: the action to execute, the state to step from, and
      the record of this step.
    """
    adversary, strength = game.adversary, game.strength
    kind = adversary.declared.kind
    key_action, key_turn, _ = _keys(key)
    view = seen(adversary, obs, standing.temperature)
    dist, value, carry = heads(standing.carry, view, is_first)
    action = dist.sample(key_action)
    theirs, acted = dist.execute(action), None
    if kind == "pr_mdp":
        acted = jax.random.bernoulli(key_turn, strength, value.shape)
        turn = acted.reshape(acted.shape + (1,) * (executed.ndim - acted.ndim))
        executed = jnp.where(turn, theirs, executed)
    elif kind == "nr_mdp":
        executed = (1.0 - strength) * executed + strength * theirs
    else:
        # Together no more than the strength, which one axis may have for itself.
        shares = theirs / jnp.maximum(1.0, jnp.abs(theirs).sum(-1, keepdims=True))
        unit = np.array(adversary.unit, np.float32)
        env_state = env_state.replace(disturbance=strength * unit * shares)
    scored = action, dist.drawn_log_prob(action), dist, value, acted
    moves = Moves(view, *scored, standing.temperature, standing.shape, carry)
    return executed, env_state, standing._replace(carry=carry), moves


def redraw(game: Game, standing: Standing, done: jax.Array, key: jax.Array) -> Standing:
    """The standing after a step: of ``"qarl"``, episodes that begin have a new τ."""
    if not game.adversary.quantal:
        return standing
    shape = game.curriculum.shape
    fresh = curricula.draw(_keys(key)[2], shape, done.shape)
    return standing._replace(
        temperature=jnp.where(done, fresh, standing.temperature),
        shape=jnp.where(done, shape, standing.shape),
    )


def _keys(key: jax.Array) -> jax.Array:
    """Keys of the adversary's action, its turn, and its temperature in one step."""
    return jax.random.split(jax.random.fold_in(key, SALT), 3)


def player(policy: PolicyParams, side: str) -> PolicyParams:
    """One player's policy from that of both."""
    return PolicyParams(policy.network[side], policy.moments)


def protagonist(model: Model) -> Model:
    """The policy that is tested, as functions of both players' parameters.

    Args:
      model: the single player's.
    """
    alone = lambda f: lambda policy, *args: f(player(policy, "protagonist"), *args)
    return model._replace(step=alone(model.step), sequence=alone(model.sequence))
