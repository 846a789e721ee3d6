"""A plain PyTorch A2C of the paper's MiniGrid agent: training frames/s of one agent.

    python benchmarks/speed/torch_a2c.py [--updates 10] [--out torch_a2c.json]

The yardstick for training.py: the usual way to write it, on Farama's `minigrid` in gymnasium's
SyncVectorEnv. Network, hyper-parameters and the policy-entropy bonus are the paper's (B.2). Needs
torch and minigrid (peers.txt) and nothing of entrob.
"""

import argparse
import json
import os
import platform
import statistics
import time

import gymnasium
import minigrid
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from minigrid.envs import EmptyEnv
from minigrid.wrappers import ImgObsWrapper
from torch import nn

ENVS, STEPS = 8, 100
GAMMA, LAMBDA, ALPHA = 0.99, 0.95, 0.01
VALUE_COEFFICIENT, CLIP = 0.5, 0.5


class Network(nn.Module):
    """Three 2×2 convolutions on the raw image, then an actor and a critic head."""

    def __init__(self, actions: int = 3):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 2), nn.ReLU(),
            nn.Conv2d(32, 64, 2), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        self.actor = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, actions))
        self.critic = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, image: torch.Tensor):
        """uint8[N, 7, 7, 3] -> (action distribution, value float32[N])."""
        x = self.trunk(image.permute(0, 3, 1, 2).float())
        return torch.distributions.Categorical(logits=self.actor(x)), self.critic(x).squeeze(1)


def single_env():
    """The paper's room: 8×8 inside, 200 steps."""
    return ImgObsWrapper(EmptyEnv(size=10, max_steps=200))


def rollout(envs, network, image):
    """STEPS moves of every environment: the images, the actions, and what advantages need."""
    images = torch.zeros((STEPS, ENVS, 7, 7, 3), dtype=torch.uint8)
    actions = torch.zeros((STEPS, ENVS), dtype=torch.long)
    values, rewards, ends = (torch.zeros((STEPS, ENVS)) for _ in range(3))
    with torch.no_grad():
        for t in range(STEPS):
            policy, values[t] = network(image)
            images[t], actions[t] = image, policy.sample()
            following, reward, terminated, truncated, info = envs.step(actions[t].numpy())
            # The text's reward: 1 at the goal.
            rewards[t] = torch.as_tensor(np.sign(reward), dtype=torch.float32)
            ends[t] = torch.as_tensor(terminated | truncated, dtype=torch.float32)
            cut = np.flatnonzero(truncated & ~terminated)
            if cut.size:  # a truncated episode continues in the value of its last observation
                last = np.stack([info["final_obs"][i] for i in cut])
                rewards[t, cut] += GAMMA * network(torch.as_tensor(last))[1]
            image = torch.as_tensor(following)
        bootstrap = network(image)[1]
    return image, images, actions, values, rewards, ends, bootstrap


def advantages(values, rewards, ends, bootstrap):
    """Generalized advantage estimates, float32[STEPS, ENVS]."""
    out, running = torch.zeros_like(rewards), torch.zeros(ENVS)
    for t in reversed(range(STEPS)):
        following = bootstrap if t == STEPS - 1 else values[t + 1]
        delta = rewards[t] + GAMMA * following * (1 - ends[t]) - values[t]
        out[t] = running = delta + GAMMA * LAMBDA * (1 - ends[t]) * running
    return out


def update(envs, network, optimizer, image):
    """One rollout and one gradient step; returns the image to go on from."""
    image, images, actions, values, rewards, ends, bootstrap = rollout(envs, network, image)
    advantage = advantages(values, rewards, ends, bootstrap).flatten()
    target = advantage + values.flatten()
    policy, value = network(images.flatten(0, 1))
    policy_loss = -(policy.log_prob(actions.flatten()) * advantage).mean()
    value_loss = (target - value).square().mean()
    loss = policy_loss + VALUE_COEFFICIENT * value_loss - ALPHA * policy.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimizer.step()
    return image


def main() -> None:
    """Print frames/s; write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="so small a network gains none")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    envs = SyncVectorEnv([single_env] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    network = Network()
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3, alpha=0.99, eps=1e-8)
    image = update(envs, network, optimizer, torch.as_tensor(envs.reset(seed=0)[0]))

    seconds = []
    for _ in range(options.updates):
        start = time.perf_counter()
        image = update(envs, network, optimizer, image)
        seconds.append(time.perf_counter() - start)
    rate = ENVS * STEPS / statistics.median(seconds)
    print(f"PyTorch A2C, one agent: {rate:,.0f} frames/s (median of {options.updates} updates)")
    if options.out:
        facts = {
            "cores": os.cpu_count(),
            "threads": options.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "gymnasium": gymnasium.__version__,
            "minigrid": minigrid.__version__,
        }
        with open(options.out, "w") as file:
            json.dump({"machine": facts, "frames_per_s": rate, "updates": options.updates}, file)


if __name__ == "__main__":
    main()
