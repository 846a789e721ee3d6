"""What the paper reports about MiniGrid: the reference facts that reports and figures quote.

Source: Ashlag et al., *State Entropy Regularization for Robust Reinforcement Learning* (NeurIPS
2025, arXiv 2506.07085v3), Fig. 4 and Appendix B.2.  For MiniGrid the paper publishes curves and an
order of methods but **no numbers**, so nothing here is one: only the order, the protocol and the
level of the bands can be compared.
"""

from typing import NamedTuple

SEEDS = 25
"""Policies per method behind Fig. 4."""

INSTANCES = 200
"""Test episodes per policy and perturbation, each on its own instance."""

HORIZON = 200
"""Success is reported for every horizon 1..HORIZON, in environment steps."""

TEXT_LEVEL = 0.96
"""Confidence level of the bands by the paper's text: mean ± 2.054 s/√n."""

CODE_LEVEL = 0.95
"""Confidence level the released code draws: mean ± 1.96 s/√n."""

MAGNITUDES = {"wall": 6.0, "random_walls": 7.0, "goal_shift": 7.0, "elbow": 5.0}
"""Magnitude of each perturbation in Fig. 4: cells of wall, blocked cells, max-norm radius of the
goal (7 is uniform over the grid), cells of the L (in the released code only)."""

METHODS = ("none", "policy_entropy", "state_entropy")
"""The methods the paper compares on MiniGrid."""

ORDERS = {
    "wall": "state ≫ policy, none",
    "random_walls": "policy ≥ state ≫ none",
    "goal_shift": "state > policy > none",
}
"""Order of success rates as the paper reports it.  None is reported for `elbow`."""


class Claim(NamedTuple):
    """One pair out of a reported order: `better` `relation` (one of > ≥ ≫) `worse`."""

    better: str
    relation: str
    worse: str


CLAIMS = {
    "wall": (
        Claim("state_entropy", "≫", "policy_entropy"),
        Claim("state_entropy", "≫", "none"),
    ),
    "random_walls": (
        Claim("policy_entropy", "≥", "state_entropy"),
        Claim("state_entropy", "≫", "none"),
        Claim("policy_entropy", "≫", "none"),
    ),
    "goal_shift": (
        Claim("state_entropy", ">", "policy_entropy"),
        Claim("policy_entropy", ">", "none"),
        Claim("state_entropy", ">", "none"),
    ),
}
"""The pairs each order claims, those that follow by transitivity included.  "policy, none" under
`wall` claims nothing about that pair, so it is absent."""


def order(perturbation: str) -> str:
    """The order the paper reports under a perturbation, or a statement that it reports none."""
    return ORDERS.get(perturbation, "no order reported")
