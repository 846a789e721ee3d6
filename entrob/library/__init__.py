"""The lines a user writes: train agents, test policies, save, load and show them."""

from entrob.library.loading import load_policy
from entrob.library.policy import Episode, Policy
from entrob.library.testing import evaluate
from entrob.library.training import Trained, train

__all__ = ["Episode", "Policy", "Trained", "evaluate", "load_policy", "train"]
