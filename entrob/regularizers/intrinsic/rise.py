"""RISE: Rényi entropy of states in the space of a frozen random encoder."""

from entrob.errors import EntrobError
from entrob.regularizers.intrinsic.re3 import encoded_distances, init_encoder
from entrob.regularizers.protocol import Regularizer


def rise(alpha: float = 0.5, k: int = 3, dim: int = 50, schedule=None) -> Regularizer:
    """Add coef · ‖y − y_kNN‖^{1−α} to the reward (RISE, Yuan et al. 2022).

    y is a frozen random encoding of the observation as in `re3`. The smaller α, the more rare
    observations count; the bonus is not normalized, so its size depends on the encoder.

    Adapted as `re3` is. The source chooses k with an autoencoder; here it is an option. Discrete
    and continuous actions alike: actions do not enter.

    Args:
      alpha: order of the entropy, in (0, 1); 1 would be Shannon's.
      k: neighbor, at least 1, the point itself not counted.
      dim: outputs of the encoder, at least 1.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: an option is out of its range.
    """
    if k < 1 or dim < 1 or not 0 < alpha < 1:
        raise EntrobError("rise: k and dim must be at least 1 and alpha in (0, 1)")

    def init(key, spec, params):
        return init_encoder(key, spec, dim)

    def reward(key, state, rollout, coef):
        return coef * encoded_distances(state, rollout, k) ** (1.0 - alpha), state

    return Regularizer(
        "rise",
        init=init,
        reward=reward,
        schedule=schedule,
        coef=0.005,
        source="Yuan et al. 2022 (2203.04297)",
        evidence="paper",
        label="adapted: neighbors within the rollout, perceptron encoder, k given",
    )
