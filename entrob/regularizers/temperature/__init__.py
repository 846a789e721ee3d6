"""Regularizers that adapt a coefficient or the temperature that actions are drawn at."""

from entrob.regularizers.temperature.aepo import aepo
from entrob.regularizers.temperature.aer import aer
from entrob.regularizers.temperature.sac_temperature import sac_temperature

#: Factories in the order in which they are listed.
FACTORIES = (sac_temperature, aer, aepo)
