"""Fixed batches on which every regularizer is compared with NumPy: a small policy and its rollout.

`make_case` draws a rollout of a small network and a second, slightly different network, which is
the policy that learns; `look` calls every hook of a regularizer on it, through the chain, for three
coefficients at once. Oracles (`oracles`) see the same in float64 as `Seen`.
"""

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from entrob.distributions import Categorical, TanhNormal
from entrob.estimators.counting import neighbors
from entrob.regularizers.chaining import chain
from entrob.regularizers.guards import Guarded
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Context, Finite, PolicyOutput, Rollout

STEPS, ENVS, SIZE, ACTIONS, DIMENSIONS, HIDDEN, STATES = 12, 4, 3, 4, 2, 5, 20
CLIP, GAMMA, PROGRESS = 0.2, 0.9, 0.3
LOW, HIGH = (-1.0, -2.0), (1.0, 3.0)
KINDS = ("discrete", "continuous")
EDGES = ("deterministic", "one step", "equal states")


class Case(NamedTuple):
    """A rollout and the policy that learns from it.

    Attributes:
      kind: one of `KINDS`.
      params: of the policy that learns, dictionary of float32 arrays.
      rollout: of the policy that acted.
      initial: parameters of that policy, which are also those before training.
    """

    kind: str
    params: dict[str, Any]
    rollout: Rollout
    initial: dict[str, Any]


def in_tables(table):
    """Tables of states whose features are what is observed, the observations in another order."""
    order, features = np.random.default_rng(1).permutation(len(table)), jnp.asarray(table)
    view = jnp.asarray(np.argsort(order), jnp.int32)
    return Finite(features[order], view, features, neighbors(features))


def network(xp, params, obs):
    """Outputs [..., K + 1] of one hidden layer of tanh; the last one is the value."""
    hidden = xp.tanh(obs @ params["inner"] + params["bias"])
    return hidden @ params["outer"] + params["shift"]


def log_std_of(raw):
    """Spreads for which the quadrature of a tanh-normal's entropy is exact to 1e-4."""
    return 0.3 * raw - 1.0


def apply(kind, params, obs):
    """``(dist, value)`` of the network."""
    out = network(jnp, params, obs)
    if kind == "discrete":
        return Categorical(out[..., :-1]), out[..., -1]
    mean, log_std = jnp.split(out[..., :-1], 2, -1)
    return TanhNormal(mean, log_std_of(log_std), LOW, HIGH), out[..., -1]


@functools.cache
def make_case(seed=0, kind="discrete", finite=False, edge=None) -> Case:
    """A case; `edge` makes policies deterministic, episodes one step long, or all states equal."""
    rng = np.random.default_rng(seed)
    shape = (STEPS, ENVS)
    width = 1 + (ACTIONS if kind == "discrete" else 2 * DIMENSIONS)
    draw = lambda *s: rng.normal(size=s)
    params = {"inner": draw(SIZE, HIDDEN), "bias": draw(HIDDEN)}
    params |= {"outer": draw(HIDDEN, width), "shift": draw(width)}
    moved = {name: x + 0.1 * draw(*x.shape) for name, x in params.items()}
    if edge == "deterministic":
        for p in (params, moved):
            p["outer"], p["shift"] = 0 * p["outer"], 0 * p["shift"]
            p["shift"][0] = 1e4 if kind == "discrete" else 30.0
            p["shift"][2:-1] = 0.0 if kind == "discrete" else -4.5
    params, moved = (jax.tree.map(jnp.float32, p) for p in (params, moved))
    table = np.random.default_rng(7).integers(-2, 3, (STATES, SIZE)).astype(np.float32)
    index = rng.integers(0, STATES, shape)
    obs = table[index] if finite else draw(*shape, SIZE).astype(np.float32)
    if edge == "equal states":
        index, obs = 0 * index, 0 * obs + table[0]
    done = np.ones(shape, bool) if edge == "one step" else rng.random(shape) < 0.15
    terminated = done & (rng.random(shape) < 0.7)
    time = np.zeros(shape, int)
    for t in range(1, STEPS):
        time[t] = np.where(done[t - 1], 0, time[t - 1] + 1)
    dist, value = apply(kind, params, obs)
    action = dist.sample(jax.random.key(seed))
    number = lambda: jnp.asarray(draw(*shape), jnp.float32)
    advantage = number()
    rollout = Rollout(
        obs=jnp.asarray(obs),
        features=jnp.asarray(obs),
        time=jnp.asarray(time, jnp.int32),
        action=action,
        log_prob=dist.log_prob(action),
        value=value,
        reward=number(),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(done & ~terminated),
        success=jnp.asarray(terminated & (rng.random(shape) < 0.5)),
        advantage=(advantage - advantage.mean()) / advantage.std(),
        target=number(),
        dist=dist,
        context=Context(
            progress=jnp.float32(PROGRESS),
            gamma=jnp.float32(GAMMA),
            reward_scale=jnp.float32(2.0),
            finite=in_tables(table) if finite else None,
        ),
        index=jnp.asarray(index, jnp.int32) if finite else None,
    )
    return Case(kind, moved, rollout, params)


