"""The adversary as a learner: how it moves beside the protagonist, and learns from what happened.

Both players have a policy and a critic of their own. The adversary's reward is the negative of
the protagonist's, without the bonuses of regularizers, which act on the protagonist only. Under
``"forces"`` and ``"quantal"`` the players take turns, one update each; what the other one's
gradient would have changed, its weights and its optimizer's state, stays bit for bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from entrob.agents import curriculum as curricula
from entrob.agents.adversary import FORCES, Adversary, check_adversary, misfit
from entrob.agents.learn import learn
from entrob.agents.model import Model, PolicyParams, make_model
from entrob.agents.spec import Hyper, Spec
from entrob.errors import EntrobError
from entrob.estimators.advantages import gae
from entrob.regularizers.protocol import Chain, Rollout

# Folded into keys, so that the protagonist draws what it would draw alone.
SALT = 0x72697661


class Opponent(NamedTuple):
    """The adversary's static part.

    Attributes:
      adversary: what it may do.
      model: its policy's functions.
      reach: k numbers, its largest forces in the environment's units; empty if it exerts none.
    """

    adversary: Adversary
    model: Model
    reach: tuple[float, ...]


class Game(NamedTuple):
    """Who the protagonist plays against at the moment.

    Attributes:
      opponent: the adversary.
      policy: `PolicyParams` that it acts by.
      opt_state: its optimizer's.
      curriculum: `Curriculum` of its temperatures, or ().
    """

    opponent: Opponent
    policy: PolicyParams
    opt_state: Any
    curriculum: Any


class Standing(NamedTuple):
    """What the adversary keeps during an episode, in each of N environments.

    Attributes:
      memory: its policy's, leaves [N, ...].
      temperature: float32[N], τ of ``"quantal"``, else ().
      shape: float32[N], the κ that τ was drawn with, else ().
    """

    memory: Any
    temperature: Any = ()
    shape: Any = ()


class Moves(NamedTuple):
    """What it did in T steps of N environments.

    Attributes:
      obs: [T, N, ...], what it saw.
      action, log_prob, dist, value: as of `Rollout`.
      acted: bool[T, N], whether its action was executed, not the protagonist's; None: both were.
      temperature, shape: float32[T, N], as of `Standing`.
      memory: its policy's after the step; None once it is not needed any more.
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
    memory: Any
    episode_return: Any = None
    next_value: Any = None


def make_opponent(env: Any, adversary: Adversary, network: Any) -> Opponent:
    """Build the adversary's side of a game.

    Args:
      env: what is played in; for forces, one made with ``disturbed=True``.
      adversary: what it may do.
      network: as of `make_model`, the protagonist's.

    Raises:
      EntrobError: the adversary is none, or does not fit the environment.
    """
    reason = misfit(env, check_adversary(adversary))
    if reason:
        raise EntrobError(reason)
    if adversary.kind not in FORCES:
        return Opponent(adversary, make_model(env, network), ())
    if not hasattr(env, "disturbance_space"):
        raise EntrobError(f"make {env.name} with entrob.make(id, disturbed=True): forces act on it")
    unit = env.disturbance_space().high
    # Of strength 1, so that the density of a strength of 0 is finite.
    model = make_model(env, network, spaces.Box(-1.0, 1.0, unit.shape))
    return Opponent(adversary, model, tuple((adversary.strength * unit).tolist()))


def is_quantal(opponent: Opponent) -> bool:
    """Whether it has a temperature."""
    return opponent.adversary.kind == "quantal"


def begin(opponent: Opponent, n: int, key: jax.Array) -> Standing:
    """N episodes that begin."""
    memory = opponent.model.memory(n)
    if not is_quantal(opponent):
        return Standing(memory)
    shape = jnp.float32(curricula.FIRST)
    fresh = curricula.draw(jax.random.fold_in(key, SALT), shape, (n,))
    return Standing(memory, fresh, jnp.full(n, shape))


def init(opponent: Opponent, standing: Standing, obs: jax.Array, key: jax.Array) -> Any:
    """Its network's parameters.

    Args:
      standing, obs: of N environments.
      key: the protagonist's; folded before use.
    """
    view = seen(opponent, obs, standing.temperature)
    return opponent.model.init(jax.random.fold_in(key, SALT), view)


def seen(opponent: Opponent, obs: jax.Array, temperature: Any) -> jax.Array:
    """What it observes: of ``"quantal"`` τ is appended, in units of the first one's mean."""
    if not is_quantal(opponent):
        return obs
    shown = temperature * (curricula.RATE / curricula.FIRST)
    return jnp.concatenate([obs, shown[..., None]], -1)


