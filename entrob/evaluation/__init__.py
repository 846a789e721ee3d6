"""Evaluation: how a trained policy fares under perturbed params, sampled and exactly."""

from entrob.evaluation.exact import success_by_horizon
from entrob.evaluation.sampled import Episodes, play

__all__ = ["Episodes", "play", "success_by_horizon"]
