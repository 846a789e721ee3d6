"""Regularizers that add a term to the loss."""

from entrob.regularizers.losses.aent import aent
from entrob.regularizers.losses.alpha_divergence import alpha_divergence
from entrob.regularizers.losses.epo import epo
from entrob.regularizers.losses.kl import kl
from entrob.regularizers.losses.lp_reg import lp_reg
from entrob.regularizers.losses.lrpg import lrpg
from entrob.regularizers.losses.policy_entropy import policy_entropy
from entrob.regularizers.losses.siren import siren
from entrob.regularizers.losses.spine import spine
from entrob.regularizers.losses.sr2l import sr2l
from entrob.regularizers.losses.tsallis import tsallis
from entrob.regularizers.losses.value_gradient import value_gradient

#: Factories in the order in which they are listed.
FACTORIES = (
    policy_entropy,
    tsallis,
    kl,
    alpha_divergence,
    epo,
    siren,
    spine,
    lp_reg,
    sr2l,
    lrpg,
    aent,
    value_gradient,
)