def interfere(
    game: Game,
    heads: Callable,
    standing: Standing,
    obs: jax.Array,
    start: jax.Array,
    executed: jax.Array,
    env_state: Any,
    key: jax.Array,
) -> tuple[jax.Array, Any, Standing, Moves]:
    """One move in N environments.

    Args:
      game: who moves.
      heads: its policy, ``(memory, obs, start) -> (dist, value, memory)``.
      standing: of the episodes.
      obs, start: [N, ...] and bool[N], see `Model.step`.
      executed: [N, ...], the protagonist's action.
      env_state: leaves [N, ...].
      key: PRNG key.

    Returns:
      ``(executed, env_state, Standing, Moves)``: the action to execute, the state to step from, and
      the record of this step.
    """
    opponent, (kind, strength, _) = game.opponent, game.opponent.adversary
    key_action, key_turn, _ = _keys(key)
    view = seen(opponent, obs, standing.temperature)
    dist, value, memory = heads(standing.memory, view, start)
    action = dist.sample(key_action)
    theirs, acted = dist.execute(action), None
    if kind == "probabilistic":
        acted = jax.random.bernoulli(key_turn, strength, value.shape)
        turn = acted.reshape(acted.shape + (1,) * (executed.ndim - acted.ndim))
        executed = jnp.where(turn, theirs, executed)
    elif kind == "noisy":
        executed = (1.0 - strength) * executed + strength * theirs
    else:
        env_state = env_state.replace(disturbance=np.float32(opponent.reach) * theirs)
    scored = action, dist.log_prob(action), dist, value, acted
    moves = Moves(view, *scored, standing.temperature, standing.shape, memory)
    return executed, env_state, standing._replace(memory=memory), moves


def redraw(game: Game, standing: Standing, done: jax.Array, key: jax.Array) -> Standing:
    """The standing after a step: of ``"quantal"``, episodes that begin have a new τ."""
    if not is_quantal(game.opponent):
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


def rollout_of(opponent: Opponent, rollout: Rollout, moves: Moves) -> Rollout:
    """The rollout as the adversary has it: its reward is the negative of the protagonist's.

    That of ``"quantal"`` is more by -τ log π(b|s), whose mean is τ times the entropy; τ is in the
    unit of the rewards of the rollout, which `reward_scale` may have divided.
    """
    reward = -rollout.reward
    if is_quantal(opponent):
        reward -= moves.temperature * moves.log_prob
    names = ("obs", "action", "log_prob", "dist", "value", "acted")
    own = {name: getattr(moves, name) for name in names}
    return rollout.replace(reward=reward, notes=None, **own)


def respond(
    game: Game,
    spec: Spec,
    optimizer: Any,
    hyper: Hyper,
    state: Any,
    learned: tuple[Any, Any],
    rollout: Rollout,
    moves: Moves,
    key: jax.Array,
) -> tuple[dict, dict, Any]:
    """What both players keep of an update, in which the protagonist has learned already.

    Args:
      game: who it played against.
      spec, optimizer, hyper: as the protagonist's.
      state: `AgentState` before the update.
      learned: the protagonist's network and optimizer state after its gradient steps.
      rollout: what it learned from.
      moves: what the adversary did in it.
      key: PRNG key of these steps; folded before use.

    Returns:
      ``(network, opt_state, curriculum)``, the first two by player.
    """
    opponent, theirs, opt_state, curriculum = game
    own = rollout_of(opponent, rollout, moves)
    advantage = gae(
        own.reward, own.value, moves.next_value, own.terminated, own.truncated,
        hyper.gamma, hyper.gae_lambda,
    )  # fmt: skip
    own = own.replace(advantage=advantage, target=advantage + own.value)
    network, opt_state, *_ = learn(
        spec._replace(regularizer=Chain(())), opponent.model, optimizer, hyper, {}, {}, theirs,
        opt_state, state.actors.standing.memory, own, jax.random.fold_in(key, SALT),
    )  # fmt: skip
    both = (
        {"protagonist": ours, "adversary": other}
        for ours, other in zip(learned, (network, opt_state))
    )
    olds = state.network, state.opt_state
    kept = [take_turns(opponent, state.update, old, new) for old, new in zip(olds, both)]
    if curriculum:
        ended = rollout.terminated | rollout.truncated
        episodes = moves.temperature, moves.shape, moves.episode_return
        curriculum = curricula.advance(curriculum, *episodes, ended)
    return *kept, curriculum


def take_turns(opponent: Opponent, update: jax.Array, old: dict, new: dict) -> dict:
    """What both players keep of an update: all, or with forces only the one whose turn it is.

    Args:
      opponent: the adversary.
      update: int32[]; even ones are the protagonist's.
      old, new: anything by player, before and after.
    """
    if opponent.adversary.kind not in FORCES:
        return new
    turns = {"protagonist": update % 2 == 0, "adversary": update % 2 == 1}

    def keep(side):
        return jax.tree.map(lambda a, b: jnp.where(turns[side], a, b), new[side], old[side])

    return {side: keep(side) for side in new}


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
