"""The adversary as a learner: its rewards, its gradient steps, and whose turn it is to learn.

The adversary's reward is the negative of the protagonist's, without the bonuses of regularizers,
which act on the protagonist only. Under ``"rarl"`` and ``"qarl"`` the players take turns, one
update each; what the other one's gradient would have changed, its weights and its optimizer's
state, stays bit for bit.
"""

from typing import Any

import jax
import jax.numpy as jnp

from entrob.agents.adversarial import curriculum as curricula
from entrob.agents.adversarial.adversary import FORCES
from entrob.agents.adversarial.play import SALT, AdversaryBuild, Game, Moves
from entrob.agents.estimate import estimate
from entrob.agents.learn import Learner, learn
from entrob.agents.spec import Hyper
from entrob.rollout import Rollout


def rollout_of(adversary: AdversaryBuild, rollout: Rollout, moves: Moves) -> Rollout:
    """The rollout as the adversary has it: its reward is the negative of the protagonist's.

    That of ``"qarl"`` is more by -τ log π(b|s), whose mean is τ times the entropy; τ is in the
    unit of the rewards of the rollout, which `reward_scale` may have divided.
    """
    reward = -rollout.reward
    if adversary.quantal:
        reward -= moves.temperature * moves.log_prob
    names = ("obs", "action", "log_prob", "dist", "value", "acted")
    own = {name: getattr(moves, name) for name in names}
    return rollout.replace(reward=reward, notes=None, **own)


def respond(
    game: Game,
    hyper: Hyper,
    state: Any,
    learner: Learner,
    rollout: Rollout,
    moves: Moves,
    key: jax.Array,
) -> tuple[dict, dict, Any]:
    """What both players keep of an update, in which the protagonist has learned already.

    Args:
      game: who it played against.
      hyper: as the protagonist's.
      state: `AgentState` before the update.
      learner: the protagonist after its gradient steps.
      rollout: what it learned from.
      moves: what the adversary did in it.
      key: PRNG key of these steps; folded before use.

    Returns:
      ``(network, opt_state, curriculum)``, the first two by player.
    """
    adversary, before, curriculum, _ = game
    own = rollout_of(adversary, rollout, moves)
    own = estimate(own, jnp.zeros_like(own.reward), moves.next_value, hyper)
    carry = state.rollout_state.standing.carry
    learned, _ = learn(adversary.build, hyper, before, own, carry, jax.random.fold_in(key, SALT))
    sides = {"protagonist": learner, "adversary": learned}
    networks = {side: one.policy.network for side, one in sides.items()}
    opt_states = {side: one.opt_state for side, one in sides.items()}
    kept = [
        take_turns(adversary, state.update, old, new)
        for old, new in ((state.network, networks), (state.opt_state, opt_states))
    ]
    if curriculum:
        ended = rollout.terminated | rollout.truncated
        episodes = moves.temperature, moves.shape, moves.episode_return
        curriculum = curricula.advance(curriculum, *episodes, ended)
    return *kept, curriculum


def take_turns(adversary: AdversaryBuild, update: jax.Array, old: dict, new: dict) -> dict:
    """What both players keep of an update: all, or with forces only the one whose turn it is.

    Args:
      adversary: its static part.
      update: int32[]; even ones are the protagonist's.
      old, new: anything by player, before and after.
    """
    if adversary.declared.kind not in FORCES:
        return new
    turns = {"protagonist": update % 2 == 0, "adversary": update % 2 == 1}

    def keep(side):
        return jax.tree.map(lambda a, b: jnp.where(turns[side], a, b), new[side], old[side])

    return {side: keep(side) for side in new}