def spec_of(kind: str) -> SimpleNamespace:
    """What `init` may ask of the agent's spec."""
    action = (
        spaces.Discrete(ACTIONS)
        if kind == "discrete"
        else spaces.Box(jnp.array(LOW), jnp.array(HIGH), (DIMENSIONS,))
    )
    env = SimpleNamespace(
        default_params=None,
        entropy_features=None,
        observation_space=lambda params: spaces.Box(-3, 3, (SIZE,)),
        reset_env=lambda key, params: (jnp.zeros(SIZE), jnp.zeros(())),
        step_env=lambda key, state, action, params: (
            jnp.zeros(SIZE),
            state + 1,
            state / 3 + jnp.sum(action),
            state > 8,
            {},
        ),
        is_truncated=lambda state, params: jnp.zeros((), bool),
        finite=True,
        states=lambda params: jnp.zeros(STATES),
        action_space=lambda params: action,
    )
    sizes = {"num_envs": ENVS, "num_steps": STEPS, "epochs": 2, "minibatches": 3}
    return SimpleNamespace(env=env, network=None, algorithm="ppo", **sizes)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _look(part: Regularizer, kind, params, rollout, state, coefs):
    whole = chain(part)
    keys = jax.random.split(jax.random.key(3), 4)
    alone = rollout.replace(context=None)

    def one(coef):
        states, named = {part.name: Guarded(state)}, {part.name: coef}
        bonus, states = whole.reward(keys[0], states, rollout, named)
        shaped, _ = whole.advantage(states, rollout, named)
        notes = whole.prepare(states, shaped, named)
        steps = alone.replace(advantage=shaped.advantage, target=shaped.target, notes=notes)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps)
        batch = batch.replace(context=rollout.context)

        def objective(params):
            dist, value = apply(kind, params, batch.obs)
            policy = PolicyOutput(dist, value, params, functools.partial(apply, kind))
            (weight, low, high), _ = whole.surrogate(
                keys[1], states, policy, batch, named, jnp.float32(CLIP)
            )
            ratio = jnp.exp(dist.log_prob(batch.action) - batch.log_prob)
            gain = jnp.minimum(
                ratio * batch.advantage, jnp.clip(ratio, 1 - low, 1 + high) * batch.advantage
            )
            loss, _ = whole.loss(keys[2], states, policy, batch, named)
            return -jnp.mean(weight * gain) + loss, {
                "weight": weight, "low": low, "high": high, "loss": loss
            }  # fmt: skip

        (value, out), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        behavior = whole.behavior(states, rollout.dist, named)
        metrics = {"policy_entropy": jnp.float32(1.0), "params": params}
        new = whole.update(keys[3], states, rollout, metrics, named)
        return {
            **out,
            "bonus": bonus,
            "advantage": shaped.advantage,
            "target": shaped.target,
            "behavior": behavior,
            "objective": value,
            "gradient": gradient,
            "updated": new[part.name].inner,
        }

    return jax.vmap(one)(coefs)


def look(part: Regularizer, case: Case, state: Any, coefs) -> dict[str, Any]:
    """What every hook returns, leaves [coefficients, ...]; one compilation per kind and shape."""
    out = _look(part, case.kind, case.params, case.rollout, state, jnp.asarray(coefs, jnp.float32))
    return jax.tree.map(np.asarray, out)


def initial_state(part: Regularizer, case: Case):
    """The state before training, as arrays."""
    if part.init is None:
        return ()
    state = part.init(jax.random.key(1), spec_of(case.kind), case.initial)
    return jax.tree.map(jnp.asarray, state)


