"""PPO learns every task that a ranking is to rest on, in the frames stated. Slow: minutes each.

Random play earns 0.5 in Asterix and 4 in SpaceInvaders; more frames earn more than is asked here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.agents.actor_critic import make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.regularizers import chain, policy_entropy

SEEDS, CHUNKS = 2, 10
GRID = {"num_envs": 16, "learning_rate": 3e-4, "policy_entropy": 0.01}
# A random walk seldom gets to the goal: with few successes in an update, policies can collapse.
RARE = {"learning_rate": 1e-3, "policy_entropy": 0.05}
BODY = {"num_envs": 8, "learning_rate": 1e-3, "policy_entropy": 0.0}
GAME = {"num_envs": 16, "num_steps": 64, "learning_rate": 1e-3, "policy_entropy": 0.01}
CASES = [  # id, settings, frames, what is measured, at least
    ("minigrid/two-paths", GRID, 300_000, "success", 0.8),
    ("minigrid/lava-crossing", RARE | {"num_envs": 64}, 600_000, "success", 0.8),
    ("minigrid/four-rooms", RARE | {"num_envs": 128}, 1_000_000, "success", 0.8),
    ("gymnax:CartPole-v1", BODY, 300_000, "return", 400),
    ("gymnax:Acrobot-v1", BODY, 100_000, "return", -100),
    ("gymnax:MountainCar-v0", BODY | {"num_envs": 16, "normalize": True, "gae_lambda": 0.98},
     300_000, "success", 0.8),
    ("gymnax:Pendulum-v1", BODY | {"normalize": True, "epochs": 10, "gamma": 0.95},
     300_000, "return", -250),
    ("gymnax:PointRobot-misc", BODY | {"normalize": True, "params": {"goal_spread": 0.0}},
     300_000, "success", 0.8),
    ("gymnax:Asterix-MinAtar", GAME, 500_000, "return", 0.9),
    ("gymnax:SpaceInvaders-MinAtar", GAME, 500_000, "return", 20),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("id", "settings", "frames", "what", "least"), CASES)
def test_ppo_learns(id, settings, frames, what, least):
    """The mean over the last tenth of training, of every seed."""
    env, params = make(id)
    default = {"num_steps": 128, "epochs": 4, "normalize": False, "gamma": 0.99, "gae_lambda": 0.95}
    settings = default | settings
    fixed = settings.get("params", {})
    params = params.replace(**{name: jnp.float32(value) for name, value in fixed.items()})
    names = ("num_envs", "num_steps", "epochs", "normalize")
    spec = Spec(
        env=env,
        regularizer=chain(policy_entropy()),
        algorithm="ppo",
        minibatches=4,
        **{name: settings[name] for name in names},
    )
    agent = make_agent(spec)
    updates = frames // spec.frames_per_update // CHUNKS
    hyper = Hyper(
        anneal=1.0,
        total_updates=updates * CHUNKS,
        coefs={"policy_entropy": settings["policy_entropy"]},
        **{name: settings[name] for name in ("learning_rate", "gamma", "gae_lambda")},
    )
    keys = jax.random.split(jax.random.key(0), SEEDS)
    state = jax.jit(jax.vmap(agent.init, (0, None, None)))(keys, hyper, params)
    train = jax.jit(jax.vmap(lambda s, h, p: agent.train_chunk(s, h, p, updates), (0, None, None)))
    for _ in range(CHUNKS):
        state, curves = train(state, hyper, params)
    sums = jax.tree.map(lambda x: np.asarray(jnp.sum(x, 1)), curves)
    assert (sums["episodes"] > 0).all()
    assert (sums[f"{what}_sum"] / sums["episodes"] > least).all()
