"""Small networks of regularizers' own: frozen random encoders, critics, discriminators."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from entrob.envs import entropy_features
from entrob.estimators.moments import Moments

_OPTIMIZER = optax.adam(1e-3, eps=1e-5)


def init_perceptron(key: jax.Array, sizes: tuple[int, ...], last: float = 1.0) -> list[dict]:
    """Layers from normal weights of variance 2 / fan-in and zero biases (He et al. 2015).

    Args:
      key: PRNG key.
      sizes: of input, hidden layers and output.
      last: multiplies the last layer's weights; 0 makes a network that begins as zero.
    """
    layers = []
    keys = jax.random.split(key, len(sizes) - 1)
    for k, i, o in zip(keys, sizes[:-1], sizes[1:]):
        weight = math.sqrt(2 / i) * jax.random.normal(k, (i, o))
        layers.append({"weight": weight, "bias": jnp.zeros(o)})
    layers[-1]["weight"] *= last
    return layers


def perceptron(layers: list[dict], x: jax.Array) -> jax.Array:
    """float32[..., sizes[0]] -> float32[..., sizes[-1]], with ReLU between the layers."""
    for i, layer in enumerate(layers):
        x = jax.nn.relu(x) if i else x
        x = x @ layer["weight"] + layer["bias"]
    return x


class Auxiliary(NamedTuple):
    """A network with one output that is trained beside the agent.

    Attributes:
      layers: its parameters.
      opt_state: Adam's.
      moments: `Moments` that its inputs are standardized with.
    """

    layers: list[dict]
    opt_state: Any
    moments: Moments

    @classmethod
    def begin(cls, key: jax.Array, size: int, hidden: int) -> "Auxiliary":
        """One hidden layer; the output is 0 everywhere at first."""
        layers = init_perceptron(key, (size, hidden, 1), last=0.0)
        return cls(layers, _OPTIMIZER.init(layers), Moments.empty((size,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """float32[..., size] -> float32[...]."""
        return perceptron(self.layers, (x - self.moments.mean) / self.moments.std)[..., 0]

    def train(self, x: jax.Array, loss: Callable, steps: int) -> "Auxiliary":
        """Steps of Adam (rate 1e-3) on ``loss(network) -> scalar``; x joins the moments first."""
        net = self._replace(moments=self.moments.add(x))

        def step(net, _):
            gradient = jax.grad(lambda layers: loss(net._replace(layers=layers)))(net.layers)
            moves, opt_state = _OPTIMIZER.update(gradient, net.opt_state)
            return net._replace(
                layers=optax.apply_updates(net.layers, moves), opt_state=opt_state
            ), None

        return jax.lax.scan(step, net, None, length=steps)[0]


def feature_size(spec) -> int:
    """q, the number of entropy features of the environment of a `Spec`."""

    def begin(key):
        obs, state = spec.env.reset_env(key, spec.env.default_params)
        return entropy_features(spec.env, state, obs, spec.env.default_params)

    return jax.eval_shape(begin, jax.random.key(0)).shape[0]