class NumPyPolicy:
    """The network in float64, and its distribution by formulas of its own."""

    def __init__(self, kind, params, obs, behavior=None):
        self.kind, self.params, self.obs = kind, params, obs
        out = network(np, params, obs) if behavior is None else behavior
        self.value = out[..., -1]
        if kind == "discrete":
            self.logits = out[..., :-1]
            shifted = self.logits - self.logits.max(-1, keepdims=True)
            self.log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
            self.probs = np.exp(self.log_probs)
        else:
            self.mean, log_std = np.split(out[..., :-1], 2, -1)
            self.log_std = log_std_of(log_std)

    def at(self, obs) -> "NumPyPolicy":
        """The same network elsewhere."""
        return NumPyPolicy(self.kind, self.params, obs)

    def log_prob(self, action):
        """log π(action), of the executed action where actions are continuous."""
        if self.kind == "discrete":
            return np.take_along_axis(self.log_probs, action[..., None].astype(int), -1)[..., 0]
        std = np.exp(self.log_std)
        normal = -0.5 * ((action - self.mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
        return (normal - self._log_slope(action)).sum(-1)

    def entropy(self):
        """In nats; of the executed action, by the trapezoidal rule, where it is continuous."""
        if self.kind == "discrete":
            return -(self.probs * self.log_probs).sum(-1)
        z = np.linspace(-9, 9, 301)
        weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
        std = np.exp(self.log_std)[..., None]
        u = self.mean[..., None] + std * z
        slope = np.moveaxis(self._log_slope(np.moveaxis(u, -1, 0)), 0, -1) @ weight
        return (0.5 * np.log(2 * np.pi * np.e) + np.log(std[..., 0]) + slope).sum(-1)

    def kl(self, other):
        """KL(self ‖ other) in nats."""
        if self.kind == "discrete":
            return (self.probs * (self.log_probs - other.log_probs)).sum(-1)
        ratio = np.exp(2 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) / np.exp(other.log_std)) ** 2
        return 0.5 * (ratio + distance - 1 - np.log(ratio)).sum(-1)

    def _log_slope(self, u):
        half = (np.array(HIGH) - np.array(LOW)) / 2
        return np.log(half) - 2 * np.log(np.cosh(u))


class Seen(NamedTuple):
    """What an oracle sees, all float64.

    Attributes:
      rollout: fields of `Rollout` as arrays [T, N, ...]; its `dist` is a `NumPyPolicy`.
      batch: the same as [T * N, ...]; its advantages are those after the `advantage` hook.
      state: the regularizer's, leaves as arrays.
      coef: the coefficient.
      now: the policy that learns, on the batch.
      frozen: the same policy wherever no gradient flows: only `now` moves in finite differences.
    """

    rollout: SimpleNamespace
    batch: SimpleNamespace
    state: Any
    coef: float
    now: NumPyPolicy
    frozen: NumPyPolicy


def numpy_rollout(case: Case, advantage=None) -> tuple[SimpleNamespace, SimpleNamespace]:
    """The rollout and, flat, the batch in float64; advantages as given."""
    rollout = case.rollout
    dist = rollout.dist
    fields = {name: getattr(rollout, name) for name in rollout.__dataclass_fields__}
    fields = {k: v for k, v in fields.items() if k not in ("dist", "context", "notes")}
    fields = {k: None if v is None else np.asarray(v) for k, v in fields.items()}
    fields = {
        k: v if v is None or v.dtype == bool else v.astype(np.float64) for k, v in fields.items()
    }
    shared = {k: np.float64(getattr(rollout.context, k)) for k in ("progress", "gamma")}
    shared["reward_scale"] = np.float64(rollout.context.reward_scale)
    finite = jax.tree.map(np.asarray, rollout.context.finite)
    context = SimpleNamespace(**shared, finite=finite)
    if advantage is not None:
        fields["advantage"] = np.asarray(advantage, np.float64)
    # What `log_std_of` would make of them.
    continuous = case.kind == "continuous"
    outputs = [dist.mean, (dist.log_std + 1.0) / 0.3] if continuous else [dist.logits]
    outputs = np.concatenate([*outputs, np.asarray(rollout.value)[..., None]], -1)
    outputs = outputs.astype(np.float64)
    policy = NumPyPolicy(case.kind, None, None, outputs)
    whole = SimpleNamespace(**fields, dist=policy, context=context)
    flat = {
        k: v.reshape(-1, *v.shape[2:]) if v is not None and v.ndim >= 2 else v
        for k, v in fields.items()
    }
    acted = NumPyPolicy(case.kind, None, None, outputs.reshape(-1, outputs.shape[-1]))
    return whole, SimpleNamespace(**flat, dist=acted, context=context)
