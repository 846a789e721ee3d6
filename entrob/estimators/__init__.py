"""Estimators of entropy from samples: nearest neighbors over points, or over counts."""

from entrob.estimators.counting import Neighbors, neighbors, smallest_from_counts
from entrob.estimators.knn import knn_distances, knn_entropy, knn_surprisal, smallest_distances

__all__ = [
    "Neighbors",
    "knn_distances",
    "knn_entropy",
    "knn_surprisal",
    "neighbors",
    "smallest_distances",
    "smallest_from_counts",
]
