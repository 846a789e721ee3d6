"""A plain PyTorch LSTM-PPO of the paper's Pusher agent: training frames/s of one agent.

    python benchmarks/speed/torch_lstm_ppo.py [--updates 5] [--threads 2] [--out FILE.json]

The yardstick for training.py --experiment pusher: the usual way to write it, on Gymnasium's
Pusher-v5 in a vector environment. Network, hyper-parameters and running normalization are those of
benchmarks/pusher.toml (B.3). Needs torch and gymnasium[mujoco] (peers.txt) and nothing of entrob.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import nn

ENVS, STEPS, WIDTH = 32, 100, 256
EPOCHS, MINIBATCHES = 4, 4
GAMMA, LAMBDA, ALPHA = 0.99, 0.95, 0.02
RATE, VALUE_COEFFICIENT, MAX_NORM, CLIP, VALUE_CLIP = 6e-5, 0.3, 0.5, 0.08, 0.08
LOG_STD, BOUND = (-5.0, 1.2), 10.0


class Network(nn.Module):
    """Two encoder layers, an LSTM, and a head of one hidden layer each for actor and critic."""

    def __init__(self, observations: int = 23, actions: int = 7):
        super().__init__()
        hidden = lambda size: (nn.Linear(size, WIDTH), nn.ReLU())
        self.encoder = nn.Sequential(*hidden(observations), *hidden(WIDTH))
        self.lstm = nn.LSTM(WIDTH, WIDTH)
        self.actor = nn.Sequential(*hidden(WIDTH), nn.Linear(WIDTH, 2 * actions))
        self.critic = nn.Sequential(*hidden(WIDTH), nn.Linear(WIDTH, 1))

    def forward(self, observation: torch.Tensor, memory=None):
        """float32[T, N, D] of one episode -> (normal[T, N, A], value float32[T, N], memory)."""
        x, memory = self.lstm(self.encoder(observation), memory)
        mean, log_std = self.actor(x).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(*LOG_STD).exp())
        return normal, self.critic(x).squeeze(-1), memory


class Moments:
    """Running mean and variance of vectors of one size (Chan et al. 1979)."""

    def __init__(self, size: int):
        self.count, self.mean, self.var = 1e-4, torch.zeros(size), torch.ones(size)

    def add(self, x: torch.Tensor) -> None:
        """Count in the rows of float32[n, size]."""
        total, delta = self.count + len(x), x.mean(0) - self.mean
        between = delta**2 * self.count * len(x) / total
        self.var = (self.var * self.count + x.var(0, correction=0) * len(x) + between) / total
        self.mean, self.count = self.mean + delta * len(x) / total, total

    def standardize(self, x: torch.Tensor) -> torch.Tensor:
        """Bounded numbers of mean 0 and variance 1."""
        return ((x - self.mean) / (self.var + 1e-8).sqrt()).clamp(-BOUND, BOUND)


def log_prob(normal, raw: torch.Tensor) -> torch.Tensor:
    """Log-density of tanh(raw), float32[..., A] -> float32[...]."""
    jacobian = 2 * (math.log(2) - raw - nn.functional.softplus(-2 * raw))
    return (normal.log_prob(raw) - jacobian).sum(-1)


def tensor(x) -> torch.Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float32)


def rollout(envs, network, moments, observation):
    """One episode of every environment: Pusher's time limit of 100 steps ends them together."""
    bound, memory, steps = tensor(envs.single_action_space.high), None, []
    with torch.no_grad():
        for _ in range(STEPS):
            normal, value, memory = network(moments.standardize(observation)[None], memory)
            raw = normal.sample()
            action = (bound * torch.tanh(raw[0])).numpy()
            following, reward, _, truncated, info = envs.step(action)
            steps.append((observation, raw[0], log_prob(normal, raw)[0], value[0], tensor(reward)))
            observation = tensor(following)
        assert truncated.all()
        # A truncated episode continues in the value of its last observation.
        last = tensor(np.stack(info["final_obs"]))
        bootstrap = network(moments.standardize(last)[None], memory)[1]
    return observation, *map(torch.stack, zip(*steps)), bootstrap[0]


def advantages(values, rewards, bootstrap):
    """Generalized advantage estimates, float32[STEPS, ENVS]."""
    out, running = torch.zeros_like(rewards), torch.zeros(ENVS)
    following = torch.cat([values[1:], bootstrap[None]])
    for t in reversed(range(STEPS)):
        delta = rewards[t] + GAMMA * following[t] - values[t]
        out[t] = running = delta + GAMMA * LAMBDA * running
    return out


def loss(network, observations, raws, logs, values, advantage, target):
    """PPO's of whole episodes, float32[STEPS, n]."""
    normal, value, _ = network(observations)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    new = log_prob(normal, raws)
    ratio = (new - logs).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    clipped = values + (value - values).clamp(-VALUE_CLIP, VALUE_CLIP)
    errors = torch.maximum((value - target).square(), (clipped - target).square())
    # The tanh-normal's entropy has no closed form: one sample, as its gradient needs.
    entropy = -log_prob(normal, normal.rsample()).mean()
    return -gain.mean() + VALUE_COEFFICIENT * errors.mean() - ALPHA * entropy


def update(envs, network, optimizer, moments, returns, observation):
    """One rollout and its epochs; returns the observation to go on from."""
    observation, observations, raws, logs, values, rewards, bootstrap = rollout(
        envs, network, moments, observation
    )
    discounted = torch.zeros((STEPS, ENVS))
    for t in range(STEPS):
        discounted[t] = rewards[t] + (GAMMA * discounted[t - 1] if t else 0.0)
    returns.add(discounted.reshape(-1, 1))
    rewards = (rewards / (returns.var + 1e-8).sqrt()).clamp(-BOUND, BOUND)
    advantage = advantages(values, rewards, bootstrap)
    standardized = moments.standardize(observations)
    batch = standardized, raws, logs, values, advantage, advantage + values
    for _ in range(EPOCHS):
        for piece in torch.randperm(ENVS).chunk(MINIBATCHES):
            optimizer.zero_grad()
            loss(network, *(x[:, piece] for x in batch)).backward()
            nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
            optimizer.step()
    moments.add(observations.flatten(0, 1))
    return observation


def main() -> None:
    """Print frames/s; write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--processes", action="store_true", help="one for each environment")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    vector = AsyncVectorEnv if options.processes else SyncVectorEnv
    single_env = lambda: gymnasium.make("Pusher-v5")
    envs = vector([single_env] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, eps=1e-5)
    parts = envs, network, optimizer, Moments(23), Moments(1)
    observation = update(*parts, tensor(envs.reset(seed=0)[0]))

    seconds = []
    for _ in range(options.updates):
        start = time.perf_counter()
        observation = update(*parts, observation)
        seconds.append(time.perf_counter() - start)
    envs.close()
    rate = ENVS * STEPS / statistics.median(seconds)
    print(
        f"PyTorch LSTM-PPO, one agent: {rate:,.0f} frames/s (median of {options.updates} updates)"
    )
    if options.out:
        facts = {
            "cores": os.cpu_count(),
            "threads": options.threads,
            "vector": vector.__name__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "gymnasium": gymnasium.__version__,
            "mujoco": mujoco.__version__,
        }
        with open(options.out, "w") as file:
            json.dump({"machine": facts, "frames_per_s": rate, "updates": options.updates}, file)


if __name__ == "__main__":
    main()
