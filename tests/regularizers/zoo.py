"""Every registered regularizer, and its oracle."""

import functools

import cases
from oracles import controls, intrinsic, losses, shaping, temperature

from entrob.regularizers import build, regularizers

ORACLES = {
    **losses.ORACLES,
    **shaping.ORACLES,
    **temperature.ORACLES,
    **intrinsic.ORACLES,
    **controls.ORACLES,
}
OWN = [name for name in regularizers.names() if not name.startswith("tests_")]


def part_of(name, options=()):
    """One object per regularizer and options, so that compiled programs are shared."""
    return _built(name, tuple(options))


@functools.cache
def _built(name, options):
    return build(name, **dict(options))


def kinds_of(name):
    return ORACLES[name].kinds if name in ORACLES else cases.KINDS
