"""What the tiny experiment needs compiled, shared by the tests that run it again and again."""

import functools

import pytest

from entrob.evaluation.evaluator import Evaluator
from entrob.sweep import measure, worker

_trainers = {}


@pytest.fixture
def compiled_once(monkeypatch):
    """Equal programs are built once for all tests; for those whose code is entrob's own."""
    real = worker.compiled

    def compiled(experiment, prog, batch):
        key = experiment.hash, batch.group.key, worker.padded(len(batch.runs))
        if key not in _trainers:
            _trainers[key] = real(experiment, prog, batch)
        return _trainers[key]

    monkeypatch.setattr(worker, "compiled", compiled)
    monkeypatch.setattr(measure, "Evaluator", evaluator)


@functools.cache
def evaluator(*sizes):
    """One evaluator of so many instances, whose programs are those of the tiny experiment."""
    return Evaluator(*sizes)
