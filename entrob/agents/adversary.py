"""Two players: a protagonist learns to act while an adversary learns to disturb it.

PR-MDP and NR-MDP (Tessler, Efroni, Mannor 2019, *Action Robust Reinforcement Learning and
Applications in Continuous Control*, ICML, sections 4 and 5) are zero-sum games over one action:

- ``"probabilistic"``: with probability α the adversary's action is executed instead;
- ``"noisy"``: (1 - α) a + α ā is executed.

What differs from the original: both players learn at once with this loop's PPO (or A2C) instead
of DDPG and ten protagonist steps to one of the adversary; they share the protagonist's critic, of
which the adversary ascends the negative; each explores with its own policy's noise. Testing lets
the protagonist act alone, as there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from entrob.agents.distributions import TanhNormal
from entrob.agents.model import Model, PolicyParams
from entrob.errors import EntrobError, unknown

KINDS = ("probabilistic", "noisy")


class Adversary(NamedTuple):
    """How the players' actions are mixed.

    Attributes:
      kind: ``"probabilistic"`` (PR-MDP) or ``"noisy"`` (NR-MDP).
      strength: α in [0, 1], the adversary's share; Tessler et al. report 0.1.
    """

    kind: str
    strength: float = 0.1


def check_adversary(adversary: Adversary) -> Adversary:
    """The adversary itself; raises `EntrobError` for what cannot be one."""
    if adversary.kind not in KINDS:
        raise unknown("adversary", adversary.kind, KINDS)
    if not 0 <= adversary.strength <= 1:
        raise EntrobError(f"an adversary's strength must be in 0..1, not {adversary.strength!r}")
    return adversary


@struct.dataclass
class Players:
    """Both players' distributions over continuous actions of d dimensions.

    A raw action is float32[..., 2 d + 1]: the protagonist's, the adversary's, and 1 where the
    adversary's turn it is.

    Attributes:
      protagonist, adversary: `TanhNormal`.
      kind, strength: as of `Adversary`, static.
    """

    protagonist: TanhNormal
    adversary: TanhNormal
    kind: str = struct.field(pytree_node=False)
    strength: float = struct.field(pytree_node=False)

    #: Whose gain the advantage is: the last axis of `log_prob`.
    signs = np.float32([1.0, -1.0])

    def _split(self, action):
        size = self.protagonist.mean.shape[-1]
        return action[..., :size], action[..., size:-1], action[..., -1:]

    def sample(self, key: jax.Array) -> jax.Array:
        """Raw actions of both, and whose turn it is: float32[..., 2 d + 1]."""
        keys = jax.random.split(key, 3)
        ours, theirs = self.protagonist.sample(keys[0]), self.adversary.sample(keys[1])
        turn = jax.random.bernoulli(keys[2], self.strength, (*ours.shape[:-1], 1))
        return jnp.concatenate([ours, theirs, turn.astype(ours.dtype)], -1)

    def execute(self, action: jax.Array) -> jax.Array:
        """The environment's action: float32[..., d]."""
        ours, theirs, turn = self._split(action)
        ours, theirs = self.protagonist.execute(ours), self.adversary.execute(theirs)
        if self.kind == "noisy":
            return (1.0 - self.strength) * ours + self.strength * theirs
        return jnp.where(turn > 0, theirs, ours)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density of each player's action, 0 for one who had no turn: float32[..., 2]."""
        ours, theirs, turn = self._split(action)
        both = self.protagonist.log_prob(ours), self.adversary.log_prob(theirs)
        both = jnp.stack(both, -1)
        if self.kind == "noisy":
            return both
        return both * jnp.concatenate([1.0 - turn, turn], -1)

    def entropy(self) -> jax.Array:
        """The protagonist's: float32[...]."""
        return self.protagonist.entropy()


def two_players(model: Model, adversary: Adversary) -> Model:
    """The same policy twice, as one: parameters and memories are dictionaries of both.

    Raises:
      EntrobError: the actions are not continuous, or the adversary is none.
    """
    adversary = check_adversary(adversary)

    def each(f, policy, memory, *args):
        """What both do: the joint distribution, the protagonist's value, memories if any."""
        sides = {
            side: f(PolicyParams(policy.network[side], policy.moments), memory[side], *args)
            for side in ("protagonist", "adversary")
        }
        dists = {side: out[0] for side, out in sides.items()}
        if not isinstance(dists["protagonist"], TanhNormal):
            raise EntrobError("an adversary needs continuous actions")
        dist = Players(**dists, kind=adversary.kind, strength=adversary.strength)
        memories = {side: out[2] for side, out in sides.items() if len(out) > 2}
        return dist, sides["protagonist"][1], memories

    def init(key, obs):
        keys = jax.random.split(key)
        return {"protagonist": model.init(keys[0], obs), "adversary": model.init(keys[1], obs)}

    def memory(n):
        return {"protagonist": model.memory(n), "adversary": model.memory(n)}

    def sequence(policy, memories, obs, start):
        memories = memories or memory(1)
        return each(model.sequence, policy, memories, obs, start)[:2]

    def step(policy, memories, obs, start):
        return each(model.step, policy, memories, obs, start)

    return Model(model.recurrent, init, memory, step, sequence)


def protagonist(model: Model) -> Model:
    """The policy that is tested: that of `two_players` without the adversary.

    Args:
      model: the single player's.
    """

    def alone(f):
        side = lambda policy: PolicyParams(policy.network["protagonist"], policy.moments)
        return lambda policy, *args: f(side(policy), *args)

    return model._replace(step=alone(model.step), sequence=alone(model.sequence))
