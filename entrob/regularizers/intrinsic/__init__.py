"""Regularizers that add a bonus to the reward."""

from entrob.regularizers.intrinsic.apt import apt
from entrob.regularizers.intrinsic.re3 import re3
from entrob.regularizers.intrinsic.rise import rise
from entrob.regularizers.intrinsic.state_entropy import state_entropy

#: Factories in the order in which they are listed.
FACTORIES = (state_entropy, re3, rise, apt)
