"""VCSE: state entropy among states of similar value."""

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma

from entrob.errors import EntrobError
from entrob.estimators.advantages import gae
from entrob.estimators.weighted import by_rows, kth_smallest
from entrob.regularizers.intrinsic._perceptron import Auxiliary, feature_size
from entrob.regularizers.intrinsic._support import support
from entrob.regularizers.protocol import Regularizer

_TRACE = 0.95  # λ of the critic's targets


def vcse(k: int = 3, steps: int = 8, hidden: int = 64, schedule=None) -> Regularizer:
    """Add coef · (ψ(n_i + 1) / dim y + log(2 ε_i + 1e-5)) to the reward (VCSE, Kim et al. 2023).

    ε_i is the distance max(‖y_i − y_j‖, |v_i − v_j|) to the k-th nearest other step, n_i the number
    of steps with |v_i − v_j| < ε_i, itself included; v is a critic of the environment's reward
    alone, standardized over the rollout. Entropy given the value: states are spread among those of
    similar value, and good ones are not left to visit many bad ones.

    Adapted: y are the entropy features, v is a small perceptron of them, trained on λ-returns
    (λ = 0.95) that bootstrap from a state itself where its successor is not in the rollout. The
    bonus is not normalized, as released. On grids steps coincide; as released ε is then 0 and the
    1e-5 rules, the same −11.5 for nine steps of ten. Here the m other steps at the same point count
    as spread evenly over a ball that reaches half the way, δ/2, to the nearest other point:
    ε = (δ/2)(k/m)^(1/dim y) wherever m >= k, so that the more often a state is visited the less it
    pays. Discrete and continuous actions alike.

    Args:
      k: neighbor, at least 1, the point itself not counted.
      steps: of gradient for the critic after each rollout, at least 1.
      hidden: width of the critic, at least 1.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: an option is out of its range.
    """
    if k < 1 or steps < 1 or hidden < 1:
        raise EntrobError("vcse: k, steps and hidden must be at least 1")

    def init(key, spec, params):
        return Auxiliary.begin(key, feature_size(spec), hidden)

    def reward(key, critic, rollout, coef):
        points, counts, index = support(rollout, "features")
        value = critic(points)
        scale = 1.0 / jnp.sqrt(value[index].var() + 1e-5)

        def bonus(rows):
            apart = jnp.abs(value[rows][:, None] - value) * scale
            distance = jnp.sqrt(((points[rows][:, None] - points) ** 2).sum(-1))
            epsilon = _spread(jnp.maximum(distance, apart), counts, k, points.shape[1])
            near = jnp.where(apart < epsilon[:, None], counts, 0.0).sum(-1)
            return digamma(near + 1.0) / points.shape[1] + jnp.log(2.0 * epsilon + 1e-5)

        return coef * by_rows(bonus, len(points))[index], critic

    def update(key, critic, rollout, metrics):
        value = critic(rollout.features)
        unknown = rollout.truncated.at[-1].set(True)
        after = jnp.where(unknown, value, jnp.roll(value, -1, 0))
        ends = rollout.terminated, rollout.truncated
        target = value + gae(rollout.reward, value, after, *ends, rollout.context.gamma, _TRACE)
        loss = lambda net: jnp.mean((net(rollout.features) - target) ** 2)
        return critic.train(rollout.features, loss, steps)

    return Regularizer(
        "vcse",
        init=init,
        reward=reward,
        update=update,
        schedule=schedule,
        coef=0.005,
        source="Kim et al. 2023 (2305.19476)",
        evidence="code",
        label="adapted: entropy features and a small critic of them; steps at one point are spread",
    )


def _spread(distances: jax.Array, counts: jax.Array, k: int, dim: int) -> jax.Array:
    """Distance to the k-th nearest other step, those at the same point spread: float32[r].

    Args:
      distances: float32[r, V], the row's own point among them, at 0.
      counts: float32[V], how many steps stand at each point.
      k: at least 1.
      dim: of the points.
    """
    epsilon = kth_smallest(distances, counts, k + 1)
    others = jnp.where(distances <= 0, counts, 0.0).sum(-1) - 1.0
    apart = jnp.where((distances > 0) & (counts > 0), distances, jnp.inf).min(-1)
    half = jnp.where(jnp.isfinite(apart), 0.5 * apart, 0.0)
    return jnp.where(others >= k, half * (k / jnp.maximum(others, 1.0)) ** (1 / dim), epsilon)
