"""Regularizers that add a bonus to the reward."""

from entrob.regularizers.intrinsic.apt import apt
from entrob.regularizers.intrinsic.count_entropy import count_entropy
from entrob.regularizers.intrinsic.discounted_count_entropy import discounted_count_entropy
from entrob.regularizers.intrinsic.orpo import orpo_chi2, orpo_kl, orpo_root_chi2
from entrob.regularizers.intrinsic.re3 import re3
from entrob.regularizers.intrinsic.rise import rise
from entrob.regularizers.intrinsic.state_action_entropy import state_action_entropy
from entrob.regularizers.intrinsic.state_entropy import state_entropy
from entrob.regularizers.intrinsic.vcse import vcse

#: Factories in the order in which they are listed.
FACTORIES = (
    state_entropy,
    re3,
    vcse,
    rise,
    apt,
    count_entropy,
    discounted_count_entropy,
    state_action_entropy,
    orpo_kl,
    orpo_chi2,
    orpo_root_chi2,
)
